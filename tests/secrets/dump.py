"""Programs for tests that write down what they can see: their environment, or all that their ancestors show as well."""

from __future__ import annotations

import sys
from pathlib import Path

_LOOK = r"""
import os, sys
def look(into, until):
    "Environment and descriptors, and of every ancestor below ``until`` environment, command line, memory, descriptors."
    seen = [repr(sorted(os.environ.items())).encode()]
    for number in range(3, 64):
        try:
            os.set_blocking(number, False)
            seen.append(os.read(number, 4096))
        except OSError:
            pass
    process = parent(os.getpid()) if until else 0
    while process > 1 and process != until:
        seen.append(b"ancestor %d" % process)
        for name in ("environ", "cmdline", "task/%d/environ" % process):
            try:
                with open("/proc/%d/%s" % (process, name), "rb") as file:
                    seen.append(file.read())
            except OSError:
                pass
        seen += [*memory(process), *descriptors(process)]
        process = parent(process)
    with open(os.path.join(into, "seen-%d" % os.getpid()), "wb") as file:
        file.write(b"\n".join(seen))
def parent(process):
    with open("/proc/%d/stat" % process, errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[1])
def memory(process):
    try:
        with open("/proc/%d/maps" % process) as maps, open("/proc/%d/mem" % process, "rb", 0) as data:
            for area, rights in (line.split()[:2] for line in maps):
                start, end = (int(one, 16) for one in area.split("-"))
                if rights.startswith("rw") and end - start < 1 << 26:
                    try:
                        data.seek(start)
                        yield data.read(end - start) or b""
                    except (OSError, ValueError):
                        pass
    except OSError:
        pass
def descriptors(process):
    for number in range(64):
        try:
            file = os.open("/proc/%d/fd/%d" % (process, number), os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            yield os.read(file, 4096)
        except OSError:
            pass
        os.close(file)
"""


def code(into: Path, until: int = 0) -> str:
    """Python that looks and writes what it saw into a folder."""
    return f"{_LOOK}\nlook({str(into)!r}, {until})\n"


def program(place: Path, into: Path, then: str = "") -> Path:
    """An executable that writes its environment into a folder and then does ``then``, which is Python."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!{sys.executable} -I\n{code(into)}\n{then}\n")
    place.chmod(0o755)
    return place


def seen(folder: Path) -> list[bytes]:
    """What each program that ran has seen."""
    return [path.read_bytes() for path in sorted(folder.glob("seen-*"))]
