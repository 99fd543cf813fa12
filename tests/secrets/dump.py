"""Programs for tests that write down what they can see: their environment, descriptors, and their ancestors' memory."""

from __future__ import annotations

import sys
from pathlib import Path

#: For ``python -c`` or a file: writes to the folder that is its first argument, or DUMP.
SPY = r"""
import os, sys
def spy(folder):
    seen = [repr(sorted(os.environ.items())).encode()]
    def read(path):
        try:
            with open(path, "rb") as file:
                seen.append(path.encode() + b" " + file.read(1 << 20))
        except OSError:
            pass
    for number in range(3, 64):
        try:
            os.set_blocking(number, False)
            seen.append(b"descriptor %d: " % number + os.read(number, 4096))
        except OSError:
            pass
    process = os.getpid()
    for _ in range(12):
        for name in ("environ", "cmdline", "task/%d/environ" % process):
            read("/proc/%d/%s" % (process, name))
        memory(process, seen)
        try:
            with open("/proc/%d/stat" % process) as file:
                process = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            break
        if process <= int(os.environ.get("SPY_STOPS_AT", "1")):
            break
        for number in range(64):
            try:
                file = os.open("/proc/%d/fd/%d" % (process, number), os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                seen.append(b"its descriptor %d: " % number + os.read(file, 4096))
            except OSError:
                pass
            os.close(file)
    with open(os.path.join(folder, "spied-%d" % os.getpid()), "wb") as file:
        file.write(b"\n".join(seen))
def memory(process, seen):
    if process == os.getpid():
        return
    try:
        with open("/proc/%d/maps" % process) as maps, open("/proc/%d/mem" % process, "rb") as data:
            for line in maps:
                area, rights = line.split()[:2]
                start, end = (int(one, 16) for one in area.split("-"))
                if rights.startswith("rw") and end - start < 64 << 20:
                    try:
                        data.seek(start)
                        seen.append(data.read(end - start))
                    except (OSError, ValueError):
                        pass
    except OSError:
        pass
"""


def program(place: Path, into: Path, then: str = "") -> Path:
    """An executable that spies into ``into``, and then runs ``then`` (Python)."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!{sys.executable} -I\n{SPY}\nspy({str(into)!r})\n{then}\n")
    place.chmod(0o755)
    return place


def spied(folder: Path) -> list[bytes]:
    """What each program that ran has seen."""
    return [path.read_bytes() for path in sorted(folder.glob("spied-*"))]
