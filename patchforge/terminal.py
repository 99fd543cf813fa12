"""The one door to the terminal and to a CI log: whatever a command prints, a stranger's text steers neither.

``guarded`` puts a stream over standard output and error that shows controls instead of sending them, and breaks what a
CI service would take for a command. Colours and progress of our own pass by a key that no text can know.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from patchforge import progress
from patchforge.escape import seen

_KEY = os.urandom(16).hex()
_OWN = re.compile(f"\0{_KEY}([^\0]*)\0")
#: What CI services obey: GitHub, Gitea and Forgejo ``::name::`` at the start of a line and ``##[name]`` anywhere, Azure
#: ``##vso[``, TeamCity ``##teamcity[``. The last character is broken, so that it does not matter how text is cut.
_COMMAND = re.compile(r"^[^\S\n]*::|##(?:vso|teamcity)?\[", re.IGNORECASE | re.MULTILINE)
_TAIL = 16  #: characters of a line that may be the beginning of a command


class ReaderGoneError(Exception):
    """Whoever read our output has closed it, as ``head`` does. Not an OSError: it is nobody's fault."""


class Guarded(io.TextIOBase):
    """A text stream that passes printable text, line ends, tabs and what ``own`` made.

    ``is_output``: what it takes is a result, so ReaderGoneError or OSError says that it is lost; else it is forgotten.
    """

    def __init__(self, stream: TextIO, *, is_output: bool = True) -> None:
        self._stream, self._is_output = stream, is_output
        self._line = ""  #: what stands in the line so far, as far as a command could begin in it

    def write(self, text: str) -> int:
        """Writes ``text``; returns how many characters of it were taken, which is all."""
        progress.erase()
        shown = [self._own(part) if index % 2 else self._foreign(part) for index, part in enumerate(_OWN.split(text))]
        with self._reader():
            self._stream.write("".join(shown))
        return len(text)

    def flush(self) -> None:
        with self._reader():
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    def close(self) -> None:
        """The stream below stays open: it is not ours."""

    @contextmanager
    def _reader(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_output:
                return
            if isinstance(error, BrokenPipeError):
                raise ReaderGoneError from None
            raise OSError(error.errno, error.strerror, "standard output") from None

    def _own(self, code: str) -> str:
        self._line = "" if code.startswith("\r") else self._line
        return code

    def _foreign(self, text: str) -> str:
        made = _COMMAND.sub(_broken, self._line + seen(text))
        line = made.rpartition("\n")[2].lstrip()
        made = made[len(self._line) :]
        self._line = line if len(line) <= _TAIL else "x" + line[-_TAIL:]
        return made


def _broken(match: re.Match[str]) -> str:
    return f"{match[0][:-1]}\\x{ord(match[0][-1]):02x}"


def own(stream: TextIO, code: str) -> str:
    """``code``, a terminal's control sequence of ours, so that ``stream`` passes it."""
    return f"\0{_KEY}{code}\0" if isinstance(stream, Guarded) else code


@contextmanager
def guarded() -> Iterator[None]:
    """Standard output and error are guarded inside; afterwards nothing waits in them that could fail at exit.

    What is said on standard error, and cannot be, is forgotten. Characters that a stream cannot encode become escapes.
    """
    _occupy()
    before = sys.stdout, sys.stderr
    errors = [_tolerant(stream) for stream in before]
    sys.stdout = cast("TextIO", Guarded(before[0] or _Closed()))
    sys.stderr = cast("TextIO", Guarded(before[1] or _Closed(), is_output=False))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            settle(stream)
        sys.stdout, sys.stderr = before
        for stream, handler in zip(before, errors, strict=True):
            if handler and isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=handler)


def settle(stream: TextIO) -> None:
    """Writes what waits; where that cannot be, it is forgotten, lest the interpreter try again at its end."""
    try:
        stream.flush()
    except (OSError, ValueError, ReaderGoneError):
        with suppress(OSError, ValueError, ReaderGoneError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()


def _tolerant(stream: TextIO | None) -> str | None:
    """Makes a stream escape what it cannot encode; returns how it treated that before."""
    if not isinstance(stream, io.TextIOWrapper):
        return None
    before = stream.errors
    stream.reconfigure(errors="backslashreplace")
    return before


def _occupy() -> None:
    """Opens the standard streams that are closed, lest a file of ours gets such a number and a child prints into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - no keyword


class _Closed(io.StringIO):
    def write(self, text: str) -> int:
        if not text:
            return 0
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
