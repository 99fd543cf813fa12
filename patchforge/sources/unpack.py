"""Compressed data as bytes, with bounds: no bomb takes more memory or more output than is allowed."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol

_CHUNK = 1 << 16
_DICTIONARY = 128 << 20  #: bytes that an xz decoder may take; xz -9 needs 65 MiB
_OTHERS = {
    b"PK\x03\x04": "a ZIP archive",
    b"PK\x05\x06": "an empty ZIP archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor for one gzip member, as bz2's and lzma's are."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(31)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._full and not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self._full = len(out) == max_length
        return out


_KINDS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": _Gzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARY),
}


class Unpacked(io.RawIOBase):
    """``file`` unpacked, if it is packed by gzip, bzip2 or xz, else as it is; OSError beyond ``most`` bytes."""

    def __init__(self, file: IO[bytes], most: int = 1 << 62) -> None:
        self._left = self._most = most
        self._blocks = _blocks(file)
        self._block = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._block:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left -= len(block)
            if self._left < 0:
                raise OSError(f"it unpacks to more than {self._most} bytes")
            self._block = memoryview(block)
        size = min(len(buffer), len(self._block))
        buffer[:size] = self._block[:size]
        self._block = self._block[size:]
        return size


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    data = file.read(_CHUNK)
    if not data:
        raise EOFError("it is empty")
    if other := next((name for magic, name in _OTHERS.items() if data.startswith(magic)), ""):
        raise OSError(f"it is {other}")
    make = next((kind for magic, kind in _KINDS.items() if data.startswith(magic)), None)
    while data and make:
        decompressor = make()
        while not decompressor.eof:
            if decompressor.needs_input:
                data = data or file.read(_CHUNK)
                if not data:
                    raise EOFError("it breaks off: the compressed data has no end")
                yield decompressor.decompress(data, _CHUNK)
            else:
                yield decompressor.decompress(b"", _CHUNK)
            data = b""
        data = (decompressor.unused_data or file.read(_CHUNK)).lstrip(b"\0")
        while not data and (more := file.read(_CHUNK)):
            data = more.lstrip(b"\0")
    while data:
        yield data
        data = file.read(_CHUNK)
