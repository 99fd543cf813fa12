"""HTTP, for every client that we have: what may be asked, where a secret may go, how much is read, and for how long.

An answer is a stranger's. Its size, its time, its numbers and the addresses in it are bounded here and nowhere else.
Standard library alone: ``bot/notify.py`` runs where nothing is installed.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import io
import ipaddress
import json
import os
import queue
import re
import socket
import ssl
import stat
import string
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPMessage as Headers
from pathlib import Path
from typing import IO, Any

from patchforge import escape
from patchforge.errors import Damaged, PatchforgeError, TryAgain

DAY = 86400.0
_YEAR = 366 * DAY
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset([301, 302, 303, 307, 308])
_EMPTY = (204, 304)  #: answers without a body, whatever length they tell
_SECRET = frozenset(["authorization", "cookie"])
#: Readers of addresses disagree about these; ``urlsplit`` drops some of them without a word.
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:.]*:[0-9a-f:.]*")
_NUMBER = re.compile("[0-9]{1,18}")
_BLOCK = 1 << 16
_DEPTH = 64  #: of nested JSON


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of an answer is read, in bytes, and how long it may take in all, in seconds from the name's resolution.

    ``pace``: bytes that earn another second, for files whose size says how long they take; 0: nothing does.
    ``patient``: whether a host is asked again after it took too long.
    """

    size: int
    seconds: float
    pace: int = 0
    redirects: int = 5
    patient: bool = False


SECONDS = 8.0  #: for an answer without regard to its size
DOCUMENT = Limits(32 << 20, SECONDS, pace=256 << 10)
FILE = Limits(16 << 30, SECONDS, pace=64 << 10)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a secret belongs to (RFC 6454)."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def origin(url: str) -> Origin:
    """PatchforgeError unless ``url`` may be asked: https, or http to this machine, and no password in it."""
    return _origin(url, PatchforgeError)


def _origin(url: str, kind: type[PatchforgeError]) -> Origin:
    expected = "https://HOST/…, or http:// to this machine, without a name or password in it"

    def refused(found: str) -> PatchforgeError:
        return kind(f"{shown(url)} is not asked", expected=expected, found=found, do="correct the address")

    try:
        parts = urllib.parse.urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise refused("a malformed address") from None
    if _ODD.search(url) or not url.isascii() or not _HOST.fullmatch(host) or len(host) > 253:
        raise refused("a malformed address")
    if parts.scheme not in _PORTS:
        raise refused("another scheme")
    if "@" in parts.netloc:
        raise refused("a name or password in the address")
    if parts.scheme == "http" and not _is_this_machine(host):
        raise refused("http, which anybody on the way can read and change")
    return Origin(parts.scheme, host, _PORTS[parts.scheme] if port is None else port)


def shown(url: str) -> str:
    """The address as messages have it: on one line, without password, query and fragment."""
    return escape.line(escape.without_password(re.split(r"[?#]", url, maxsplit=1)[0]))


def separated(url: str) -> tuple[str, dict[str, str]]:
    """An address that the user set, and its name and password as the header that they are sent in."""
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    name, _, password = user.partition(":")
    pair = f"{urllib.parse.unquote(name)}:{urllib.parse.unquote(password)}"
    basic = base64.b64encode(pair.encode()).decode()
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {basic}"}


def followed(base: str, reference: str, *, secret: bool) -> str:
    """Where a redirect or link of ``base`` leads. Damaged when it may not be followed.

    With ``secret``, to the same origin only. Else not from https to http, and from elsewhere not into this machine or
    its network.
    """
    url = joined(base, reference)
    try:
        there = _origin(url, _Led)
    except _Led as error:
        raise Damaged(
            f"{shown(base)} leads to an address that is not followed",
            expected=error.expected,
            found=error.found,
            do="try again later, or name another address",
        ) from None
    here = None if base.startswith("file:") else origin(base)
    if here is None or there == here:
        return url
    if secret or (here.scheme, there.scheme) == ("https", "http") or _nearness(there.host) > _nearness(here.host):
        why = "the login that goes along is for this one alone" if secret else "it is not as safe as this one"
        raise Damaged(
            f"{shown(base)} leads to {there}, which is not followed",
            found=why,
            do="name the address that it leads to, if you trust it",
        )
    return url


