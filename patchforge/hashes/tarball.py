"""Entries of a tarball that arrives as a stream.

A NAR wants names in another order than a tarball has them, so the unpacked stream is kept in one unnamed temporary
file, and its files are read from there. Nothing is unpacked as files: no umask, case-blind file system or path that
leads outside can change what is hashed.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, KeysView
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, cast

from patchforge.errors import PatchforgeError
from patchforge.hashes.nar import CHUNK, File, Folder, Item, Link, nar_order

_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ\0": lzma.LZMAFile}
_END = 1024  #: a tarball ends with two blocks of zeros
_BAD = (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError)


class _Stored(NamedTuple):
    """Where a file's bytes stand in the temporary file. There may be a hundred thousand of these."""

    start: int
    size: int
    executable: bool


_Found = dict[bytes, "_Stored | Link | Folder"]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a tarball holds, while its temporary file is open."""

    commit: str  #: the commit that ``git archive`` noted in it, or ""
    _found: _Found
    _spool: IO[bytes]

    def paths(self) -> KeysView[bytes]:
        return self._found.keys()

    def items(self) -> Iterator[Item]:
        """In ``nar_order``."""
        for path in sorted(self._found, key=nar_order):
            node = self._found[path]
            yield path, _file(self._spool, *node) if isinstance(node, _Stored) else node


@contextmanager
def open_tarball(stream: IO[bytes], origin: str, *, strip_top: bool) -> Iterator[Contents]:
    """The tarball's entries, packed by gzip, bzip2, xz or not at all.

    ``strip_top``: leave the one top folder off, as fetchFromGitHub does. PatchforgeError for what is no tarball, is
    cut short, leads outside itself or holds what no NAR can hold.
    """
    with tempfile.TemporaryFile(prefix="patchforge-") as spool:
        try:
            _unpack(stream, spool)
            found, commit = _read(spool)
        except _BAD as error:
            raise PatchforgeError(
                f"{origin} cannot be read as a tarball",
                expected="a whole .tar.gz, .tar.xz, .tar.bz2 or .tar",
                found=str(error) or type(error).__name__,
                do="download it again",
            ) from error
        if strip_top:
            found = _without_top(found, origin)
        yield Contents(commit, found, spool)


def _unpack(stream: IO[bytes], spool: IO[bytes]) -> None:
    start = stream.read(6)
    while 0 < len(start) < 6 and (more := stream.read(6 - len(start))):
        start += more
    opener = next((each for magic, each in _OPENERS.items() if start.startswith(magic)), None)
    whole = cast("IO[bytes]", _Rejoined(start, stream))
    if opener is None:
        shutil.copyfileobj(whole, spool, CHUNK)
        return
    with opener(fileobj=whole) if opener is gzip.GzipFile else opener(whole) as unpacked:
        shutil.copyfileobj(unpacked, spool, CHUNK)


class _Rejoined:
    """A stream with its first bytes put back; a pipe cannot seek."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start, self._rest = start, rest

    def read(self, size: int = -1) -> bytes:
        if not self._start:
            return self._rest.read(size)
        found, self._start = (self._start[:size], self._start[size:]) if size >= 0 else (self._start, b"")
        return found if size >= 0 else found + self._rest.read()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return False


def _read(spool: IO[bytes]) -> tuple[_Found, str]:
    found: _Found = {}
    spool.seek(0)
    end = 0
    with tarfile.open(fileobj=spool, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        while member := archive.next():
            path = _path(member)
            node = _node(member, found)
            if path and not (isinstance(node, Folder) and isinstance(found.get(path), Folder)):
                if path in found:
                    raise tarfile.ReadError(f"{member.name} stands in it twice")
                found[path] = node
            end = archive.offset
            cast("Any", archive).members.clear()  # or a million files would be kept as a million descriptions
        commit = archive.pax_headers.get("comment", "")
    _require_end(spool, end)
    return found, commit


def _require_end(spool: IO[bytes], end: int) -> None:
    """Python's tarfile takes a tarball that is cut between two members for a whole one."""
    spool.seek(end)
    rest = spool.read(_END)
    if len(rest) < _END or any(rest):
        raise tarfile.ReadError("it breaks off: the blocks of zeros that end a tarball are missing")


def _path(member: tarfile.TarInfo) -> bytes:
    parts = member.name.encode("utf-8", "surrogateescape").split(b"/")
    if b".." in parts or (not parts[0] and len(parts) > 1):
        raise tarfile.ReadError(f"it names a path outside itself: {member.name!r}")
    return b"/".join(part for part in parts if part not in {b"", b"."})


def _node(member: tarfile.TarInfo, found: _Found) -> _Stored | Link | Folder:
    if member.issym():
        return Link(member.linkname.encode("utf-8", "surrogateescape"))
    if member.isdir():
        return Folder()
    if member.islnk():
        target = member.linkname.removeprefix("./").encode("utf-8", "surrogateescape")
        if target in found:
            return found[target]
        raise tarfile.ReadError(f"{member.name} is a hard link to {member.linkname}, which it does not hold")
    if not member.isreg() or member.issparse():
        raise tarfile.ReadError(f"{member.name} is a device, a pipe or a sparse file")
    return _Stored(member.offset_data, member.size, bool(member.mode & 0o100))


def _file(spool: IO[bytes], start: int, size: int, executable: bool) -> File:  # noqa: FBT001 - the fields of _Stored
    def chunks() -> Iterator[bytes]:
        spool.seek(start)
        left = size
        while left and (chunk := spool.read(min(left, CHUNK))):
            left -= len(chunk)
            yield chunk

    return File(size, chunks, executable)


def _without_top(found: _Found, origin: str) -> _Found:
    tops = sorted({path.partition(b"/")[0] for path in found})
    if len(tops) != 1 or not all(b"/" in path or isinstance(node, Folder) for path, node in found.items()):
        raise PatchforgeError(
            f"{origin} is not a tarball as GitHub makes them",
            expected="one folder at the top, and everything in it",
            found=", ".join(map(os.fsdecode, tops[:5])) or "nothing",
            do="name the tarball that GitHub gives for the revision",
        )
    return {path.partition(b"/")[2]: node for path, node in found.items()}
