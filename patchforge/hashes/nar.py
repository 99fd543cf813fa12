"""Nix's archive format (NAR), written as a stream, and its SHA-256.

A NAR knows files with content and an owner's execute bit, symbolic links with a target, and folders. It knows no time
stamps, owners or other permissions. Names are bytes and are sorted as bytes. (Dolstra, The Purely Functional Software
Deployment Model, figure 5.2; compared with ``nix hash path`` in the tests.)
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from patchforge.errors import Damaged, PatchforgeError
from patchforge.hashes.sri import sri

CHUNK = 1 << 18  #: bytes read at once


class NarFile(NamedTuple):
    """A regular file. ``chunks`` is called at most once, before the next entry is asked for."""

    size: int
    chunks: Callable[[], Iterable[bytes]]
    executable: bool = False


@dataclass(frozen=True, slots=True)
class NarLink:
    target: bytes


@dataclass(frozen=True, slots=True)
class NarFolder:
    """Said only of a folder that may be empty; others follow from the paths in them."""


Node = NarFile | NarLink | NarFolder
Item = tuple[bytes, Node]  #: path from the top (POSIX, b"" for the top itself), and what is there


@dataclass(frozen=True, slots=True)
class Digest:
    """The hash of a NAR and what went into it."""

    hash: str  #: SRI
    files: int
    size: int  #: bytes of all files


def nar_order(path: bytes) -> bytes:
    """Sort key: folder by folder, each by its names' bytes (``a/b`` before ``a-b``, unlike in git)."""
    return path.replace(b"/", b"\0")


def hash_entries(items: Iterable[Item]) -> Digest:
    """SRI of a tree given in ``nar_order``. Memory: one chunk. CheckFailed when it is empty."""
    sha256 = hashlib.sha256()
    files, size = serialise(items, sha256.update)
    return Digest(sri(sha256.digest()), files, size)


def serialise(items: Iterable[Item], out: Callable[[bytes | bytearray], object]) -> tuple[int, int]:
    """Writes the NAR of a tree given in ``nar_order``; the number of files, and of bytes in them.

    PatchforgeError for items out of order or twice, names no folder can have, a file used as a folder, and content
    that is not of the size announced.
    """
    writer = _Writer(out)
    for path, node in items:
        writer.add(path, node)
    writer.end()
    return writer.files, writer.size


def folder_items(top: Path) -> Iterator[Item]:
    """A folder (or file, or link) on disk, in order. PatchforgeError for sockets and the like."""
    yield from _on_disk(os.fsencode(top), b"")


def _on_disk(place: bytes, path: bytes) -> Iterator[Item]:
    status = os.lstat(place)
    if stat.S_ISLNK(status.st_mode):
        yield path, NarLink(os.readlink(place))  # noqa: PTH115 - bytes
    elif stat.S_ISREG(status.st_mode):
        yield path, NarFile(status.st_size, lambda: read_file(place), bool(status.st_mode & stat.S_IXUSR))
    elif stat.S_ISDIR(status.st_mode):
        yield path, NarFolder()
        for name in sorted(os.listdir(place)):  # noqa: PTH208 - bytes
            yield from _on_disk(place + b"/" + name, path + b"/" + name if path else name)
    else:
        raise PatchforgeError(
            f"{os.fsdecode(place)} cannot be part of a source",
            expected="files, symbolic links and folders",
            found="a socket, pipe or device",
            do="take it out of the folder",
        )


def read_file(place: bytes) -> Iterator[bytes]:
    """The file's bytes, a chunk at a time."""
    with open(place, "rb", buffering=0) as stream:  # noqa: PTH123 - a path of bytes
        while chunk := stream.read(CHUNK):
            yield chunk


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data + b"\0" * (-len(data) % 8)


def _texts(*parts: bytes) -> bytes:
    return b"".join(map(_text, parts))


_MAGIC = _text(b"nix-archive-1")
_OPEN_FOLDER = _texts(b"(", b"type", b"directory")
_OPEN_FILE = _texts(b"(", b"type", b"regular", b"contents")
_OPEN_PROGRAM = _texts(b"(", b"type", b"regular", b"executable", b"", b"contents")
_OPEN_LINK = _texts(b"(", b"type", b"symlink", b"target")
_OPEN_ENTRY = _texts(b"entry", b"(", b"name")
_NODE = _text(b"node")
_CLOSE = _text(b")")
_NO_NAMES = {b"", b".", b".."}
_LARGE = 1 << 15  #: bytes from which a piece is worth a call of its own


