"""Every client that we have, as one call each, with limits that a test can wait for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from patchforge import web
from patchforge.bot.forge import Forge, Patience
from patchforge.bot.notify import Api, notify
from patchforge.bot.token import Token
from patchforge.hashes.pypi import downloaded_hash, listed_files
from patchforge.pins import confirm
from patchforge.pins.pin_files import SourcePin
from patchforge.pins.requirements import parse
from patchforge.pins.wheels import Wheel, requires
from patchforge.trial.server.client import Client

TOKEN = "ghp_SeCrEt+token/of=tests"
REPOSITORY = "someone/patchforge"
SECONDS = 5.0  #: for answers that come at once, on a machine that is busy
SHORT = 0.3  #: for those that never come
SIZE = 1 << 16


def limited(monkeypatch: pytest.MonkeyPatch, seconds: float = SECONDS) -> None:
    """Small limits for all clients that are called after this, and no memory of ports that were used before."""
    monkeypatch.setattr(web, "_SLOW", set())
    monkeypatch.setattr(sys.modules[__name__], "SECONDS", seconds)
    monkeypatch.setattr(web, "DOCUMENT", web.Limits(SIZE, seconds))
    monkeypatch.setattr(web, "FILE", web.Limits(SIZE, seconds, pace=1 << 20))
    monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)


def forge(url: str, token: str = TOKEN, tries: int = 1) -> Forge:
    patience = Patience(tries=tries, first=0.01, longest=SECONDS, timeout=SECONDS, between_requests=0, between_writes=0)
    return Forge(Token(token), api=url, patience=patience)


def _wheel(url: str, *, metadata: bool) -> Wheel:
    from packaging.tags import Tag
    from packaging.version import Version

    file = "kit-1.0-py3-none-any.whl"
    return Wheel("kit", Version("1.0"), Tag("py3", "none", "any"), 0, file, f"{url}/{file}", "", False, metadata)


def _notified(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GITHUB_API_URL", url)
    return notify(Api(Token(TOKEN), web.Limits(SIZE, SECONDS)), ["failure"])


def _archive(url: str, _: pytest.MonkeyPatch) -> Any:
    return confirm._archive_hash(SourcePin(owner="o", repo="r", rev="1" * 40), url)


CLIENTS: dict[str, Callable[[str, pytest.MonkeyPatch], Any]] = {
    "releases": lambda url, _: forge(url).releases("a/b"),
    "pulls": lambda url, _: forge(url).open_pulls("a/b"),
    "issues": lambda url, _: forge(url).issues("a/b"),
    "comments": lambda url, _: forge(url).has_comment("a/b", 1, {"x": 1}),
    "open issue": lambda url, _: forge(url).open_issue("a/b", "title", "body"),
    "edit pull": lambda url, _: forge(url).edit_pull("a/b", 1, body="x"),
    "notify": _notified,
    "index": lambda url, _: listed_files(f"{url}/simple", "kit"),
    "file": lambda url, _: downloaded_hash(f"{url}/kit-1.0.zip"),
    "metadata": lambda url, _: requires(_wheel(url, metadata=True)),
    "wheel": lambda url, _: requires(_wheel(url, metadata=False)),
    "archive": _archive,
}
WITH_TOKEN = ("releases", "pulls", "issues", "comments", "open issue", "edit pull", "notify")
parse("kit")


def trial(url: str) -> Client:
    client = Client(int(url.rpartition(":")[2]), timeout=SECONDS)
    client._limits = web.Limits(SIZE, SECONDS, redirects=0)
    return client
