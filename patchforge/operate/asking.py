"""What a server that is watched says, or in one word why that cannot be used. No answer of it is believed unchecked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from patchforge import documents, web
from patchforge.errors import Damaged, TryAgain
from patchforge.operate.metrics import ERRORS, Sample

_T = TypeVar("_T")
_MOST = 32 << 20  #: bytes of an answer
_TEXT = 200  #: characters of a label


class Unusable(Exception):
    """Why an answer cannot be used: one of ``metrics.ERRORS``. ``status`` is HTTP's, where that is the reason."""

    def __init__(self, kind: str, status: int = 0, said: str = "") -> None:
        super().__init__(said or kind)
        self.kind, self.status = kind, status


def checked(url: str) -> str:
    """An address that may be asked, without a slash at its end. PatchforgeError for another."""
    web.origin(url)
    return url.rstrip("/")


def name_of(url: str) -> str:
    """How a server is called in labels: without its scheme."""
    return url.partition("://")[2]


def document(url: str, kind: type[_T], seconds: float) -> _T:
    """The JSON at an address, checked against ``kind``. Unusable when there is none like it within ``seconds``."""
    limits = web.Limits(_MOST, seconds, redirects=0, patient=True)
    try:
        with web.opened(url, limits=limits) as answer:
            if answer.status != 200:
                raise Unusable("status", answer.status, f"status {answer.status}")
            data = answer.whole()
        value = web.parsed(data, url)
    except TryAgain as error:
        raise Unusable(_why(error.__cause__), said=error.found) from error
    except Damaged as error:
        raise Unusable("garbage", said=error.problem) from error
    try:
        return documents.structured(value, kind, web.shown(url))
    except Damaged as error:
        raise Unusable("unexpected", said=error.found) from error


def _why(cause: BaseException | None) -> str:
    if isinstance(cause, TimeoutError):
        return "timeout"
    return "refused" if isinstance(cause, ConnectionRefusedError) else "broken"


def amount(value: Any, most: float = 2.0**63) -> float:
    """A number that can be one of bytes, seconds or things. Unusable for another."""
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise Unusable("unexpected", said=f"{str(value)[:40]} where an amount should be")
    return float(value)


def label(value: object) -> str:
    """A stranger's text as a label: one line, not long."""
    text = value if isinstance(value, str) else ""
    return "".join(letter for letter in text[:_TEXT] if letter.isprintable())


class Watched(Protocol):
    """A server that is looked at."""

    prefix: str
    server: str

    def look(self) -> list[Sample]:
        """What it says now; Unusable when it says nothing that can be used."""


class Poll(threading.Thread):
    """Looks at one server every ``interval`` seconds, and tells what it saw as long as that is true."""

    def __init__(self, of: Watched, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(daemon=True, name=f"poll {of.server}")
        self._of, self._interval, self._clock = of, interval, clock
        self._ended = threading.Event()
        self._seen: tuple[float, list[Sample]] = (clock(), list(self._told("timeout")))

    def run(self) -> None:
        while not self._ended.is_set():
            self.look()
            self._ended.wait(self._interval)

    def end(self) -> None:
        self._ended.set()

    def look(self) -> None:
        """Looks once. Whatever the server does, there is an answer afterwards."""
        try:
            samples = [*self._of.look(), *self._told("")]
        except Unusable as error:
            samples = list(self._told(error.kind))
        except Exception:  # noqa: BLE001 - whatever else it does: this thread goes on
            samples = list(self._told("unexpected"))
        self._seen = self._clock(), samples

    def collect(self) -> Iterable[Sample]:
        """What was seen; of a look that takes too long, that it does."""
        when, samples = self._seen
        old = self._clock() - when > 3 * self._interval + 30
        return list(self._told("timeout")) if old else samples

    def _told(self, error: str) -> Iterator[Sample]:
        yield Sample(f"{self._of.prefix}_up", float(not error), (self._of.server,))
        for kind in ERRORS:
            yield Sample(f"{self._of.prefix}_scrape_error", float(kind == error), (self._of.server, kind))