class _Writer:
    def __init__(self, out: Callable[[bytes | bytearray], object]) -> None:
        self.files = self.size = 0
        self._out = out
        self._waiting = bytearray(_MAGIC)  #: small pieces, to be given to ``out`` as one
        self._open: list[bytes] = []  #: names of the folders that are open below the top
        self._last: bytes | None = None  #: the entry before, as ``nar_order`` has it
        self._leaf = False  #: whether that entry was not a folder

    def add(self, path: bytes, node: Node) -> None:
        place, names = nar_order(path), path.split(b"/")
        self._check(path, place, names)
        if self._last is None and (path or isinstance(node, NarFolder)):
            self._waiting += _OPEN_FOLDER
        if path:
            name = names.pop()
            if names != self._open:
                self._enter(names)
            self._waiting += _OPEN_ENTRY + _text(name) + _NODE
            self._write(path, node)
            if isinstance(node, NarFolder):
                self._open.append(name)
            else:
                self._waiting += _CLOSE
        elif not isinstance(node, NarFolder):
            self._write(path, node)
        self._last, self._leaf = place, not isinstance(node, NarFolder)
        if len(self._waiting) >= CHUNK:
            self._flush()

    def end(self) -> None:
        if self._last is None:
            self._waiting += _OPEN_FOLDER
        self._leave(0)
        if self._last or not self._leaf:
            self._waiting += _CLOSE
        self._flush()

    def _check(self, path: bytes, place: bytes, names: list[bytes]) -> None:
        last = self._last
        if b"\0" in path or (path and not _NO_NAMES.isdisjoint(names)):
            raise _unusable(path, "a name that no folder can hold")
        if last is not None and place <= last:
            raise _unusable(path, "the same path twice" if place == last else f"a path after {_shown(last)}")
        if self._leaf and last is not None and (not last or place.startswith(last + b"\0")):
            raise _unusable(path, f"{_shown(last)} as a folder, and it is a file or link")

    def _enter(self, folders: list[bytes]) -> None:
        """Close the folders that end here and open the new ones."""
        shared = 0
        while shared < min(len(folders), len(self._open)) and folders[shared] == self._open[shared]:
            shared += 1
        self._leave(shared)
        for name in folders[shared:]:
            self._waiting += _OPEN_ENTRY + _text(name) + _NODE + _OPEN_FOLDER
            self._open.append(name)

    def _leave(self, depth: int) -> None:
        self._waiting += (_CLOSE + _CLOSE) * len(self._open[depth:])
        del self._open[depth:]

    def _write(self, path: bytes, node: Node) -> None:
        if isinstance(node, NarFile):
            self._write_file(path, node)
        elif isinstance(node, NarLink):
            self._waiting += _OPEN_LINK + _text(node.target) + _CLOSE
        else:
            self._waiting += _OPEN_FOLDER

    def _write_file(self, path: bytes, node: NarFile) -> None:
        self._waiting += (_OPEN_PROGRAM if node.executable else _OPEN_FILE) + node.size.to_bytes(8, "little")
        written = 0
        for chunk in node.chunks():
            written += len(chunk)
            if len(chunk) < _LARGE:
                self._waiting += chunk
            else:  # not copied
                self._flush()
                self._out(chunk)
            if len(self._waiting) >= CHUNK:
                self._flush()
        if written != node.size:
            raise PatchforgeError(
                f"{os.fsdecode(path)} is not whole",
                expected=f"{node.size} bytes",
                found=f"{written} bytes",
                do="read the source again; if it changes meanwhile, wait until it does not",
            )
        self._waiting += bytes(-written % 8) + _CLOSE
        self.files += 1
        self.size += written

    def _flush(self) -> None:
        self._out(self._waiting)
        self._waiting = bytearray()


def _shown(place: bytes) -> str:
    return repr(os.fsdecode(place.replace(b"\0", b"/")))


def _unusable(path: bytes, found: str) -> Damaged:
    return Damaged(
        f"{os.fsdecode(path)!r} cannot stand in a Nix archive",
        expected="each path once, sorted by the bytes of its names, folders only as folders",
        found=found,
        do="do not use this source; a tarball that was packed anew can be unpacked, and its folder named",
    )
