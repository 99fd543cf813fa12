"""Paths as people type them: quoted for their shell, and recognised where another system writes them."""

from __future__ import annotations

import os
import re
import shlex
import stat
from functools import cache
from pathlib import Path

from patchforge import bounded
from patchforge.errors import PatchforgeError, SystemFault

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_PLAIN = re.compile(r"[\w.:\\/~+-]+")
_DRIVE = re.compile(r"([A-Za-z]):[\\/]*(.*)", re.DOTALL)
_SHARE = re.compile(r"[\\/]{2}wsl(?:\$|\.localhost)[\\/]+[^\\/]+(.*)", re.IGNORECASE | re.DOTALL)
_MOUNTED = re.compile(r"/(?:mnt/)?([a-z])(?:/(.*))?", re.DOTALL)  #: of WSL, and of Git's bash


def quoted(path: str | Path, *, windows: bool = os.name == "nt") -> str:
    """A path as it is typed: in cmd and PowerShell, or in a POSIX shell."""
    text = str(path)
    if not windows:
        return shlex.quote(text)
    return text if _PLAIN.fullmatch(text) else f'"{text}"'


def native(text: str, *, windows: bool = os.name == "nt") -> str:
    """A path of Windows as WSL writes it, and one of WSL or Git's bash as Windows does; "" for what is neither."""
    if windows:
        mounted = _MOUNTED.fullmatch(text)
        return f"{mounted[1].upper()}:\\{(mounted[2] or '').replace('/', chr(92))}" if mounted else ""
    if shared := _SHARE.fullmatch(text):
        return shared[1].replace("\\", "/") or "/"
    drive = _DRIVE.fullmatch(text)
    return f"/mnt/{drive[1].lower()}/{drive[2].replace(chr(92), '/')}" if drive else ""


@cache
def is_wsl() -> bool:
    """Whether this is Linux in Windows, which has the drives of Windows below ``/mnt``."""
    return "microsoft" in bounded.head(Path("/proc/sys/kernel/osrelease"), 256).lower()


def not_there(path: Path, expected: str, *, do: str = "check the path") -> PatchforgeError:
    """What to say where what is expected is not: what is there, or how this system writes the path, or what was meant.

    What was meant is the name that is nearest, of those beside it.
    """
    if os.path.lexists(path):
        return PatchforgeError(f"{path} is {kind(path)}", expected=expected, do=do)
    if closed := _closed(path):
        return SystemFault(
            f"{path} may not be looked at",
            expected=expected,
            found=f"{closed} is closed to you",
            do="run this as somebody who may read it, or change its mode",
        )
    here = native(str(path))
    if here and (os.name == "nt" or is_wsl()):
        found, do = "a path as another system writes it", f"here it is {quoted(here)}"
    elif here:
        found, do = "a path of Windows, and this is another system", "name a folder of this machine"
    else:
        found = "nothing there"
        do = f"did you mean {quoted(near)}?" if (near := _nearest(path)) else do
    return PatchforgeError(f"{path} is not there", expected=expected, found=found, do=do)


def need_folder(path: Path, expected: str = "a folder") -> None:
    """PatchforgeError unless a folder is there, or a link to one."""
    if not os.path.lexists(path):
        raise not_there(path, expected)
    if not path.is_dir():
        found, do = kind(path), "check the path"
        if found == "a file" and path.name.lower().endswith(_ARCHIVES):
            do = f"patchforge apply --from {quoted(path)} --to DIR writes what is in it, patched, into a new folder"
        raise PatchforgeError(f"{path} is not a folder", expected=expected, found=found, do=do)


def kind(path: Path) -> str:
    """What is at a path, with its article."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link to nothing" if path.is_symlink() else "not readable"
    kinds = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _closed(path: Path) -> Path | None:
    """The folder above that keeps what is at a path from being seen."""
    try:
        path.lstat()
    except PermissionError:
        return next(
            (above for above in reversed(path.parents) if above.is_dir() and not os.access(above, os.X_OK)), path.parent
        )
    except OSError:
        pass
    return None


def all_below(top: Path, pattern: str, *, deep: bool = False) -> list[Path]:
    """As sorted ``top.glob(pattern)``, or ``rglob`` where ``deep``; OSError for a folder that cannot be read."""
    depth, paths = pattern.count("/"), list[Path]()

    def unread(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for folder, folders, names in os.walk(top, onerror=unread):
        above = len(Path(folder).relative_to(top).parts)
        if deep or above == depth:
            paths += [Path(folder, name) for name in (*folders, *names) if Path(folder, name).match(pattern)]
        if not deep and above >= depth:
            folders.clear()
    return sorted(paths)


def _nearest(path: Path) -> Path | None:
    import difflib  # noqa: PLC0415 - only a mistake needs it

    above = next((parent for parent in path.parents if parent.is_dir()), None)
    if above is None or path.parent != above:
        return None
    try:
        names = {entry.name.lower(): entry for entry in above.iterdir()}
    except OSError:
        return None
    close = difflib.get_close_matches(path.name.lower(), names, n=1)
    return names[close[0]] if close else None
