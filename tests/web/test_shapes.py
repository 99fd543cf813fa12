"""Answers that are JSON and not what they should be: every field of every endpoint, and every number in a header."""

from __future__ import annotations

import ast
import email.utils
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from patchforge import web
from patchforge.bot.discovery import discover
from patchforge.bot.forge import Forge
from patchforge.errors import Damaged, PatchforgeError, TryAgain
from patchforge.hashes.pypi import listed_files, package_files
from patchforge.pins.requirements import holding
from patchforge.pins.requirements import parse as requirement
from patchforge.pins.wheels import Wheels, requires
from patchforge.project import load_project
from patchforge.trial.model import Ending
from patchforge.vocabulary import Version
from tests.web import clients
from tests.web.clients import CLIENTS, forge, limited, trial
from tests.web.hostile import Hostile, answers, http, serving

ROOT = Path(__file__).parents[2]
ODD: list[Any] = [None, True, 7, -1, 10**400, 1e308, "", "x" * 40_000, "a\x1b[31m\n::error::b", "\ud800", [], [[1]], {}]
RELEASE = {"tag_name": "v1.0.0", "name": "n", "body": "b", "draft": False, "prerelease": False,
           "published_at": "2026-01-01T00:00:00Z"}  # fmt: skip
PULL = {"id": 1, "number": 1, "state": "open", "title": "t", "body": "b", "merged_at": None,
        "head": {"ref": "x", "repo": {"full_name": "a/b"}}}  # fmt: skip
ISSUE = {"id": 1, "number": 1, "state": "open", "title": "t", "body": "b"}
FILE = {"filename": "kit-1.0.zip", "url": "kit-1.0.zip", "hashes": {"sha256": "1" * 64}, "yanked": False}


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch)


@pytest.fixture
def server() -> Iterator[Hostile]:
    with serving(answers([])) as served:
        yield served


