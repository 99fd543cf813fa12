"""Which versions upstream has that we do not, and why each other one is passed over.

Tags come from ``git ls-remote`` (no token, no limit), releases from GitHub's API. The two disagree: ComfyUI has tags
that never became a release (its issues 10968 and 15100).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import zip_longest
from pathlib import Path

from patchforge.bot.model import Candidate, GitHubRelease, PassedOver
from patchforge.errors import Damaged
from patchforge.git.borrowed import source_of
from patchforge.git.clone import is_url
from patchforge.git.command import run_git
from patchforge.project import Project
from patchforge.sources import GitObjects
from patchforge.vocabulary import Version

NO_COMMIT = "it does not lead to a commit"
_PRERELEASE = re.compile(
    r"\d(?:[-._]?(?:rc|alpha|beta|a|b|c|m|pre|preview|dev|canary|nightly)[-._]?\d*)+$", re.IGNORECASE
)
_LINE = re.compile(r"([0-9a-f]{40}(?:[0-9a-f]{24})?)\trefs/tags/(.+?)(\^\{\})?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a look at upstream gave. ``new`` is sorted, oldest version first."""

    newest: Version | None  #: the newest that we have
    new: tuple[Candidate, ...]
    passed: tuple[PassedOver, ...]

    def candidate(self, version: Version) -> Candidate | None:
        return next((candidate for candidate in self.new if candidate.version == version), None)


def list_tags(where: str) -> tuple[dict[str, str], list[PassedOver]]:
    """Tag → the commit that it leads to, of a repository at an address or path; and the refs that are passed over.

    Whether a tag of an address leads to a commit is only known once it is fetched.
    """
    if not is_url(where):
        return _tags_of(Path(where).expanduser())
    with source_of(where) as source:
        lines = run_git("ls-remote", "--tags", "--", source, tries=3).split("\n")
    matches = [(line, _LINE.fullmatch(line)) for line in lines if line]
    # The line of an annotated tag comes first, that of its commit (with ^{}) second.
    tags = {match[2]: match[1] for _, match in matches if match}
    return tags, [PassedOver(line[:200], "not understood") for line, match in matches if not match]


def _tags_of(clone: Path) -> tuple[dict[str, str], list[PassedOver]]:
    with GitObjects(clone) as objects:
        tags = objects.commits(objects.tags())
        passed = [PassedOver(ref.name.removeprefix("refs/tags/"), ref.why) for ref in objects.odd_refs()]
    passed += [PassedOver(tag, NO_COMMIT) for tag, commit in tags.items() if not commit]
    return {tag: commit for tag, commit in tags.items() if commit}, passed


def discover(
    project: Project,
    tags: Mapping[str, str],
    releases: Sequence[GitHubRelease] | None,
    *,
    known: Mapping[Version, str],
    ours: Sequence[Version],
    age: Callable[[str], timedelta],
    now: datetime | None = None,
) -> Discovery:
    """Compares upstream with what we have.

    ``releases``: None when GitHub was not asked. ``known``: version → commit as we recorded it. ``ours``: the versions
    on the base branch. ``age`` gives the age of a commit or raises Damaged; it is asked only of tags that have to wait.
    """
    newest = max(ours, default=None)
    published = {entry.tag: entry for entry in releases or () if not entry.odd}
    odd = {entry.tag: entry.odd for entry in releases or () if entry.odd and entry.tag not in published}
    new: list[Candidate] = []
    passed = [
        PassedOver(tag, "GitHub has a release of it, and git has no such tag") for tag in published.keys() - tags.keys()
    ]
    passed += [PassedOver(tag, why) for tag, why in odd.items() if tag not in tags]
    for tag, commit in tags.items():
        version, release = project.version_of(tag), published.get(tag)
        if version is None:
            why = "a pre-release" if _PRERELEASE.search(tag) else "not the name of a version"
        elif known.get(version, commit) != commit:
            passed.append(PassedOver(tag, f"the tag was moved: it was {known[version]} and is {commit}", moved=True))
            continue
        elif newest and not is_newer(version, newest):
            continue
        else:
            when = now or datetime.now(UTC)
            try:
                why = odd.get(tag) or _wait(project, release, partial(age, commit), when, asked=releases is not None)
            except Damaged as error:
                why = error.problem
        if why:
            passed.append(PassedOver(tag, why))
        elif version:
            new.append(Candidate(version, tag, commit, release))
    ordered = sorted(new, key=lambda candidate: candidate.version)
    return Discovery(newest, tuple(ordered), tuple(sorted(passed, key=lambda passed_over: passed_over.tag)))


def _wait(
    project: Project, release: GitHubRelease | None, age: Callable[[], timedelta], now: datetime, *, asked: bool
) -> str:
    """Why a newer version is not taken now, or ""."""
    track = project.track
    if track.channel == "tags":
        return ""
    if release is None and track.channel == "releases":
        return "it has no release on GitHub" if asked else "GitHub was not asked whether it is released"
    if release is None:
        return _young(age(), track.tag_days, "a tag without a release, made") if asked else ""
    if release.prerelease:
        return "GitHub calls it a pre-release"
    return _young(now - release.published, track.release_days, "released")


def _young(age: timedelta, days: float, what: str) -> str:
    if age >= timedelta(days=days):
        return ""
    return f"{what} {age.total_seconds() / 86400:.1f} days ago; it is taken after {days:g}"


def is_newer(version: Version, than: Version) -> bool:
    """By PEP 440 and by Nix's ``compareVersions``, which differ in trailing zeros and in letters."""
    from packaging.version import Version as Pep440  # noqa: PLC0415 - keeps start-up light

    text, other = str(version).removeprefix("v"), str(than).removeprefix("v")
    return Pep440(text) > Pep440(other) and compare_as_nix(text, other) > 0


def compare_as_nix(text: str, other: str) -> int:
    """Nix's ``builtins.compareVersions``: -1, 0 or 1."""
    for left, right in zip_longest(_nix_parts(text), _nix_parts(other), fillvalue=""):
        if _nix_less(left, right):
            return -1
        if _nix_less(right, left):
            return 1
    return 0


def _nix_parts(version: str) -> list[str]:
    return re.findall(r"\d+|[^\d.-]+", version)


def _nix_less(left: str, right: str) -> bool:
    if left.isdigit() and right.isdigit():
        return int(left) < int(right)
    if not left and right.isdigit():
        return True
    if "pre" in (left, right):
        return left != right and left == "pre"
    if right.isdigit():
        return True
    return not left.isdigit() and left < right