def joined(base: str, reference: str) -> str:
    """Where ``reference`` leads from ``base``, whether it may be followed or not. Damaged when it is malformed."""
    try:
        url = urllib.parse.urljoin(base, urllib.parse.quote(reference.strip(" "), safe=string.punctuation))
        return urllib.parse.urldefrag(url).url
    except ValueError:
        raise Damaged(
            f"{shown(base)} gives a malformed address", do="try again later, or name another address"
        ) from None


class _Led(Damaged):
    """A stranger's address."""


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _nearness(host: str) -> int:
    """2 for this machine, 1 for its network, 0 for elsewhere; also in the spellings that ``inet_aton`` takes."""
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        return 2
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host.rstrip(".")))
        except OSError:
            return 0
    address = getattr(address, "ipv4_mapped", None) or address
    return 2 if address.is_loopback or address.is_unspecified else 0 if address.is_global else 1


@dataclass(slots=True)
class _Clock:
    limits: Limits
    begun: float = field(default_factory=time.monotonic)
    received: int = 0

    def left(self) -> float:
        """Seconds. TimeoutError when there are none."""
        earned = self.received / self.limits.pace if self.limits.pace else 0.0
        left = self.begun + self.limits.seconds + earned - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, self.limits.seconds)


class _Timed(io.RawIOBase):
    """What a socket receives, until the clock stops it; the socket's own timeout begins anew with each byte."""

    def __init__(self, connection: socket.socket, clock: _Clock) -> None:
        super().__init__()
        self._socket, self._clock = connection, clock
        self._raw = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(self._clock.left())
        count: int = self._raw.readinto(buffer) or 0
        self._clock.received += count
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Connection:
    """The part of a socket that ``HTTPResponse`` wants."""

    def __init__(self, connection: socket.socket, clock: _Clock) -> None:
        self._socket, self._clock = connection, clock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Timed(self._socket, self._clock), _BLOCK)


def _connect(kind: Callable[..., http.client.HTTPConnection], clock: _Clock, host: str, **more: Any) -> Any:
    def respond(connection: socket.socket, *rest: Any, **named: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Connection(connection, clock), *rest, **named)  # type: ignore[arg-type]

    made = kind(host, **more)
    made.response_class = respond  # type: ignore[assignment]
    made._create_connection = partial(_reach, clock)  # type: ignore[attr-defined]  # noqa: SLF001 - made for this
    return made


def _reach(clock: _Clock, there: tuple[str, int], *_: object) -> socket.socket:
    """A connection to the first address that takes one. The clock runs on over all of them, and over their name."""
    refused: OSError = OSError("the name has no address")
    for family, kind, protocol, _name, address in _resolved(clock, *there):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(clock.left())
            connection.connect(address)
        except OSError as error:
            connection.close()
            refused = error
        else:
            return connection
    raise refused


def _resolved(clock: _Clock, host: str, port: int) -> list[Any]:
    """What ``getaddrinfo`` says. It cannot be stopped, so it is left behind where it takes too long."""
    said: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            said.put(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            said.put(error if isinstance(error, OSError) else OSError("not a name"))

    threading.Thread(target=ask, daemon=True).start()
    try:
        addresses = said.get(timeout=clock.left())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(addresses, OSError):
        raise addresses
    return addresses


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._open = partial(_connect, http.client.HTTPConnection, clock)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._open, request)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._open = partial(_connect, http.client.HTTPSConnection, clock)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._open, request, context=ssl.create_default_context())


def _opener(there: Origin, clock: _Clock) -> urllib.request.OpenerDirector:
    """Nothing that follows redirects, reads .netrc or opens files; proxies as the environment names them."""
    opener = urllib.request.OpenerDirector()
    if not _is_this_machine(there.host):
        opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(_Plain(clock))
    opener.add_handler(_Secure(clock))
    return opener


_SLOW: set[Origin] = set()  #: those that took too long: a run waits for each once, whatever it has to ask


