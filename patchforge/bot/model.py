"""What the bot knows of upstream and of GitHub, and what it wants done there, as types."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from patchforge.vocabulary import Version

#: A marker is the last line of what the bot writes, so text of others above it cannot pass for one.
_MARKER = re.compile(r"<!-- patchforge: (\{[^\n]*\}) -->\s*\Z")


@dataclass(frozen=True, slots=True)
class GitHubRelease:
    """A release of GitHub's. ``title`` and ``notes`` are a stranger's text."""

    tag: str
    title: str
    notes: str
    prerelease: bool
    published: datetime
    odd: str = ""  #: what is wrong with GitHub's answer about it; it is then passed over


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version of upstream's; ``release`` is None for a tag alone."""

    version: Version
    tag: str
    commit: str
    release: GitHubRelease | None = None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A tag or release that is not taken, and why. ``moved``: its tag names another commit than before."""

    tag: str
    why: str
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Pull:
    """A pull request from a branch of our own repository."""

    number: int
    branch: str
    state: str  #: open or closed
    merged: bool
    title: str
    body: str

    @property
    def marker(self) -> dict[str, Any]:
        return read_marker(self.body)


@dataclass(frozen=True, slots=True)
class Issue:
    number: int
    state: str
    title: str
    body: str

    @property
    def marker(self) -> dict[str, Any]:
        return read_marker(self.body)


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch of the bot's on the remote."""

    name: str
    tip: str
    change: str  #: digest of what it changes, seen from where it left the base branch
    foreign: str  #: who else committed to it, or ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a pull request should be."""

    name: str  #: the version, or the node pack
    branch: str
    commit: str  #: of ours, ready to be pushed
    change: str  #: digest of all that it changes, which depends on the base branch
    offer: str  #: digest of upstream's commit and the patches: what a person accepts or declines
    title: str
    body: str  #: with its marker
    draft: bool = False


@dataclass(frozen=True, slots=True)
class Reported:
    """What a person must look at; filed as one issue. ``about`` and ``key`` say which."""

    about: str  #: drift, proof, moved or pin
    name: str  #: the version, "tags" for all that moved, or the node pack
    title: str
    body: str  #: with its marker


class GitHubWrite(StrEnum):
    """What the bot can do on GitHub. All writes are here."""

    PUSH = "push"
    OPEN = "open pull request"
    EDIT = "edit pull request"
    COMMENT = "comment"
    CLOSE = "close pull request"
    DELETE = "delete branch"
    FILE = "open issue"
    EDIT_ISSUE = "edit issue"
    CLOSE_ISSUE = "close issue"


@dataclass(frozen=True, slots=True)
class Action:
    """One write. ``text`` is a comment in which ``{new}`` stands for the new pull request's number."""

    kind: GitHubWrite
    why: str
    branch: str = ""
    number: int = 0
    title: str = ""
    body: str = ""
    text: str = ""
    commit: str = ""  #: to push
    expected: str = ""  #: where the branch must be, "" for nowhere
    draft: bool = False

    def as_data(self) -> dict[str, Any]:
        names = ("branch", "number", "title", "text", "commit", "expected", "draft")
        told = {name: value for name in names if (value := getattr(self, name))}
        return {"do": self.kind.value, "why": self.why, **told}


_GREATER = "\\u003e"  #: so that no text ends the comment


def read_marker(body: str) -> dict[str, Any]:
    """What a body of the bot's says of itself; empty for anybody else's."""
    match = _MARKER.search(body or "")
    try:
        document = json.loads(match[1]) if match else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def with_marker(text: str, /, **said: Any) -> str:
    """``text`` with its marker as the last line, in place of one that it had."""
    plain = _MARKER.sub("", text).rstrip()
    return f"{plain}\n\n<!-- patchforge: {json.dumps(said, sort_keys=True).replace('>', _GREATER)} -->\n"
