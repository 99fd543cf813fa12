"""A pack as files: read whole, with what cannot be read said and everything else kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from patchforge.checkout.place import need_pack
from patchforge.errors import PatchforgeError
from patchforge.names import kept, unfit
from patchforge.nodes.entry_points import reachable
from patchforge.patches import check_path
from patchforge.sources.folder import JOURNALS

LARGEST = 2_000_000  #: bytes of a file; larger ones are generated tables
_ALL = 200_000_000  #: bytes of all files
_MOST_ENTRIES = 200_000
_LONGEST_PATH = 1000  #: bytes; patches are tried out in a folder for the time being
_IGNORED = frozenset((".git", ".hg", "__pycache__", "node_modules", ".venv", "venv"))
_WANTED = (".py", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".cu", ".cuh")


@dataclass(frozen=True, slots=True, order=True)
class PackProblem:
    """A file that was left as it is because it could not be looked at."""

    path: str
    line: int
    reason: str


@dataclass(frozen=True)
class Pack:
    """The files of a pack that matter, by POSIX path, sorted."""

    name: str
    folder: Path
    files: dict[str, bytes]
    problems: tuple[PackProblem, ...] = ()

    @cached_property
    def reachable(self) -> frozenset[str]:
        """The Python files that a node can come to."""
        return reachable({name: data for name, data in self.files.items() if name.endswith((".py", ".yaml", ".yml"))})


def read_pack(folder: Path) -> Pack:
    """Reads a pack's folder. No link is followed, and nothing but regular files is opened.

    What cannot be read, or cannot stand in a patch, becomes a problem. PatchforgeError where there is no Python file,
    and where the folder cannot be a pack.
    """
    need_pack(folder)
    root = folder.resolve()
    reader = _PackReader(root)
    for entry, name in _walk(folder, reader):
        reader.take(entry, name)
    if not any(name.endswith(".py") for name in reader.files) and not reader.problems:
        raise PatchforgeError(
            f"{folder} holds no Python files", expected="the folder of a custom-node pack", do="name another folder"
        )
    return Pack(root.name, folder, dict(sorted(reader.files.items())), tuple(sorted(reader.problems)))


class _PackReader:
    """Gathers the files of a pack and what is wrong with the others."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, bytes] = {}
        self.problems: list[PackProblem] = []
        self.size = 0

    def problem(self, name: str, reason: str) -> None:
        """``name`` may hold bytes that are not UTF-8, which are then shown by their values."""
        self.problems.append(PackProblem(os.fsencode(name).decode("utf-8", "backslashreplace"), 1, reason))

    def take(self, entry: os.DirEntry[str], name: str) -> None:
        """Reads a file where it matters."""
        try:
            if entry.is_symlink():
                if reason := _link(Path(entry.path), self.root):
                    self.problem(name, reason)
            elif name.endswith(_WANTED):
                self.read(entry, name)
        except OSError as error:
            self.problem(name, f"cannot be read: {error.strerror or error}")

    def read(self, entry: os.DirEntry[str], name: str) -> None:
        """Reads a file that is wanted, no further than LARGEST."""
        if reason := _unfit(name):
            self.problem(name, f"{reason}: left as it is")
            return
        data = _content(entry.path)
        if data is None:
            self.problem(name, "not a regular file: not opened")
        elif len(data) > LARGEST:
            if name.endswith((".py", "requirements.txt", "pyproject.toml")):
                self.problem(name, f"more than {LARGEST} bytes: not looked at")
        elif self.size + len(data) > _ALL:
            self.problem(name, f"the pack's files have more than {_ALL} bytes: not looked at")
        else:
            self.size += len(data)
            self.files[name] = data


def _content(path: str) -> bytes | None:
    """A regular file's bytes, one more than LARGEST at most; None for a pipe, a device and the like."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return None
    with open(os.open(path, flags), "rb") as stream:  # noqa: PTH123 - flags
        return stream.read(LARGEST + 1) if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) else None


def _unfit(name: str) -> str:
    """Why a patch or a journal cannot name a file; "" where both can."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if length > _LONGEST_PATH:
        return f"its path has more than {_LONGEST_PATH} bytes"
    try:
        check_path(name)
    except PatchforgeError:
        return "its name cannot stand in a patch"
    if kept(name):
        return "its name is one of those that patchforge keeps for itself"
    return unfit([name]).get(name, "")


def _walk(folder: Path, reader: _PackReader) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Every entry that is not a folder, and the links to folders, with its path in the pack."""
    todo, count = [("", str(folder))], 0
    while todo:
        prefix, at = todo.pop()
        try:
            with os.scandir(at) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            reader.problem(prefix.rstrip("/") or ".", f"cannot be listed: {error.strerror or error}")
            continue
        for entry in entries:
            count += 1
            if count > _MOST_ENTRIES:
                reader.problem(prefix + entry.name, f"more than {_MOST_ENTRIES} files: the rest is not looked at")
                return
            if not entry.is_dir(follow_symlinks=False):
                yield entry, prefix + entry.name
            elif entry.name not in _IGNORED and not entry.name.startswith(JOURNALS):
                todo.append((f"{prefix}{entry.name}/", entry.path))


def _link(path: Path, root: Path) -> str:
    """A link within the pack is no loss: its target is looked at. One that leads out of it is refused."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError):
        return "a link to itself"
    if not target.is_relative_to(root):
        return "a link out of the pack: not followed, and nothing is written through it"
    return "" if target.exists() else "a link to nothing"
