"""Entries of a tarball that arrives as a stream.

A NAR wants names in another order than a tarball has them, so the unpacked stream is kept in one unnamed temporary
file, and its files are read from there. Where each stands is noted in a temporary database, which sorts them without
holding them in memory. Nothing is unpacked as files: no umask, case-blind file system or path that leads outside can
change what is hashed.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, cast

from patchforge.errors import PatchforgeError
from patchforge.hashes.nar import CHUNK, File, Folder, Item, Link, nar_order

_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ\0": lzma.LZMAFile}
_END = 1024  #: a tarball ends with two blocks of zeros
_BAD = (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError)


class _Stored(NamedTuple):
    """Where a file's bytes stand in the temporary file."""

    start: int
    size: int
    executable: bool


_Node = _Stored | Link | Folder


class _Table:
    """Paths and what is there, in a private database on disk."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("PRAGMA journal_mode = OFF")
        database.execute(
            "CREATE TABLE entries"
            " (place BLOB PRIMARY KEY, start INTEGER, size INTEGER, executable INTEGER, target BLOB) WITHOUT ROWID"
        )

    def add(self, path: bytes, node: _Node) -> None:
        """TarError when something other than the same folder stands there already."""
        stored = node if isinstance(node, _Stored) else (None, None, None)
        row = (nar_order(path), *stored, node.target if isinstance(node, Link) else None)
        try:
            self._database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            if not isinstance(node, Folder) or not isinstance(self.get(path), Folder):
                raise tarfile.ReadError(f"{os.fsdecode(path)} stands in it twice") from None

    def get(self, path: bytes) -> _Node | None:
        found = self._database.execute("SELECT * FROM entries WHERE place = ?", (nar_order(path),)).fetchone()
        return _node_of(found) if found else None

    def items(self) -> Iterator[tuple[bytes, _Node]]:
        """In ``nar_order``."""
        for row in self._database.execute("SELECT * FROM entries ORDER BY place"):
            yield row[0].replace(b"\0", b"/"), _node_of(row)


def _node_of(row: tuple[bytes, int | None, int, int, bytes | None]) -> _Node:
    _, start, size, executable, target = row
    if target is not None:
        return Link(target)
    return Folder() if start is None else _Stored(start, size, bool(executable))


@dataclass(frozen=True, slots=True)
class Contents:
    """What a tarball holds, while its temporary files are open."""

    commit: str  #: the commit that ``git archive`` noted in it, or ""
    _table: _Table
    _spool: IO[bytes]
    _top: bytes  #: the folder that is left off, with ``/``

    def has(self, path: bytes) -> bool:
        return self._table.get(self._top + path) is not None

    def items(self) -> Iterator[Item]:
        """In ``nar_order``."""
        for path, node in self._table.items():
            yield path[len(self._top) :], _file(self._spool, *node) if isinstance(node, _Stored) else node


@contextmanager
def open_tarball(stream: IO[bytes], origin: str, *, strip_top: bool) -> Iterator[Contents]:
    """The tarball's entries, packed by gzip, bzip2, xz or not at all.

    ``strip_top``: leave the one top folder off, as fetchFromGitHub does. PatchforgeError for what is no tarball, is
    cut short, leads outside itself or holds what no NAR can hold.
    """
    with tempfile.TemporaryFile(prefix="patchforge-") as spool, closing(sqlite3.connect("")) as database:
        try:
            _unpack(stream, spool)
            table = _Table(database)
            commit = _read(spool, table)
        except _BAD as error:
            raise PatchforgeError(
                f"{origin} cannot be read as a tarball",
                expected="a whole .tar.gz, .tar.xz, .tar.bz2 or .tar",
                found=str(error) or type(error).__name__,
                do="download it again",
            ) from error
        yield Contents(commit, table, spool, _top(table, origin) if strip_top else b"")


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


def _read(spool: IO[bytes], table: _Table) -> str:
    """Notes every entry in ``table``; the commit that the tarball names."""
    spool.seek(0)
    end = 0
    with tarfile.open(fileobj=spool, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        while member := archive.next():
            if path := _path(member):
                table.add(path, _node(member, table))
            end = archive.offset
            cast("Any", archive).members.clear()  # or a million files would be kept as a million descriptions
        commit = archive.pax_headers.get("comment", "")
    _require_end(spool, end)
    return commit


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


def _node(member: tarfile.TarInfo, table: _Table) -> _Node:
    if member.issym():
        return Link(member.linkname.encode("utf-8", "surrogateescape"))
    if member.isdir():
        return Folder()
    if member.islnk():
        target = member.linkname.removeprefix("./").encode("utf-8", "surrogateescape")
        if found := table.get(target):
            return found
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


def _top(table: _Table, origin: str) -> bytes:
    """The one folder at the top, with ``/``. PatchforgeError when there is more than that."""
    tops: list[bytes] = []
    for path, node in table.items():
        top, slash, _ = path.partition(b"/")
        if tops[-1:] != [top]:
            tops.append(top)
        if len(tops) > 5 or not (slash or isinstance(node, Folder)):
            break
    else:
        if len(tops) == 1:
            return tops[0] + b"/"
    raise PatchforgeError(
        f"{origin} is not a tarball as GitHub makes them",
        expected="one folder at the top, and everything in it",
        found=", ".join(map(os.fsdecode, tops)) or "nothing",
        do="name the tarball that GitHub gives for the revision",
    )