def variants(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row with each field missing, and with each odd value in its place."""
    for key in row:
        yield {name: value for name, value in row.items() if name != key}
        yield from ({**row, key: value} for value in ODD)


def data_of(value: object) -> bytes:
    return json.dumps(value).encode()


def taken(server: Hostile, value: object, client: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a client makes of an answer: a value, or the error that it may end with."""
    server.speech = http(data_of(value))
    try:
        return CLIENTS[client](server.url, monkeypatch)
    except PatchforgeError as error:
        assert "\n" not in error.problem  # noqa: PT017
        return error


def test_releases(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """One odd row stops no other, is said, and its text goes nowhere."""
    project = load_project()
    for odd in variants(RELEASE):
        releases = taken(server, [odd, {**RELEASE, "tag_name": "v2.0.0"}], "releases", monkeypatch)
        assert [release.tag for release in releases][-1] == "v2.0.0"
        for release in releases:
            assert len(release.tag) <= 200
            assert release.tag.isprintable()
            assert not release.odd or (release.title, release.notes) == ("", "")
        tags = {release.tag: "1" * 40 for release in releases}
        told = discover(
            project, tags, releases, known={}, ours=[Version.parse("v0.1")], age=lambda _: timedelta(days=9)
        )
        assert {candidate.tag for candidate in told.new} >= {"v2.0.0"}
        names = {release.tag for release in releases if release.odd}
        assert names <= {passed_over.tag for passed_over in told.passed}


@pytest.mark.parametrize(
    "stamp",
    [
        "",
        "yesterday",
        "0001-01-01",
        "9999-12-31T23:59:59+00:00",
        "2026-13-01",
        "\u0662026-01-01",
        "1e9",
        "NaN",
        5,
        10**30,
        None,
    ],
)
def test_a_release_without_a_date_does_not_pass_for_an_old_one(stamp: object, server: Hostile) -> None:
    server.speech = answers([{**RELEASE, "published_at": stamp, "created_at": stamp}])
    (release,) = forge(server.url).releases("a/b")
    told = discover(
        load_project(),
        {"v1.0.0": "1" * 40},
        [release],
        known={},
        ours=[Version.parse("v0.1")],
        age=lambda _: timedelta(9),
    )
    assert [(passed_over.tag, passed_over.why) for passed_over in told.passed] == [
        ("v1.0.0", "GitHub does not say when it was published")
    ]
    assert told.new == ()


@pytest.mark.parametrize(("client", "row"), [("pulls", PULL), ("issues", ISSUE), ("comments", {"id": 1, "body": "b"})])
def test_pulls_issues_and_comments(
    client: str, row: dict[str, Any], server: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for odd in variants(row):
        rows = taken(server, [odd], client, monkeypatch)
        if isinstance(rows, PatchforgeError):
            assert isinstance(rows, Damaged)
        elif client != "comments":
            for entry in rows:
                assert (type(entry.number), type(entry.body), type(entry.title), type(entry.state)) == (
                    int,
                    str,
                    str,
                    str,
                )


@pytest.mark.parametrize(("client", "row"), [("open issue", ISSUE), ("edit pull", PULL)])
def test_what_was_written(client: str, row: dict[str, Any], server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    for odd in variants(row):
        written = taken(server, odd, client, monkeypatch)
        assert not isinstance(written, PatchforgeError) or isinstance(written, Damaged)


@pytest.mark.parametrize("head", [*ODD, {"ref": 1}, {"ref": "x", "repo": []}, {"ref": "x", "repo": {"full_name": 3}}])
def test_heads(head: object, server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    pulls = taken(server, [{**PULL, "head": head}], "pulls", monkeypatch)
    assert pulls == [] or isinstance(pulls, Damaged)


def test_the_notice(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    said = '<!-- patchforge: {"about": "failed twice", "project": "update"} -->'
    rows = [{**ISSUE, "number": value, "body": said} for value in ODD] + [{**ISSUE, "body": value} for value in ODD]
    for row in [*rows, *ODD]:
        outcome = taken(server, [row], "notify", monkeypatch)
        assert isinstance(outcome, Damaged | str)
        assert "\x1b" not in str(outcome)
    assert len([request for request in server.asked if request.startswith("POST")]) == 0


@pytest.mark.parametrize(
    "address", ["https://evil.example/x", "javascript:alert(1)", 5, None, "a\n::error::b", "x" * 9999]
)
def test_the_address_of_a_log(address: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchforge.bot import notify

    monkeypatch.setenv("GITHUB_REPOSITORY", "a/b")
    assert notify._log(address) == "one that GitHub does not name"
    assert notify._log("https://github.com/a/b/actions/runs/7") == "https://github.com/a/b/actions/runs/7"


def test_files_of_an_index(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    for odd in variants(FILE):
        server.speech = http(data_of({"files": [odd]}))
        try:
            files = package_files("kit", "1.0", [server.url])
        except PatchforgeError as error:
            assert "\x1b" not in str(error)  # noqa: PT017
        else:
            assert [file.file for file in files] == ["kit-1.0.zip"]


@pytest.mark.parametrize(
    "page", [*ODD, {"files": None}, {"files": 7}, {"files": "x"}, {"files": {"a": 1}}, {"files": [None]}]
)
def test_pages_of_an_index(page: object, server: Hostile) -> None:
    server.speech = http(data_of(page))
    with pytest.raises(Damaged, match="not a page"):
        listed_files(server.url, "kit")


@pytest.mark.parametrize("sign", ["<!", "<a ", "<!--", "<a href='", "<![", "<?", "<a x=<", "&#", "<a/", "</a "])
def test_html_that_takes_long(sign: str, server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "DOCUMENT", web.Limits(8 << 20, 30.0))
    for text in (sign * (2_000_000 // len(sign)), f"{sign * 1000}>" * 400):
        server.speech = http(text.encode(), kind="text/html")
        begun = time.monotonic()
        try:
            assert listed_files(server.url, "kit") == []
        except PatchforgeError as error:
            assert "not a page" in error.problem  # noqa: PT017
        assert time.monotonic() - begun < 10


def test_wheels_that_stand_for_very_many(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "DOCUMENT", web.Limits(1 << 20, 30.0))
    many = ".".join("ab" for _ in range(25))
    files = [{**FILE, "filename": f"k-1.{number}-{many}-{many}-{many}.whl"} for number in range(200)]
    server.speech = http(data_of({"files": files}))
    assert Wheels([server.url], "3.12").best(requirement("k")) is None


@pytest.mark.parametrize(
    "text",
    [
        "a; " + "(" * 20_000,
        "a[" + "b," * 9000,
        "a @ ",
        "a; x == 'y'",
        "a; python_version ~= 'x'",
        "a==" + "9" * 5000,
        "\0",
    ],
)
def test_what_a_wheel_requires(text: str) -> None:
    try:
        holding([text], "3.12")
    except PatchforgeError as error:
        assert len(str(error)) < 1500  # noqa: PT017


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"Name: kit\n" * 5000, b"Version: 2.0\n", b"Version: 1.0\nRequires-Dist: \x1b[31m\n"]
)
def test_metadata(data: bytes, server: Hostile) -> None:
    server.speech = http(data, kind="text/plain")
    try:
        holding(requires(clients._wheel(server.url, metadata=True)), "3.12")
    except PatchforgeError as error:
        assert "\x1b" not in str(error)  # noqa: PT017


TOLD = [
    *ODD,
    {"1": 2},
    {"a": {"b": [1]}},
    [{"a": 1}],
    [["x", 1]],
    [["execution_error", {"traceback": "x", "node_id": []}]],
]


@pytest.mark.parametrize("value", TOLD, ids=lambda value: repr(value)[:20])
def test_the_server_of_a_trial(value: object, server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever history, journal and rejections are: an ending, not an exception."""
    limited(monkeypatch, 2.0)
    monkeypatch.setattr("patchforge.trial.server.client._SETTLE", 0.05)
    monkeypatch.setattr("patchforge.trial.server.client._LOOK_EVERY", 0.05)
    for key in ("status", "outputs", "prompt", "events", "threads", "prompt_id", "node_errors", "error", "x"):
        for told in ({key: value}, {"x": {key: value, "status": {"messages": value, "status_str": value}}}):
            server.speech = answers(told)
            assert trial(server.url).wait("x", 0.05).ending in Ending
            server.speech = http(data_of(told), "400 Bad")
            client = trial(server.url)
            try:
                client.submit({})
            except (ValueError, OSError) as rejected:
                assert len(str(rejected)) < 100_000  # noqa: PT017
            with pytest.raises(OSError):
                client.history("x")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("7", 7.0), (" 7 ", 7.0), ("9" * 30, 366 * 86400.0), ("9" * 3000, 366 * 86400.0), ("", None),
        ("-1", None), ("+1", None), ("1.5", None), ("1e3", None), ("NaN", None), ("inf", None), ("\u0663", None),
        ("²", None), ("0x10", None), ("1_0", None), ("7;8", None), ("soon", None), ("None", None),
        ("Mon, 99 Foo 2026 00:00:00 GMT", None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 366 * 86400.0), ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)  # fmt: skip
def test_retry_after(text: str, seconds: float | None) -> None:
    assert web.seconds_until(text) == seconds


def test_retry_after_as_a_date() -> None:
    when = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (web.seconds_until(when) or 0) <= 100


@pytest.mark.parametrize(
    "text", ["", "-1", "1.0", "1e3", "NaN", "\u0663", "²", "1_0", "9" * 19, "0x1", "1 2", None, "1\n"]
)
def test_what_is_no_whole_number(text: object) -> None:
    assert web.whole_number(text) is None


NUMBERS = [
    "",
    "0",
    "-1",
    "NaN",
    "inf",
    "1e400",
    "9" * 18,
    "9" * 400,
    "²",
    "1.5",
    "soon",
    "Fri, 31 Dec 9999 23:59:59 GMT",
]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("header", ["Retry-After", "X-RateLimit-Reset"])
def test_a_limit_with_an_odd_end(header: str, number: str, server: Hostile) -> None:
    """It is waited for within patience, or left to the next run; never an error of numbers, never a long sleep."""
    for status in ("429 Slow", "403 Limited"):
        lines = (f"{header}: {number}", "X-RateLimit-Remaining: 0", "X-RateLimit-Limit: x")
        server.speech = http(b'{"message": "API rate limit exceeded"}', status, *lines)
        begun = time.monotonic()
        with pytest.raises(TryAgain):
            forge(server.url, tries=2).releases("a/b")
        assert time.monotonic() - begun < 5


def test_pages_without_an_end(server: Hostile) -> None:
    server.speech = answers([], f'Link: <{server.url}/more>; rel="next"')
    with pytest.raises(PatchforgeError, match="more than 20 pages"):
        forge(server.url).releases("a/b")


def test_nothing_is_guarded_by_an_assert() -> None:
    """``python -O`` leaves them out."""
    for folder in ("patchforge", "transforms", "templates"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = [node.lineno for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Assert)]
            assert not lines, f"{path}: {lines}"


def test_without_a_forge_nothing_is_written() -> None:
    from patchforge.bot.model import Action, GitHubWrite
    from patchforge.bot.run import BotRun, BotSettings

    run = BotRun(BotSettings("a/b", "."), None, None)  # type: ignore[arg-type]
    with pytest.raises(PatchforgeError, match="dry run writes nothing"):
        run._one(Action(GitHubWrite.CLOSE_ISSUE, "x", number=1), 0)
    run = BotRun(BotSettings("a/b", ".", dry_run=True), None, object.__new__(Forge))  # type: ignore[arg-type]
    with pytest.raises(PatchforgeError, match="dry run writes nothing"):
        run._open(Action(GitHubWrite.OPEN, "x"))
