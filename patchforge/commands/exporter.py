"""``patchforge exporter``: tell Prometheus what GPUs, ComfyUI and Ollama do."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import line
from patchforge.faults import told
from patchforge.operate.asking import Poll, Watched, checked
from patchforge.operate.comfyui import WatchedComfyUI
from patchforge.operate.hardware import Reader
from patchforge.operate.ollama import WatchedOllama
from patchforge.operate.prometheus import Prometheus
from patchforge.operate.sd_notify import notify

_SLOW = 60.0  #: seconds between looks at certificates


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when it is told to end; it needs the extra ``operate``."""
    from patchforge.operate import console, machine  # noqa: PLC0415
    from patchforge.operate.exporter import Certificates, Exporter, sources  # noqa: PLC0415 - an extra
    from patchforge.operate.server import MetricsServer  # noqa: PLC0415

    root = Path(options.root)
    if not root.is_dir():
        raise PatchforgeError(f"{root} is not a folder", expected="the root of a file system", do="correct --root")
    for folder in (*options.disk, *options.state):  # a disk may be mounted, and a record written, later
        if not Path(folder).is_dir():
            print(f"note: {line(folder)} is not a folder yet; nothing is told of it until it is", file=sys.stderr)
    for named in options.certificate:
        machine.check_certificate(named)
        if machine.is_file_name(named) and not Path(named).is_file():
            print(f"note: {line(named)} is not a file yet; it is told as one that cannot be read", file=sys.stderr)
    watched: list[Watched] = [
        *(WatchedComfyUI(checked(url)) for url in options.comfyui),
        *(WatchedOllama(checked(url)) for url in options.ollama),
    ]
    if len({(server.prefix, server.server) for server in watched}) < len(watched):
        raise PatchforgeError("a server is named twice", expected="each once", do="leave one of them out")
    reader = Reader(root, stale=6 * options.interval)
    polls = [Poll(server, options.interval) for server in watched]
    slow = Certificates(options.certificate)
    prometheus = Prometheus(checked(options.prometheus)) if options.prometheus else None
    exporter = Exporter(sources(reader, polls, map(Path, options.disk), slow.collect, map(Path, options.state)))
    reader.sample()
    slow.look()
    if options.once:
        from prometheus_client import generate_latest  # noqa: PLC0415

        for poll in polls:
            poll.look()
        sys.stdout.write(generate_latest(exporter.registry()).decode())
        return Exit.OK
    with MetricsServer(options.listen, exporter.registry(), partial(console.page, prometheus)) as server:
        ended = threading.Event()
        for poll in polls:
            poll.start()
        every = ((options.interval, reader.sample), (_SLOW, slow.look))
        for seconds, look in every:
            threading.Thread(target=_repeat, args=(ended, seconds, look), daemon=True).start()

        def end(_number: int, _frame: FrameType | None) -> None:
            ended.set()
            threading.Thread(target=server.shutdown, daemon=True).start()

        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, end)
        print(f"metrics at {server.url}/metrics", file=sys.stderr, flush=True)
        notify("READY=1")
        server.serve_forever()
    return Exit.OK


def _repeat(ended: threading.Event, seconds: float, look: Callable[[], object]) -> None:
    """As long as the exporter runs, whatever goes wrong in one look."""
    while not ended.wait(seconds):
        try:
            look()
        except Exception as error:  # noqa: BLE001
            print(f"patchforge exporter: {told(error).problem}", file=sys.stderr, flush=True)
