"""Entries of a tarball as ``git archive`` packs it, while it arrives.

Git sorts a folder as if its name ended in ``/``, and a NAR does not: ``a.py`` may have to wait for a folder ``a`` that
comes later. What waits is in memory up to a limit and beyond it, still packed, in one unnamed temporary file. Nothing
is unpacked as files: no umask, case-blind file system or path that leads outside can change what is hashed.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import lzma
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import IO, Any

from patchforge.errors import Damaged
from patchforge.hashes.nar import CHUNK, Item, NarFile, NarFolder, NarLink, Node
from patchforge.sources.unpack import Unpacked

#: Intel's ISA-L unpacks two to three times as fast as zlib, and is not there for every processor.
_ISAL = importlib.util.find_spec("isal") is not None
gzip: Any = importlib.import_module("isal.igzip" if _ISAL else "gzip")
deflate: Any = importlib.import_module("isal.isal_zlib" if _ISAL else "zlib")
_OPENERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    **dict.fromkeys((b"BZh", b"\xfd7zXZ\0"), lambda packed: io.BufferedReader(Unpacked(packed))),
}
_BLOCK = 1 << 20  #: bytes that are unpacked at once
_AHEAD = 3  #: blocks that are unpacked while one is hashed
_KEPT = 8 << 20  #: bytes that may wait in memory
_ENTRY = 1024  #: bytes that an entry itself takes there, at most
_SMALL = 1 << 18  #: bytes of a file that is taken as a whole
_RECORD = 512
_END = bytes(_RECORD)
_LARGEST = 1 << 40  #: bytes of an entry
_DIGITS = 20  #: of a number, at most
_PAX = (b"g", b"x")
_NO_TOP = {b"/", b"./", b"../"}
_AFTER = b"0"  #: follows ``/``
#: Where a name could be that of a folder that sorts later: ``a`` of ``a.py``.
_WAITS = re.compile(rb"[^/][\0-.]")


_COMMIT = re.compile(rb"[0-9a-f]{40}")
_MOST_HEADERS = 2 << 20  #: bytes of extended headers before one entry
_BOMB = 200  #: times a source is packed by gzip, xz or bzip2; sources reach 20, zeros 1000 and more
_BOMB_FROM = 64 << 20  #: bytes that may come of anything


class _Malformed(Exception):
    pass


_BAD = (_Malformed, OSError, EOFError, deflate.error, lzma.LZMAError, RecursionError)


class _TarReader:
    """Bytes out of blocks."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = b""
        self._at = self._before = 0

    @property
    def position(self) -> int:
        return self._before + self._at

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._block):
            return b"".join(self.pieces(size))
        piece = self._block[self._at : end]
        self._at = end
        return piece

    def pieces(self, size: int) -> Iterator[bytes]:
        """``size`` bytes; EOFError when there are fewer."""
        while size > 0:
            if self._at == len(self._block):
                self._before += self._at
                self._block, self._at = next(self._blocks, b""), 0
                if not self._block:
                    raise EOFError("it breaks off: the blocks of zeros that end a tarball are missing")
            piece = self._block[self._at : self._at + min(size, CHUNK)]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        if size <= len(self._block) - self._at:
            self._at += size
            return
        for _ in self.pieces(size):
            pass


@dataclass(slots=True)
class _Entry:
    key: bytes  #: path without the folder at the top, that of a folder with ``/`` at its end
    node: Node
    size: int
    headers: bytes  #: as they are packed

    def content(self) -> Iterable[bytes]:
        return self.node.chunks() if isinstance(self.node, NarFile) else ()


class _Waiting:
    """Entries that ``folder``, should it come, precedes."""

    def __init__(self, limit: bytes) -> None:
        self.limit = limit  #: the first path that sorts after all in the folder
        self.folder = limit[:-1]
        self.entries: list[_Entry] = []
        self.start = self.end = -1  #: where more of them stand in the temporary file

    def takes(self, key: bytes) -> bool:
        size = len(self.folder)
        return key[:size] == self.folder and key[size : size + 1] < b"/"


