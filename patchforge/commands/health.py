"""``patchforge health``: whether a ComfyUI that runs is in order."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from patchforge.commands.common import coloured, show_json
from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import line
from patchforge.operate import records, watch_pack
from patchforge.operate.asking import checked
from patchforge.operate.health import Health, HealthProbe, Look
from patchforge.operate.sd_notify import notify, watchdog_seconds

_TIMEOUTS = {HealthProbe.LIVE: 5.0, HealthProbe.READY: 5.0, HealthProbe.DEEP: 60.0}


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when it is in order, 1 when it is not, 74 when a disk is full, 69 when that cannot be told."""
    if options.write_pack:
        place = watch_pack.write(Path(options.write_pack))
        if options.json:
            show_json("health-pack", {"written": str(place)})
        else:
            print(f"written: {line(str(place))}; restart ComfyUI")
        return Exit.OK
    if options.watch and options.json:
        raise PatchforgeError(
            "--json is one document", expected="one look", found="--watch", do="leave one of them out"
        )
    probe = HealthProbe.DEEP if options.deep else HealthProbe.LIVE if options.live else HealthProbe.READY
    look = Look(
        checked(options.url),
        timeout=options.timeout or _TIMEOUTS[probe],
        stalled=options.stalled,
        allow_cpu=options.allow_cpu,
        disks=tuple(map(Path, options.disk)),
    )
    if options.watch:
        return _watch(options, look, probe)
    return _once(options, look, probe)


def _once(options: argparse.Namespace, look: Look, probe: HealthProbe) -> int:
    health = look.look(probe)
    if options.state:
        record = look.record(probe, health, records.now())
        records.write(Path(options.state), "health", f"{record.server}-{probe}", record)
    _show(options, look, probe, health)
    return Exit.OK if health.ok else Exit.SYSTEM if health.full else Exit.FAILED


def _watch(options: argparse.Namespace, look: Look, probe: HealthProbe) -> int:
    """Looks until it is ended, or until it was not in order so many times in a row."""
    limit = watchdog_seconds()
    if 0 < limit <= options.watch:
        raise PatchforgeError(
            f"systemd waits {limit:g} s for a sign of life, and looks are {options.watch:g} s apart",
            expected="WatchdogSec= longer than --watch and a look together",
            do="raise the one or lower the other",
        )
    failures = 0
    while True:
        begin = time.monotonic()
        status = _once(options, look, probe)
        failures = 0 if status == Exit.OK else failures + 1
        if status == Exit.OK:
            notify("READY=1", "WATCHDOG=1", "STATUS=in order")
        else:
            notify(f"STATUS=not in order, {failures} times in a row")
        if failures >= options.failures:
            return status
        time.sleep(max(0.0, options.watch - (time.monotonic() - begin)))


def _show(options: argparse.Namespace, look: Look, probe: HealthProbe, health: Health) -> None:
    if options.json:
        show_json("health", {"url": look.url, "probe": probe.value, **asdict(health)})
    else:
        print(
            f"{coloured('ok', 'ok') if health.ok else coloured('failed', 'failed')}  {line(health.reason)}", flush=True
        )
