"""A real systemd as process 1 of namespaces of its own, for tests.

Its root is an overlay that goes with it, and it knows no unit but those that it is given: what Debian starts with every
systemd (to empty /tmp, for one) is not there. It needs root, since units have users of their own and mounts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import ROOT

SYSTEMD = Path("/lib/systemd/systemd")
UNITS = "/etc/systemd/system"
_PROGRAMS = ("setpriv", "unshare", "nsenter", "systemctl", "ip")
#: Targets that units of services name; without any of what they pull in elsewhere.
_TARGETS = ("sysinit", "basic", "network", "multi-user", "shutdown", "timers", "sockets", "paths")
_HOMES = ("/root", "/home")
_BOOT = """
set -eu
mount --make-rprivate /
mount -t tmpfs none {top}
mkdir {top}/upper {top}/work {top}/root {top}/group
mount -t overlay none -o lowerdir=/,upperdir={top}/upper,workdir={top}/work {top}/root
mount -t cgroup2 none {top}/group
mkdir -p {top}/group/{group}/init
echo $$ > {top}/group/{group}/init/cgroup.procs
cd {top}/root
mount --rbind /dev dev
mount -t proc none proc
mount -t sysfs none sys
for folder in run tmp var/tmp var/lib var/cache var/log; do mkdir -p $folder; mount -t tmpfs none $folder; done
chmod 1777 tmp var/tmp
for name in {groups}; do
  grep -q "^$name:" etc/group || echo "$name:x:$((64000 + $(wc -l < etc/group))):" >> etc/group
done
mount -t tmpfs none {units_inside}
cp -r {units}/. {units_inside}
{binds}
ip link set lo up
exec unshare --cgroup sh -c '
mount -t cgroup2 none sys/fs/cgroup
mkdir -p run/old
pivot_root . run/old
umount -l /run/old
export container=patchforge SYSTEMD_UNIT_PATH={units_at} SYSTEMD_GENERATOR_PATH= SYSTEMD_ENVIRONMENT_GENERATOR_PATH=
cd /
exec {systemd} --system --unit=multi-user.target --log-target=console --show-status=no
'
"""


PATCHFORGE = "/opt/patchforge/bin/patchforge"  #: where units look for the command
_COMMAND = """#!{python}
import sys
sys.path[:0] = {paths}
{before}
from patchforge.cli import main
sys.exit(main())
"""


def command_of_ours(top: Path, before: str = "") -> Path:
    """This repository's ``patchforge`` as a program in ``top``, which runs ``before`` first."""
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    command = top / "patchforge"
    command.write_text(_COMMAND.format(python=sys.executable, paths=paths, before=before))
    command.chmod(0o755)
    return command


def missing() -> str:
    """Why there can be none here; "" where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "systemd in namespaces needs Linux and root"
    lacking = [name for name in _PROGRAMS if not shutil.which(name)] + ([] if SYSTEMD.exists() else ["systemd"])
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    with tempfile.TemporaryDirectory() as folder:
        place = shlex.quote(folder)
        script = (
            f"mount --make-rprivate / && mount -t tmpfs none {place} && cd {place} && mkdir u w r g && "
            f"mount -t overlay none -o lowerdir=/,upperdir={place}/u,workdir={place}/w r && mount -t cgroup2 none g"
        )
        command = ["unshare", "--mount", "--pid", "--net", "--cgroup", "--fork", "sh", "-c", script]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"namespaces, an overlay and cgroup v2 cannot be had: {tried.stderr.strip()[:200]}"
    return ""


def at_home(paths: Iterable[Path]) -> str:
    """Lines for a unit with ``ProtectHome=``, which is to see these of a home: an interpreter may be there."""
    places = sorted({str(path) for path in paths if str(path).startswith(tuple(f"{home}/" for home in _HOMES))})
    return "".join(["ProtectHome=tmpfs\n", *(f"BindReadOnlyPaths={place}\n" for place in places)]) if places else ""


@dataclass
class Systemd:
    """It runs within the block. ``units``: texts by file name; ``binds``: places in there of files and folders here."""

    top: Path
    units: Mapping[str, str]
    binds: Mapping[str, Path] = field(default_factory=dict)
    groups: Sequence[str] = ()
    pid: int = 0

    def __enter__(self) -> Self:
        units = self.top / "units"
        units.mkdir()
        for target in _TARGETS:
            (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        for name, text in self.units.items():
            (units / name).parent.mkdir(exist_ok=True)
            (units / name).write_text(text)
        (self.top / "mounts").mkdir()
        script = self.top / "boot.sh"
        self._group = f"patchforge-test-{os.getpid()}-{time.monotonic_ns()}"
        quoted = {name: shlex.quote(str(value)) for name, value in (("top", self.top / "mounts"), ("units", units))}
        more = {"group": self._group, "groups": " ".join(self.groups), "systemd": SYSTEMD, "units_at": UNITS}
        script.write_text(_BOOT.format(**quoted, **more, units_inside=UNITS[1:], binds="\n".join(self._mounts())))
        self._log = (self.top / "systemd.log").open("wb")
        ends_with_us = ["setpriv", "--pdeathsig", "KILL"]
        apart = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child"]
        command = [*ends_with_us, *apart, "sh", str(script)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        self.until(self._is_up, "systemd is up", 60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)  # and all that it started
        self._process.kill()
        self._process.wait(30)
        self._log.close()
        script = (
            'mount -t cgroup2 none "$0" && i=0; while [ -d "$0/$1" ] && [ $i -lt 50 ]; do '
            'find "$0/$1" -depth -type d -exec rmdir {} + 2>/dev/null; i=$((i+1)); sleep 0.1; done'
        )
        command = ["unshare", "--mount", "sh", "-c", script, str(self.top / "mounts"), self._group]
        subprocess.run(command, check=False, capture_output=True)

    def _mounts(self) -> list[str]:
        lines = []
        for place, source in self.binds.items():
            inside = shlex.quote(place[1:])
            make = f"mkdir -p {inside}" if source.is_dir() else f"mkdir -p $(dirname {inside}); touch {inside}"
            lines += [make, f"mount --rbind {shlex.quote(str(source))} {inside}"]
        return lines

    def _is_up(self) -> bool:
        assert self._process.poll() is None, (self.top / "systemd.log").read_text()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self.pid = int(children[0]) if children else 0
        return bool(self.pid) and self.run("systemctl", "is-active", "multi-user.target").stdout.strip() == "active"

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """A command in there, as root."""
        inside = ["nsenter", "--target", str(self.pid), "--all", *command]
        return subprocess.run(inside, capture_output=True, text=True, check=check, timeout=600)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit's, as ``systemctl show`` tells it."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def until(self, true: Callable[[], object], what: str, seconds: float) -> None:
        """Waits; AssertionError with what systemd and the units said where it does not become true in time."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                log = self.run("sh", "-c", "tail -n 40 /var/log/*.log 2>&1").stdout if self.pid else ""
                told = (self.top / "systemd.log").read_text(errors="replace")[-4000:]
                raise AssertionError(f"not within {seconds:g} s: {what}\n{told}\n{log}")
            time.sleep(0.2)