class Tarball:
    """What a tarball holds. ``commit``: what ``git archive`` noted in it, or "", once the items are read."""

    def __init__(self, blocks: Iterator[bytes], spool: IO[bytes], origin: str) -> None:
        self.commit = ""
        self._blocks, self._spool, self._origin = blocks, spool, origin
        self._top = b""  #: the folder at the top, with ``/``
        self._kept = 0  #: bytes that wait in memory

    def items(self) -> Iterator[Item]:
        """In ``nar_order`` if the tarball is in git's, without the one folder at the top."""
        for entry in self._sorted(self._entries(_TarReader(self._blocks))):
            yield entry.key.removesuffix(b"/"), entry.node
        if not self._top:
            raise self._unlike_github("nothing")
        for _ in self._blocks:
            pass  # up to the checksum

    def _entries(self, reader: _TarReader) -> Iterator[_Entry]:
        headers, own = b"", dict[bytes, bytes]()
        while (header := reader.take(_RECORD)) != _END:
            if header[257:263] != b"ustar\0":
                raise _Malformed("a header is not as git writes them")
            kind = header[156:157]
            size = _number(own[b"size"], 10) if b"size" in own else _number(header[124:136], 8)
            if size > _LARGEST:
                raise _Malformed(f"a header says that {size} bytes follow")
            end = reader.position + size + -size % _RECORD
            if kind in _PAX and size <= _BLOCK:
                data = reader.take(end - reader.position)
                headers, own = headers + header + data, _pax(data[:size])
                if len(headers) > _MOST_HEADERS:
                    raise _Malformed("it has headers of headers without end")
                if kind == b"g":
                    noted = own.get(b"comment", b"")
                    self.commit, headers, own = noted.decode() if _COMMIT.fullmatch(noted) else "", b"", {}
                continue
            yield self._entry(header, own, size, headers + header, reader)
            headers, own = b"", {}
            reader.skip(end - reader.position)
        if reader.take(_RECORD) != _END:
            raise _Malformed("it does not end in two blocks of zeros")

    def _entry(self, header: bytes, own: dict[bytes, bytes], size: int, headers: bytes, reader: _TarReader) -> _Entry:
        kind, name, prefix = header[156:157], header[:100].rstrip(b"\0"), header[345:500].rstrip(b"\0")
        path = own.get(b"path") or (prefix + b"/" + name if prefix else name)
        node: Node
        if kind == b"0":
            chunks = _whole(reader.take(size)) if size <= _SMALL else partial(reader.pieces, size)
            node = NarFile(size, chunks, _executable(header[100:108]))
        elif kind == b"2":
            node, size = NarLink(own.get(b"linkpath") or header[157:257].rstrip(b"\0")), 0
        elif kind == b"5":
            node, path, size = NarFolder(), path.rstrip(b"/") + b"/", 0
        else:
            raise _Malformed(f"{os.fsdecode(path)} is a hard link, a device, a pipe or too long a header")
        return _Entry(self._below_top(path), node, size, headers)

    def _below_top(self, path: bytes) -> bytes:
        top = self._top = self._top or path.partition(b"/")[0] + b"/"
        if not path.startswith(top) or top in _NO_TOP:
            raise self._unlike_github(os.fsdecode(top[:-1] + b", " + path))
        return path[len(top) :]

    def _unlike_github(self, found: str) -> Damaged:
        return Damaged(
            f"{self._origin} is not a tarball as GitHub makes them",
            expected="one folder at the top, and everything in it",
            found=found,
            do="name the tarball that GitHub gives for the revision",
        )

    def _sorted(self, entries: Iterator[_Entry], known: int = 0) -> Iterator[_Entry]:
        """From git's order to ``nar_order``. ``known``: of so many characters at the start nothing is to come."""
        waiting: list[_Waiting] = []  # the folder of each is in that of the one before
        only: _Entry | None = None  # what alone would be the last of them
        limit = b""
        for entry in entries:
            if only and entry.key >= limit:
                yield only
            elif only:
                waiting.append(self._wait(only, limit))
            only = None
            while waiting and entry.key >= waiting[-1].limit:
                yield from self._released(waiting.pop())
            if waiting and waiting[-1].takes(entry.key):
                self._keep(waiting[-1], entry)
            elif match := _WAITS.search(entry.key, len(waiting[-1].folder) + 1 if waiting else known):
                limit = entry.key[: match.end() - 1] + _AFTER
                if entry.size <= _SMALL:
                    only = entry
                else:
                    waiting.append(self._wait(entry, limit))
            else:
                yield entry
        if only:
            yield only
        while waiting:
            yield from self._released(waiting.pop())

    def _wait(self, entry: _Entry, limit: bytes) -> _Waiting:
        waiting = _Waiting(limit)
        self._keep(waiting, entry)
        return waiting

    def _keep(self, waiting: _Waiting, entry: _Entry) -> None:
        size = entry.size
        if waiting.start < 0 and self._kept + size + _ENTRY <= _KEPT:
            if isinstance(entry.node, NarFile) and size > _SMALL:
                entry.node = entry.node._replace(chunks=_whole(b"".join(entry.content())))
            waiting.entries.append(entry)
            self._kept += size + _ENTRY
            return
        for piece in itertools.chain((entry.headers,), entry.content(), (bytes(-size % _RECORD),)):
            end = self._spool.seek(0, os.SEEK_END)  # the pieces may come from this file too
            waiting.start = end if waiting.start < 0 else waiting.start
            self._spool.write(piece)
        waiting.end = self._spool.tell()

    def _released(self, waiting: _Waiting) -> Iterator[_Entry]:
        yield from self._sorted(self._kept_by(waiting), len(waiting.folder))
        if waiting.start >= 0:
            self._spool.truncate(waiting.start)

    def _kept_by(self, waiting: _Waiting) -> Iterator[_Entry]:
        for entry in waiting.entries:
            self._kept -= entry.size + _ENTRY
            yield entry
        if waiting.start >= 0:
            yield from self._entries(_TarReader(self._spooled(waiting.start, waiting.end)))

    def _spooled(self, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            self._spool.seek(start)
            block = self._spool.read(min(CHUNK, end - start))
            start += len(block)
            yield block
        yield _END + _END


@contextmanager
def open_tarball(stream: IO[bytes], origin: str) -> Iterator[Tarball]:
    """A tarball with one folder at the top, packed by gzip, bzip2, xz or not at all.

    Damaged, also while its items are read, for what is not a tarball, is cut short, leads outside itself, is in
    another order than git's, or holds what git does not pack.
    """
    try:
        with tempfile.TemporaryFile(prefix="patchforge-") as spool, closing(_unpacked(stream)) as blocks:
            yield Tarball(blocks, spool, origin)
    except _BAD as error:
        raise Damaged(
            f"{origin} cannot be read as a tarball",
            expected="a whole .tar.gz, .tar.xz, .tar.bz2 or .tar, as git packs it",
            found=str(error) or type(error).__name__,
            do="download GitHub's tarball again",
        ) from error


def _unpacked(stream: IO[bytes]) -> Generator[bytes]:
    """Blocks, unpacked by a thread while the ones before are worked on."""
    raw = _Raw(stream)
    packed = io.BufferedReader(raw, CHUNK)
    opener = next((each for magic, each in _OPENERS.items() if packed.peek().startswith(magic)), None)
    if opener is None:
        yield from _read_ahead(packed)
        return
    with opener(packed) as unpacked:
        size = 0
        for block in _read_ahead(unpacked):
            size += len(block)
            if size > max(_BOMB_FROM, _BOMB * raw.size):
                raise _Malformed(f"it unpacks to more than {_BOMB} times its size")
            yield block


def _read_ahead(stream: IO[bytes]) -> Iterator[bytes]:
    with ThreadPoolExecutor(1) as reader:
        coming: deque[Future[bytes]] = deque(reader.submit(stream.read, _BLOCK) for _ in range(_AHEAD))
        while block := coming.popleft().result():
            coming.append(reader.submit(stream.read, _BLOCK))
            yield block


class _Raw(io.RawIOBase):
    """Any stream, also one that cannot seek."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.size = 0  #: bytes so far

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self.size += len(data)
        return len(data)


def _whole(data: bytes) -> Callable[[], Iterable[bytes]]:
    return lambda: (data,)


@lru_cache(maxsize=16)
def _executable(mode: bytes) -> bool:
    return bool(_number(mode, 8) & 0o100)


def _number(digits: bytes, base: int) -> int:
    digits = digits.rstrip(b"\0 ") or b"0"
    try:
        if digits.isdigit() and len(digits) <= _DIGITS:
            return int(digits, base)
    except ValueError:
        pass
    raise _Malformed(f"{digits!r} where a number should be")


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Keywords and values, each record with its own length in front (POSIX, pax, extended header)."""
    values = {}
    start = 0
    while start < len(data):
        size = _number(data[start : start + _DIGITS].partition(b" ")[0], 10)
        if not 0 < size <= len(data) - start:
            raise _Malformed("an extended header is not whole")
        name, _, value = data[start : start + size].partition(b" ")[2].removesuffix(b"\n").partition(b"=")
        values[name], start = value, start + size
    return values