class Answer:
    """An answer whose body is still to be read. ``url``: where it came from in the end."""

    def __init__(self, url: str, status: int, headers: Headers, body: IO[bytes], limits: Limits) -> None:
        self.url, self.status, self.headers = url, status, headers
        self._body, self._limits, self._read = body, limits, 0
        told = isinstance(body, http.client.HTTPResponse) and status not in _EMPTY
        self.length = _length(url, headers) if told else None
        if self.length is not None and self.length > limits.size:
            raise _too_long(url, limits)

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, nothing at the end. TryAgain when it breaks off, Damaged when it is too long."""
        if size < 0:
            return b"".join(iter(partial(self.read, _BLOCK), b""))
        with _told(self.url):
            data = self._body.read1(min(size, _BLOCK)) if size else b""  # type: ignore[attr-defined]
        self._read += len(data)
        if self._read > self._limits.size:
            raise _too_long(self.url, self._limits)
        if not data and size and self._read < (self.length or 0):
            found = f"{self._read} of {self.length} bytes"
            raise TryAgain(f"{shown(self.url)} broke off", expected="all of it", found=found, do="try again")
        return bytes(data)

    def whole(self) -> bytes:
        """The body of a document. Damaged when it is compressed, which nobody asked for."""
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Damaged(
                f"{shown(self.url)} sent a compressed answer",
                expected="an uncompressed one",
                do="try again later, or name another address",
            )
        return self.read()


def _length(url: str, headers: Headers) -> int | None:
    """How long a body is; None when it says so itself, in chunks or by its end."""
    coding = headers.get("Transfer-Encoding")
    if coding is not None:
        if coding.strip().lower() != "chunked":
            raise Damaged(
                f"{shown(url)} sent its answer in an encoding that nobody asked for",
                expected="chunked",
                do="try again later, or name another address",
            )
        return None
    told = {length.strip() for length in headers.get_all("Content-Length") or ()}
    length = whole_number(min(told)) if len(told) == 1 else None
    if told and length is None:
        raise Damaged(
            f"{shown(url)} does not say how long its answer is",
            expected="one Content-Length, a number",
            do="try again later, or name another address",
        )
    return length


def _too_long(url: str, limits: Limits) -> Damaged:
    return Damaged(
        f"{shown(url)} sent too much",
        expected=f"at most {limits.size} bytes",
        do="try again later, or name another address",
    )


@contextmanager
def opened(
    url: str,
    *,
    verb: str = "GET",
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
    limits: Limits = DOCUMENT,
) -> Iterator[Answer]:
    """The answer, of any status but a redirect's. A ``file:`` address that the user set is read like one.

    PatchforgeError when ``url`` may not be asked, TryAgain for what passes, Damaged for what cannot be right.
    """
    if url.startswith("file:"):
        with _file(url, limits) as answer:
            yield answer
        return
    sent = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "patchforge", **(headers or {})}
    secrets = [value.rpartition(" ")[2] for name, value in sent.items() if name.lower() in _SECRET]
    clock = _Clock(limits)
    for _ in range(limits.redirects + 1):
        if not limits.patient and origin(url) in _SLOW:
            raise _failed(url, "it took too long before")
        response = _asked(url, verb, sent, data, clock)
        try:
            target = response.headers.get("Location") if response.status in _REDIRECTS else None
            if target is None:
                yield Answer(url, response.status, response.headers, response, limits)
                return
        finally:
            response.close()
        if response.status == http.client.SEE_OTHER and verb != "GET":
            raise Damaged(
                f"{shown(url)} answers {verb} with a redirect to another page",
                do="try again later, or name another address",
            )
        where = str(target).encode("latin-1", "replace").decode("utf-8", "replace")
        if any(secret in urllib.parse.unquote(where) for secret in secrets):
            raise Damaged(
                f"{shown(url)} redirects to an address with the login in it, where it would be kept",
                do="try again later, or name another address",
            )
        url = followed(url, where, secret=bool(secrets))
    raise Damaged(
        f"{shown(url)} redirects too often",
        expected=f"at most {limits.redirects} redirects",
        do="try again later, or name another address",
    )


def require(answer: Answer, *wanted: int) -> None:
    """TryAgain for a status that passes, PatchforgeError for a refusal, Damaged for another than ``wanted``."""
    if answer.status in (wanted or (http.client.OK,)):
        return
    passing = answer.status >= 500 or answer.status in (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)
    kind = TryAgain if passing else PatchforgeError if answer.status >= 400 else Damaged
    raise kind(
        f"{shown(answer.url)} cannot be read",
        expected="status 200",
        found=f"status {answer.status}",
        do="try again later" if passing else "check the address, and that you may read it",
    )


def _asked(
    url: str, verb: str, headers: Mapping[str, str], data: bytes | None, clock: _Clock
) -> http.client.HTTPResponse:
    opener = _opener(origin(url), clock)
    with _told(url):
        request = urllib.request.Request(url, data, dict(headers), method=verb)  # noqa: S310 - checked by origin
        answer: http.client.HTTPResponse = opener.open(request, timeout=clock.left())
        return answer


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What goes wrong on the way, as one sentence without any word of the other side's."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        told = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = told if isinstance(told, Exception) else error
        found, kind = _reason(reason)
        if isinstance(reason, TimeoutError) and not url.startswith("file:"):
            _SLOW.add(origin(url))
        raise _failed(url, found, kind) from reason


def _failed(url: str, found: str, kind: type[PatchforgeError] = TryAgain) -> PatchforgeError:
    return kind(f"{shown(url)} cannot be read", found=found, do="check the network and the address, and try again")


def _reason(error: Exception) -> tuple[str, type[PatchforgeError]]:
    if isinstance(error, TimeoutError):
        return "it took too long", TryAgain
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not one that this machine trusts", Damaged
    if isinstance(error, http.client.IncompleteRead):
        return "it broke off", TryAgain
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__, TryAgain
    return "an answer that is not HTTP", Damaged


@contextmanager
def _file(url: str, limits: Limits) -> Iterator[Answer]:
    """A file of this machine, or index.html of a folder, as an answer: 200, or 404 when it is not there."""
    path = file_path(url)
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise PatchforgeError(
                    f"{escape.line(str(path))} cannot be read", expected="a file", do="name another file"
                )
            yield Answer(url, http.client.OK, Headers(), stream, limits)
    except (FileNotFoundError, NotADirectoryError):
        yield Answer(url, http.client.NOT_FOUND, Headers(), io.BytesIO(), limits)


def file_path(url: str) -> Path:
    """The path of a ``file:`` address. PatchforgeError for a malformed one or another machine's."""
    try:
        parts = urllib.parse.urlsplit(url)
        path = urllib.request.url2pathname(parts.path)
    except ValueError:
        path = "\0"
    if "\0" in path or parts.netloc not in ("", "localhost") or not Path(path).is_absolute():
        raise PatchforgeError(
            f"{shown(url)} is not a file of this machine", expected="file:///PATH", do="name a whole path"
        )
    return Path(path, "index.html") if path.endswith("/") else Path(path)


