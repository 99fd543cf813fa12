"""Node packs: which branches have moved on from their pins, and why a commit is not taken."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from patchforge.errors import Damaged, PatchforgeError, TryAgain
from patchforge.git.borrowed import source_of
from patchforge.git.command import git, run_git
from patchforge.git.objects import commit_date
from patchforge.pins import pin_files
from patchforge.pins.pin_files import RepositoryPin
from patchforge.pins.tracked import TrackedRepository, load_nodes

_AT_ONCE = 8  #: packs that are asked for at the same time


class FollowState(StrEnum):
    """Where a pack's branch is, seen from its pin."""

    PINNED = "pinned"  #: its head is the pin
    NEW = "new"  #: it has moved on, and ``commit`` is to be taken
    WAITS = "waits"  #: it has moved on, and nothing newer than the pin is old enough
    WRONG = "wrong"  #: a person must look
    AGAIN = "again"  #: it did not answer, and may do so later


@dataclass(frozen=True, slots=True)
class Followed:
    """A node pack's branch. ``why``: what a state other than PINNED and NEW is about."""

    name: str
    follows: str  #: a branch, or a tag
    pinned: str  #: "" when it is not pinned yet
    state: FollowState
    head: str = ""  #: "" when it could not be asked
    commit: str = ""  #: the one to take, when it is new
    date: str = ""  #: of ``commit``, or else of the head, ISO 8601; "" where it does not matter
    why: str = ""

    def as_data(self) -> dict[str, Any]:
        names = ("name", "follows", "pinned", "state", "head", "commit", "date", "why")
        return {name: str(getattr(self, name)) for name in names}


def follow(upstream: Path, names: Sequence[str] = (), now: datetime | None = None) -> Iterator[Followed]:
    """The packs declared in ``upstream/nodes`` (all, or ``names``) against their pins.

    One that does not answer leaves the others alone. PatchforgeError for a name that is not declared.
    """
    pins, packs = pin_files.load("nodes", upstream / "pins"), {pack.name: pack for pack in load_nodes(upstream)}
    if unknown := sorted(set(names) - packs.keys()):
        raise PatchforgeError(
            f"no node pack is called {', '.join(unknown)}", expected=", ".join(packs) or "none", do="name one of these"
        )

    def look(pack: TrackedRepository) -> Followed:
        return _followed(pack, pins.get(pack.name), now or datetime.now(UTC))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(look, [pack for pack in packs.values() if not names or pack.name in names])


def _followed(pack: TrackedRepository, pin: RepositoryPin | None, now: datetime) -> Followed:
    follows = pack.branch or f"v{pack.version}"
    asked = Followed(pack.name, follows, pin.rev if pin else "", FollowState.WRONG)
    try:
        head = _head(pack)
        if head and head == asked.pinned:
            return replace(asked, state=FollowState.PINNED, head=head)
        if not head:
            return replace(asked, why=f"{pack.url} has no {'branch' if pack.branch else 'tag'} {follows}")
        if pack.branch:
            return _newer(pack, asked, now)
    except Damaged as error:
        return replace(asked, why=f"{pack.url}: {error.problem}")
    except PatchforgeError as error:
        state = FollowState.AGAIN if isinstance(error, TryAgain) else FollowState.WRONG
        return replace(asked, state=state, why=f"{pack.url} does not answer: {error.found or error.problem}")
    if pin and asked.pinned and pin.tag in ("", follows):
        return replace(asked, head=head, why=f"the tag was moved: it was {asked.pinned} and is {head}")
    return replace(asked, state=FollowState.NEW, head=head, commit=head)


def _head(pack: TrackedRepository) -> str:
    """The commit that is followed; of an annotated tag the line with ^{} comes last."""
    name = f"refs/heads/{pack.branch}" if pack.branch else f"refs/tags/v{pack.version}"
    with source_of(pack.url) as source:
        lines = run_git("ls-remote", "--", source, name, name + "^{}", tries=3).split("\n")
    commits = {ref: commit for commit, _, ref in (line.partition("\t") for line in lines)}
    return commits.get(name + "^{}", commits.get(name, ""))


def _newer(pack: TrackedRepository, asked: Followed, now: datetime) -> Followed:
    """Looks at the branch's commits, which are fetched without files into a temporary folder.

    Taken is the newest one that is old enough, so that a branch with a commit a day is not passed over for ever.
    """
    with tempfile.TemporaryDirectory(prefix="patchforge-track-") as name:
        folder = Path(name)
        run_git("init", "--quiet", "--bare", ".", folder=folder)
        with source_of(pack.url) as source:
            what = ("--", source, f"+refs/heads/{pack.branch}:refs/heads/followed")
            run_git("fetch", "--no-tags", "--filter=tree:0", *what, folder=folder, tries=3)
        head = _ask(folder, "rev-parse", "refs/heads/followed")
        asked = replace(asked, head=head, date=_date(folder, head))
        if asked.pinned and not _leads_to(folder, asked.pinned, head):
            why = f"the branch was rewritten, or is another one than before: it lacks the pinned {asked.pinned}"
            return replace(asked, why=why)
        limit = (
            ["--min-age", str(int((now - timedelta(days=pack.branch_days)).timestamp()))] if pack.branch_days else []
        )
        commit = _ask(folder, "rev-list", "--first-parent", "--max-count=1", *limit, head)
        if commit not in {"", asked.pinned} and (not asked.pinned or _leads_to(folder, asked.pinned, commit)):
            return replace(asked, state=FollowState.NEW, commit=commit, date=_date(folder, commit))
        return replace(asked, state=FollowState.WAITS, why=_young(pack.branch_days, asked.date, now))


def _ask(folder: Path, *arguments: str) -> str:
    return run_git(*arguments, folder=folder).strip()


def _date(folder: Path, commit: str) -> str:
    """When a commit was made, ISO 8601; Damaged when it does not say."""
    commit_date(commit, run_git("cat-file", "commit", commit, folder=folder).encode("utf-8", "surrogateescape"))
    return _ask(folder, "log", "--max-count=1", "--format=%cI", commit)


def _leads_to(folder: Path, older: str, newer: str) -> bool:
    """Whether ``newer`` descends from ``older``; False when ``older`` is not there."""
    return not git("merge-base", "--is-ancestor", older, newer, folder=folder).returncode


def _young(days: float, date: str, now: datetime) -> str:
    age = now - datetime.fromisoformat(date)
    return f"made {age.total_seconds() / 86400:.1f} days ago; it is taken after {days:g}"
