"""Wrong answers, to every client: each ends soon, in one sentence, with a status of its own."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from typing import Any

import pytest

from patchforge.errors import Damaged, Exit, PatchforgeError, TryAgain
from patchforge.trial.model import Ending
from tests.web.clients import CLIENTS, SECONDS, SHORT, limited, trial
from tests.web.hostile import Speech, answers, cut, endless, http, leads, says, serving, silent

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(b"[" + b" " * (8 << 20) + b"]")
LONGEST = 10.0

#: They pass, or may: 75.
PASSING: dict[str, Speech] = {
    "closed at once": says(),
    "reset at once": cut(b""),
    "reset in the status line": cut(b"HTTP/1.1 2"),
    "reset in the body": cut(OK + b"Content-Length: 1000\r\n\r\n[1, "),
    "silence": silent,
    "silence after the head": endless(OK + b"\r\n", b"", 0.1),
    "a byte a second": endless(OK + b"Content-Length: 60\r\n\r\n", b" ", 0.2),
    "a byte a second in the status line": endless(b"", b"H", 0.2),
    "a byte a second in the headers": endless(OK + b"X: ", b"y", 0.2),
    "a byte a second in chunks": endless(CHUNKED, b"1\r\n \r\n", 0.2),
    "a chunk size without an end": endless(CHUNKED, b"0", 0.2),
    "continue, for ever": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    "trailers, for ever": endless(CHUNKED + b"0\r\n", b"X: y\r\n", 0.01),
    "shorter than it says": says(OK + b"Content-Length: 900\r\n\r\n[]"),
    "a chunk shorter than it says": says(CHUNKED + b"ff\r\n[]"),
    "server error": http(b"<html>Unicorn</html>", "500 Oops"),
    "bad gateway, empty": http(b"", "502 Bad Gateway"),
    "unavailable": http(b'{"message": 1}', "503 Busy", "Retry-After: ²"),
}
#: They cannot be right: 65, and nobody asks again.
GARBAGE: dict[str, Speech] = {
    "not HTTP": says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a status line of signs": says(b"HTTP/1.1 banana\r\n\r\n"),
    "a status line of bytes": says(bytes(range(128, 256)) + b"\r\n\r\n"),
    "status 99999999": says(b"HTTP/1.1 99999999 OK\r\n\r\n[]"),
    "status -1": says(b"HTTP/1.1 -1 OK\r\n\r\n[]"),
    "another version": says(b"HTTP/7.0 200 OK\r\n\r\n[]"),
    "a thousand headers": says(OK + b"X: y\r\n" * 1000 + b"\r\n[]"),
    "a long header": says(OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n[]"),
    "3 GB, it says": says(OK + b"Content-Length: 3221225472\r\n\r\n["),
    "an endless body": endless(OK + b"\r\n[", b" " * 4096),
    "an endless body in chunks": endless(CHUNKED, b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "a chunk of -1 bytes": endless(CHUNKED + b"-1\r\n", b" " * 4096),
    "a chunk of 2**80 bytes": endless(CHUNKED + b"1" + b"0" * 20 + b"\r\n", b" " * 4096),
    "length -1": says(OK + b"Content-Length: -1\r\n\r\n[]"),
    "length NaN": says(OK + b"Content-Length: NaN\r\n\r\n[]"),
    "length 1e3": says(OK + b"Content-Length: 1e3\r\n\r\n[]"),
    "length 0x2": says(OK + b"Content-Length: 0x2\r\n\r\n[]"),
    "length 1_0": says(OK + b"Content-Length: 1_0\r\n\r\n[]"),
    "length ²": says(OK + "Content-Length: ²\r\n\r\n[]".encode("latin-1")),
    "length of 5000 digits": says(OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n[]"),
    "two lengths": says(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n[]"),
    "packed on the way": says(OK + b"Transfer-Encoding: gzip\r\n\r\n" + BOMB),
    "a redirect to itself": leads("/again"),
    "a redirect without a target": leads(""),
    "a redirect to a file": leads("file:///etc/passwd"),
    "a redirect to ftp": leads("ftp://127.0.0.1/x"),
    "a redirect to data": leads("data:application/json,[]"),
    "a redirect to gopher": leads("gopher://127.0.0.1:70/1"),
    "a redirect to javascript": leads("javascript:alert(1)"),
    "a redirect to http elsewhere": leads("http://192.0.2.1/x"),
    "a redirect to the cloud's metadata": leads("http://169.254.169.254/latest/meta-data/"),
    "a redirect to this machine, spelt oddly": leads("http://0x7f.1:9/"),
    "a redirect without a scheme": leads("//192.0.2.1/x", "301 Moved"),
    "a redirect with a password": leads("http://me:secret@127.0.0.1:9/x", "307 Temporary"),
    "a redirect to a malformed host": leads("http://[::1/x", "308 Permanent"),
    "a redirect to a malformed port": leads("http://127.0.0.1:99999/x"),
    "a redirect with a backslash": leads("http://127.0.0.1:9\\@192.0.2.1/x"),
    "a redirect of bytes": leads("http://\xe9\xff/x"),
    "status 304": http(b"", "304 Not Modified"),
    "status 299": http(b"[]", "299 Odd"),
}
#: No document; a file may be anything.
NO_DOCUMENT: dict[str, Speech] = {
    "empty": http(b""),
    "HTML": http(b"<!DOCTYPE html><html><body>Log in</body></html>"),
    "half of JSON": http(b'[{"a": '),
    "bytes": http(bytes(range(256))),
    "UTF-16": http("[]".encode("utf-16")),
    "another charset": http('["ü"]'.encode("latin-1"), kind="application/json; charset=latin-1"),
    "nested 100000 times": http(b"[" * 30_000 + b"]" * 30_000),
    "nested 500 times": http(b"[" * 500 + b"]" * 500),
    "nested objects": http(b'{"a":' * 500 + b"1" + b"}" * 500),
    "a number of 5000 digits": http(b"[" + b"9" * 5000 + b"]"),
    "not a number": http(b"[NaN]"),
    "infinity": http(b"[-Infinity]"),
    "null": http(b"null"),
    "a number": http(b"7"),
    "text": http(b'"[]"'),
    "a list of null": http(b"[null]"),
    "a list of lists": http(b"[[]]"),
    "a list of numbers": http(b"[1, 2]"),
    "two documents": http(b"[] []"),
    "packed": says(OK + b"Content-Encoding: gzip\r\n\r\n" + BOMB),
    "packed twice": says(OK + b"Content-Encoding: gzip, gzip\r\n\r\n" + gzip.compress(BOMB)),
    "nothing to say": http(b"", "204 No Content"),
    "a part": http(b"[]", "206 Partial Content", "Content-Range: bytes 0-1/99999999999999999999"),
}
ALL = {**PASSING, **GARBAGE, **NO_DOCUMENT}
DOCUMENTS = ("releases", "pulls", "issues", "open issue", "notify", "index")
FILES = ("file", "archive", "wheel", "metadata")


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch)


def refusal(client: str, speech: Speech, monkeypatch: pytest.MonkeyPatch) -> PatchforgeError:
    begun = time.monotonic()
    with serving(speech) as server, pytest.raises(PatchforgeError) as caught:
        CLIENTS[client](server.url, monkeypatch)
    assert time.monotonic() - begun < LONGEST
    assert "\n" not in caught.value.problem
    assert len(str(caught.value)) < 1500
    return caught.value


@pytest.mark.parametrize("answer", PASSING)
@pytest.mark.parametrize("client", ["releases", "open issue", "notify", "index", "file", "metadata"])
def test_what_passes(client: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, SHORT)
    assert refusal(client, PASSING[answer], monkeypatch).status == Exit.AGAIN


@pytest.mark.parametrize("answer", GARBAGE)
@pytest.mark.parametrize("client", ["releases", "edit pull", "notify", "index", "file", "wheel", "archive"])
def test_what_cannot_be_right(client: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(refusal(client, GARBAGE[answer], monkeypatch), Damaged)


@pytest.mark.parametrize("answer", NO_DOCUMENT)
@pytest.mark.parametrize("client", [*DOCUMENTS, "comments"])
def test_what_is_no_document(client: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(refusal(client, NO_DOCUMENT[answer], monkeypatch), Damaged)


@pytest.mark.parametrize("answer", NO_DOCUMENT)
@pytest.mark.parametrize("client", ["archive", "wheel", "metadata"])
def test_what_is_no_archive(client: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal(client, NO_DOCUMENT[answer], monkeypatch)


@pytest.mark.parametrize("answer", ALL)
def test_the_server_of_a_trial(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, SHORT)
    begun = time.monotonic()
    with serving(ALL[answer]) as server:
        client = trial(server.url)
        try:
            client.system_stats()
        except OSError as error:
            assert len(str(error)) < 1500  # noqa: PT017 - a number is an answer, too
        else:
            pytest.fail("an answer was taken")
        assert client.run({"1": {"class_type": "x", "inputs": {}}}, 1).ending in Ending
    assert time.monotonic() - begun < LONGEST


@pytest.mark.parametrize("client", ["releases", "open issue", "notify", "index", "file", "metadata", "archive"])
def test_a_name_that_is_never_resolved(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver cannot be stopped; it is left behind, and the host is not waited for twice."""
    limited(monkeypatch, SHORT)
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: never.wait(20))
    begun = time.monotonic()
    for _ in range(3):
        with pytest.raises(TryAgain):
            CLIENTS[client]("https://name.example", monkeypatch)
    never.set()
    assert time.monotonic() - begun < SECONDS


