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

from patchforge.bot.words import Candidate, Passed, Published
from patchforge.errors import PatchforgeError
from patchforge.project import Project
from patchforge.sources.command import run_git
from patchforge.vocabulary import Version

_PRERELEASE = re.compile(
    r"\d(?:[-._]?(?:rc|alpha|beta|a|b|c|m|pre|preview|dev|canary|nightly)[-._]?\d*)+$", re.IGNORECASE
)
_LINE = re.compile(r"([0-9a-f]{40,64})\trefs/tags/(.+?)(\^\{\})?")


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at upstream gave. ``new`` is sorted, oldest version first."""

    newest: Version | None  #: the newest that we have
    new: tuple[Candidate, ...]
    passed: tuple[Passed, ...]

    def candidate(self, version: Version) -> Candidate | None:
        return next((one for one in self.new if one.version == version), None)


def list_tags(url: str) -> dict[str, str]:
    """Tag → the commit that it leads to, of a repository at an address or path."""
    tags: dict[str, str] = {}
    for line in run_git("ls-remote", "--tags", "--", url, tries=3).splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise PatchforgeError(f"git ls-remote of {url} is not understood", found=repr(line[:200]))
        # The line of an annotated tag comes first, that of its commit (with ^{}) second.
        tags[match[2]] = match[1]
    return tags


def discover(
    project: Project,
    tags: Mapping[str, str],
    releases: Sequence[Published] | None,
    *,
    known: Mapping[Version, str],
    ours: Sequence[Version],
    age: Callable[[str], timedelta],
    now: datetime | None = None,
) -> Found:
    """Compares upstream with what we have.

    ``releases``: None when GitHub was not asked. ``known``: version → commit as we recorded it. ``ours``: the versions
    on the base branch. ``age`` gives the age of a commit; it is asked only of tags that have to wait.
    """
    newest = max(ours, default=None)
    published = {one.tag: one for one in releases or () if not one.odd}
    odd = {one.tag: one.odd for one in releases or () if one.odd and one.tag not in published}
    new: list[Candidate] = []
    passed = [
        Passed(tag, "GitHub has a release of it, and git has no such tag") for tag in published.keys() - tags.keys()
    ]
    passed += [Passed(tag, why) for tag, why in odd.items() if tag not in tags]
    for tag, commit in tags.items():
        version, release = project.version_of(tag), published.get(tag)
        if version is None:
            why = "a pre-release" if _PRERELEASE.search(tag) else "not the name of a version"
        elif known.get(version, commit) != commit:
            passed.append(Passed(tag, f"the tag was moved: it was {known[version]} and is {commit}", moved=True))
            continue
        elif newest and not is_newer(version, newest):
            continue
        else:
            when = now or datetime.now(UTC)
            why = odd.get(tag) or _wait(project, release, partial(age, commit), when, asked=releases is not None)
        if why:
            passed.append(Passed(tag, why))
        elif version:
            new.append(Candidate(version, tag, commit, release))
    ordered = sorted(new, key=lambda one: one.version)
    return Found(newest, tuple(ordered), tuple(sorted(passed, key=lambda one: one.tag)))


def _wait(
    project: Project, release: Published | None, age: Callable[[], timedelta], now: datetime, *, asked: bool
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

    one, other = str(version).removeprefix("v"), str(than).removeprefix("v")
    return Pep440(one) > Pep440(other) and compare_as_nix(one, other) > 0


def compare_as_nix(one: str, other: str) -> int:
    """Nix's ``builtins.compareVersions``: -1, 0 or 1."""
    for left, right in zip_longest(_nix_parts(one), _nix_parts(other), fillvalue=""):
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
