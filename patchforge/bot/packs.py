"""Node packs: which branches have moved on from their pins, and why a new commit is passed over."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from patchforge.bot.repository import run_git
from patchforge.errors import PatchforgeError, TryAgain
from patchforge.pins import store
from patchforge.pins.tracked import Repository, load_nodes
from patchforge.sources.clone import CachedClone

#: Reading a clone fetches nothing (patchforge/sources/git.py says why both).
_OFFLINE = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}


@dataclass(frozen=True, slots=True)
class Followed:
    """A node pack's branch. ``why``: what keeps its head from being taken, "" when it is new or pinned already."""

    name: str
    follows: str  #: a branch, or a tag
    pinned: str  #: "" when it is not pinned yet
    head: str = ""  #: "" when it could not be asked
    date: str = ""  #: of the head's commit, ISO 8601; "" when it was not needed or could not be had
    why: str = ""
    again: bool = False  #: asking later may help

    @property
    def is_new(self) -> bool:
        return bool(self.head) and self.head != self.pinned and not self.why

    def as_data(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in ("name", "follows", "pinned", "head", "date", "why")}
        return {**shown, "new": self.is_new}


def follow(upstream: Path, now: datetime | None = None) -> Iterator[Followed]:
    """Each pack declared in ``upstream/nodes`` against its pin. One that does not answer leaves the others alone."""
    pins = store.load("nodes", upstream / "pins")
    for one in load_nodes(upstream):
        pinned = pins.get(one.name, {}).get("rev", "")
        follows = one.branch or f"v{one.version}"
        try:
            yield _followed(one, follows, pinned, now or datetime.now(UTC))
        except PatchforgeError as error:
            why = f"{one.url} does not answer: {error.found or error.problem}"
            yield Followed(one.name, follows, pinned, why=why, again=isinstance(error, TryAgain))


def _followed(one: Repository, follows: str, pinned: str, now: datetime) -> Followed:
    head = _head(one)
    if not head:
        kind = "branch" if one.branch else "tag"
        return Followed(one.name, follows, pinned, why=f"{one.url} has no {kind} {follows}")
    if head == pinned:
        return Followed(one.name, follows, pinned, head)
    if one.version:
        why = f"the tag was moved: it was {pinned} and is {head}" if pinned else ""
        return Followed(one.name, follows, pinned, head, why=why)
    clone = CachedClone.of(one.url).path
    date = _date(clone, head) if clone.is_dir() else ""
    if date and _date(clone, pinned) and not _is_ancestor(clone, pinned, head):
        return Followed(one.name, follows, pinned, head, date, f"the branch was rewritten: it lacks {pinned}")
    if not date and one.branch_days:
        date = _fetched_date(one, head)
    return Followed(one.name, follows, pinned, head, date, _wait(one.branch_days, date, now))


def _head(one: Repository) -> str:
    """The commit that is followed; of an annotated tag the line with ^{} comes last."""
    name = f"refs/heads/{one.branch}" if one.branch else f"refs/tags/v{one.version}"
    lines = run_git("ls-remote", "--", one.url, name, name + "^{}", tries=3).splitlines()
    return lines[-1].partition("\t")[0] if lines else ""


def _date(folder: Path, commit: str) -> str:
    """When a commit was made; "" when the clone lacks it."""
    try:
        return run_git(
            "show", "-s", "--format=%cI", f"{commit}^{{commit}}", folder=folder, environment=_OFFLINE
        ).strip()
    except PatchforgeError:
        return ""


def _fetched_date(one: Repository, head: str) -> str:
    """The same, from the remote: the one commit without its files, fetched into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="patchforge-track-") as name:
        folder = Path(name)
        run_git("init", "--quiet", "--bare", ".", folder=folder)
        what = ("--", one.url, f"refs/heads/{one.branch}")
        run_git("fetch", "--quiet", "--no-tags", "--depth=1", "--filter=tree:0", *what, folder=folder, tries=3)
        return _date(folder, head)


def _is_ancestor(folder: Path, older: str, newer: str) -> bool:
    return not run_git("rev-list", "--max-count=1", older, f"^{newer}", folder=folder, environment=_OFFLINE)


def _wait(days: float, date: str, now: datetime) -> str:
    if not days:
        return ""
    if not date:
        return f"its age is not known, and it is taken after {days:g} days"
    age = now - datetime.fromisoformat(date)
    if age >= timedelta(days=days):
        return ""
    return f"made {age.total_seconds() / 86400:.1f} days ago; it is taken after {days:g}"
