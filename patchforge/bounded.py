"""How much is read of what somebody else wrote: files, pipes and lines, each up to a bound, and here alone.

Whatever reads without a bound can be made to fill memory or to wait for ever; a test looks for reads that do not come
here. A file is a regular one: a pipe or a device at its place is not opened.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, AnyStr

from patchforge.errors import Damaged

MOST = 64 << 20  #: bytes of a file or an answer; the largest document of ours has two million
LINE = 1 << 20  #: characters of a line
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def file(path: Path, most: int = MOST) -> bytes:
    """The bytes of a regular file; Damaged for anything else at its place and for more than ``most`` bytes."""
    with opened(path) as stream:
        data = stream.read(most + 1)
        if len(data) > most:
            found = f"{os.fstat(stream.fileno()).st_size} bytes"
            raise Damaged(f"{path} is too large", expected=f"at most {most} bytes", found=found, do="name another file")
    return data


def head(path: Path, most: int = MOST) -> str:
    """The beginning of a text; "" where no file is, or none that can be read."""
    try:
        with opened(path) as stream:
            return stream.read(most).decode("utf-8", "replace")
    except (OSError, Damaged):
        return ""


def tail(path: Path, most: int = MOST, since: int = 0) -> str:
    """The end of a text, from the byte ``since`` on, and whole lines of it where it is longer than ``most`` bytes."""
    with opened(path) as stream:
        return ended(stream, most, since)


def ended(stream: IO[bytes], most: int = MOST, since: int = 0) -> str:
    """As ``tail``, of a file that is open."""
    size = stream.seek(0, os.SEEK_END)
    start = stream.seek(max(since, size - most, 0))
    text = stream.read(most).decode("utf-8", "replace")
    return text if start == since else text.partition("\n")[2]


def whole(stream: IO[bytes], name: str, most: int = MOST) -> bytes:
    """What a pipe gives until its end; Damaged for more than ``most`` bytes."""
    data = stream.read(most + 1)
    if len(data) > most:
        raise Damaged(
            f"{name} printed too much",
            expected=f"at most {most} bytes",
            do="find out why it does; nothing of it was used",
        )
    return data


def lines(stream: IO[AnyStr], longest: int = LINE) -> Iterator[AnyStr]:
    """The lines of a stream; one that is longer comes in pieces."""
    while line := stream.readline(longest):
        yield line


def opened(path: Path) -> IO[bytes]:
    """A regular file, to be read piece by piece; Damaged for anything else at its place."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    if stat.S_ISREG(status.st_mode):
        stream: io.BufferedReader = os.fdopen(os.open(path, _FLAGS), "rb")
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return stream
        stream.close()
    raise Damaged(
        f"{path} is not a file", expected="a regular file", found="a pipe, a socket or a device", do="name another file"
    )
