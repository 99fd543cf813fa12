"""In which Python a server of this machine runs: that of the process that listens where it answers.

/system_stats tells versions, and not the interpreter. Linux tells the rest, of one's own processes: /proc/net/tcp has
the sockets that listen, /proc/PID/fd who holds them, and /proc/PID how it was started (proc(5)).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from patchforge import bounded

_LISTENS = "0A"  #: in /proc/net/tcp
_PYTHON = re.compile(r"(python|pypy)[0-9.]*")
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")
_MOST = 4 << 20


@dataclass(frozen=True, slots=True)
class Server:
    """The Python that a server runs in, with its environment; or ``why`` that cannot be told."""

    python: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


def of(url: str, proc: Path = Path("/proc")) -> Server:
    """Never fails. Only a process of this very user is believed: its Python is going to be run."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    if not _LOOPBACK.fullmatch(parts.hostname or ""):
        return Server(why=f"{parts.hostname} is another machine, or another name of this one")
    if not (proc / "net" / "tcp").is_file():
        return Server(why="this system does not tell which process listens")
    sockets = set(_listening(proc, port))
    found = [process for process in _own(proc) if sockets & set(_sockets(process))]
    if not found:
        whose = "the process that listens there is not this user's"
        return Server(why=whose if sockets else "no process of this machine listens there")
    for process in found:
        environment = _environment(process)
        if python := _python(process, environment):
            return Server(python, environment)
    return Server(why=f"process {found[0].name}, which listens there, does not show which Python it runs in")


def _listening(proc: Path, port: int) -> Iterator[str]:
    """The sockets that listen on a port, as links in /proc/PID/fd name them."""
    for name in ("tcp", "tcp6"):
        for line in bounded.head(proc / "net" / name, _MOST).splitlines()[1:]:
            words = line.split()
            if len(words) > 9 and words[3] == _LISTENS and words[1].endswith(f":{port:04X}"):
                yield f"socket:[{words[9]}]"


def _own(proc: Path) -> list[Path]:
    """This user's processes, the oldest first."""
    own: list[Path] = []
    if not hasattr(os, "geteuid"):  # Windows has no /proc either
        return own
    for process in proc.iterdir():
        with suppress(OSError):
            if process.name.isdigit() and process.stat().st_uid == os.geteuid():
                own.append(process)
    return sorted(own, key=lambda process: int(process.name))


def _sockets(process: Path) -> Iterator[str]:
    with suppress(OSError):
        for link in os.scandir(process / "fd"):
            with suppress(OSError):
                yield str(Path(link.path).readlink())


def _environment(process: Path) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in bounded.head(process / "environ", _MOST).split("\0"))
    return {name: value for name, _, value in pairs if name}


def _python(process: Path, environment: Mapping[str, str]) -> str:
    """As it was called, since a link is what an environment of its own is known by; "" where that is not what runs."""
    with suppress(OSError):
        runs, here = (str((process / name).readlink()) for name in ("exe", "cwd"))
        called = bounded.head(process / "cmdline", _MOST).partition("\0")[0]
        folders = [here, environment.get("PWD", here)] if "/" in called else environment.get("PATH", "").split(":")
        for place in [*(os.path.join(here, folder, called) for folder in folders if called), runs]:  # noqa: PTH118
            if _PYTHON.fullmatch(Path(runs).name) and os.path.exists(place) and os.path.samefile(place, runs):  # noqa: PTH110, PTH121
                return place
    return ""
