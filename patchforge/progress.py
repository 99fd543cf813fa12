"""What a command is at, on standard error: on a terminal one line that is written over, else a line for what lasts.

A command says its ``step``; whoever calls it does not wait longer than half a second to see that something goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, TypeVar

from patchforge.escape import line

_T = TypeVar("_T")
_LATE = 0.4  #: seconds that a step may take before it is shown
_EVERY = 0.1


def is_live(stream: TextIO) -> bool:
    """Whether a stream is a terminal that does more than print, as those in editors do."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class _Teller:
    """Shows the step at hand while it lasts, from a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        import threading  # noqa: PLC0415 - not every command has steps

        self._stream, self._live = stream, is_live(stream)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._step = self._detail = self._told = ""
        self._since, self._drawn = 0.0, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self, step: str, detail: str) -> None:
        with self._lock:
            if step != self._step:
                self._since = time.monotonic()
            self._step, self._detail = step, detail

    def erase(self) -> None:
        """Before anything else is printed."""
        if self._drawn:
            with self._lock, suppress(OSError, ValueError):
                self._stream.write("\r\033[K")
                self._stream.flush()
                self._drawn = False

    def _run(self) -> None:
        while not self._ended.wait(_EVERY):
            with self._lock, suppress(OSError, ValueError):
                self._show()

    def _show(self) -> None:
        lasted = time.monotonic() - self._since
        if not self._step or lasted < _LATE or (not self._live and self._told == self._step):
            return
        text = f"{line(self._step)} ..."
        if self._live:
            width = os.get_terminal_size(self._stream.fileno()).columns - 1
            text = f"{text} {line(self._detail)} {lasted:.0f} s"[:width]
            self._drawn = True
        self._stream.write(f"\r\033[K{text}" if self._live else f"{text}\n")
        self._stream.flush()
        self._told = self._step

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self.erase()


_streams: list[TextIO] = []  #: of the command that runs
_tellers: list[_Teller] = []  #: the same, once it has said a step


def step(what: str, detail: str = "") -> None:
    """Says what comes now, such as ``converting v0.32.0``; "" for nothing that lasts. ``detail`` is for terminals."""
    if _streams and not _tellers:
        _tellers.append(_Teller(_streams[-1]))
    if _tellers:
        _tellers[-1].begin(what, detail)


def erase() -> None:
    """Makes room for what is printed."""
    if _tellers:
        _tellers[-1].erase()


def each(items: Iterable[_T], what: str, total: int) -> Iterator[_T]:
    """The items; each is a step of its own, with its number."""
    for number, item in enumerate(items, 1):
        step(what, f"{number} of {total}")
        yield item
    step("")


@contextmanager
def shown(stream: TextIO | None) -> Iterator[None]:
    """Steps are shown on ``stream`` inside."""
    if stream is not None:
        _streams.append(stream)
    try:
        yield
    finally:
        _streams.clear()
        while _tellers:
            _tellers.pop().end()