def parsed(data: bytes, url: str) -> Any:
    """JSON (RFC 8259), without half characters, which nothing could write. Damaged when it is none or too deep."""
    try:
        return _sound(json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant), _DEPTH)
    except (ValueError, RecursionError):
        raise Damaged(
            f"{shown(url)} did not answer with JSON",
            expected=f"JSON, at most {_DEPTH} deep",
            do="look at what answers there",
        ) from None


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _sound(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | dict):
        if not depth:
            raise RecursionError
        if isinstance(value, list):
            return [_sound(item, depth - 1) for item in value]
        return {_sound(key, 1): _sound(item, depth - 1) for key, item in value.items()}
    return value


def whole_number(text: object, most: int = 10**18) -> int | None:
    """A number in a header: ASCII digits, at most ``most``; None for anything else."""
    told = str(text).strip(" \t")
    return int(told) if _NUMBER.fullmatch(told) and int(told) <= most else None


def seconds_until(text: object) -> float | None:
    """Seconds that ``Retry-After`` asks for, as a number or a date, at most a year; None when it is neither."""
    if re.fullmatch("[0-9]{1,4000}", told := str(text).strip(" \t")):
        return float(min(int(told), int(_YEAR)))
    try:
        when = email.utils.parsedate_to_datetime(told)
        wait = (when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(0.0, wait.total_seconds()), _YEAR)