def test_a_name_of_many_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that refuses is passed over; those that are silent share one time."""
    real, asked = socket.getaddrinfo, []

    def addresses(host: str, port: int, *rest: Any) -> list[Any]:
        asked.append(host)
        (answer,) = real("127.0.0.1", port, *rest)
        closed = (*answer[:4], ("127.0.0.1", 1))
        return [closed, closed, answer]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    with serving(answers([])) as server:
        assert CLIENTS["releases"](server.url.replace("127.0.0.1", "localhost"), monkeypatch) == []
    assert asked == ["localhost"]


def test_a_host_that_was_silent_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 1.0)
    with serving(silent) as server:
        begun = time.monotonic()
        for _ in range(20):
            with pytest.raises(TryAgain):
                CLIENTS["index"](server.url, monkeypatch)
        assert time.monotonic() - begun < SECONDS
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 402, 404, 410, 418, 451])
def test_refusals(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for body in (b"", b"<html>", b'{"message": []}', b"[1]", b'{"message": "no"}'):
        for client in ("releases", "notify", "file"):
            error = refusal(client, http(body, f"{status} No"), monkeypatch)
            assert str(status) in str(error)
            assert error.status == Exit.USAGE


def test_an_index_does_not_have_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(http(b"<html>", "404 Not Found")) as server:
        assert CLIENTS["index"](server.url, monkeypatch) == []


def test_good_answers_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clients, limits and server; else the tests above would hold for clients that take nothing."""
    for client in ("releases", "pulls", "issues"):
        with serving(answers([])) as server:
            assert CLIENTS[client](server.url, monkeypatch) == []
    with serving(answers({"files": []})) as server:
        assert CLIENTS["index"](server.url, monkeypatch) == []
    with serving(says(CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")) as server:
        assert str(CLIENTS["file"](server.url, monkeypatch)).startswith("sha256-")
    with serving(answers({"system": 1})) as server:
        assert trial(server.url).system_stats() == {"system": 1}
