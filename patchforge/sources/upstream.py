"""The upstream: where releases are looked up by version, commit or ref, and where their trees are read."""

from __future__ import annotations

import difflib
import os
import re
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

from patchforge.errors import PatchforgeError
from patchforge.git.borrowed import OddRef
from patchforge.git.clone import CachedClone, is_url
from patchforge.paths import quoted
from patchforge.project import load_project, recognise, release_index
from patchforge.sources.git import GitObjects, GitTree
from patchforge.sources.missing import MissingBlobError
from patchforge.vocabulary import Release, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from patchforge.project import Project

_COMMIT = re.compile("[0-9a-f]{7,40}")
_PATH = re.compile(r"^[./~]|^[A-Za-z]:[/\\]|\\|/$")  #: what no version, commit or ref looks like
_FILES = "patchforge apply DIR --in-place patches a checkout, and apply --from ARCHIVE|DIR reads a release from files"
LATEST = "latest"  #: names the newest release
_BEFORE_ALL = Version((0, 0, 0))
_COMPARED = 1000  #: refs that are compared with a name that is unknown; each takes a tenth of a millisecond


def open_upstream(where: str | None = None, *, project: Project | None = None, fetch: bool = False) -> Upstream:
    """The upstream at a path or URL; else at PATCHFORGE_UPSTREAM; else at the project's own address.

    A clone on this machine is read as it is. Of a remote, a bare clone is kept in the cache; it is fetched when
    ``fetch`` says so, and once when something is asked for that it lacks.
    """
    project = project or load_project()
    where = where or os.environ.get("PATCHFORGE_UPSTREAM") or project.url
    if not is_url(where):
        path = Path(where).expanduser()
        return Upstream(project, GitObjects(path), origin=str(path))
    clone = CachedClone.of(project.current_url(where))
    made = clone.ensure()
    upstream = Upstream(project, GitObjects(clone.path), origin=clone.origin, clone=None if made else clone)
    if fetch:
        upstream.fetch()
    return upstream


class Upstream:
    """One clone of a project with its release index."""

    def __init__(self, project: Project, objects: GitObjects, *, origin: str, clone: CachedClone | None = None) -> None:
        """``clone``: what to fetch; None when the objects are to be read as they are."""
        self.project, self.origin = project, origin
        self._objects, self._clone = objects, clone
        self._index = {release.version: release for release in release_index(project)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._objects.close()

    def fetch(self) -> bool:
        """Bring a remote's clone up to date, once; whether that was done now. A local clone is left alone."""
        clone, self._clone = self._clone, None
        if clone:
            clone.fetch()
            self._objects.close()
        return clone is not None

    def resolve(self, name: str) -> Release:
        """The release that a version (``v0.3.47``, ``0.3.47``), a commit (7 to 40 hex digits) or a ref names.

        ``latest`` is the newest release.
        A commit that is not a release bears the version its files state, or else that of the newest indexed release it
        descends from; ``indexed`` is then False. Errors: an unknown name (with the nearest ones), a tag that
        disagrees with the index, an indexed commit that the clone lacks.
        """
        if looks_like_path(name):
            self._refuse_path(name)
        version = _version(name)
        if version is None and not _COMMIT.fullmatch(name):
            self.fetch()  # a branch moves
        if name == LATEST:
            return self._present(self.releases()[-1])
        release = self._find(name, version)
        if release is None and self.fetch():
            release = self._find(name, version)
        return release or self._unknown(name)

    def tree(self, release: Release) -> GitTree:
        """Where the release's files are read; PatchforgeError when the clone lacks its commit."""
        return GitTree(self._objects, self._present(release).commit, self.origin)

    def releases(self) -> list[Release]:
        """The index and the tags it does not list yet, oldest version first. Commits are not looked up."""
        return sorted([*self._index.values(), *self._new_tags()], key=lambda release: release.version)

    def commits(self, since: str, until: str, paths: Sequence[str] = ()) -> list[str]:
        """Ids of the commits after ``since`` up to ``until`` that touch ``paths`` (all when empty), oldest first.

        ``since`` and ``until`` are whatever ``resolve`` takes; ``paths`` are files or folders, without wildcards.
        """
        first, last = self.resolve(since).commit, self.resolve(until).commit
        return self._objects.history(f"{first}..{last}", paths=tuple(paths))[::-1]

    def _find(self, name: str, version: Version | None) -> Release | None:
        if version:
            return self._by_version(version)
        commit = self._objects.commit(name)
        return self._by_commit(commit) if commit else None

    def _by_version(self, version: Version) -> Release | None:
        tagged = self._objects.commit(f"refs/tags/{self.project.tag_of(version)}")
        indexed = self._index.get(version)
        if indexed and tagged and indexed.commit != tagged:
            raise PatchforgeError(
                f"the tag and the index disagree about {version}",
                expected=f"{indexed.commit}, says {self.project.index.name}",
                found=f"{tagged}, says the tag {self.project.tag_of(version)} in {self.origin}",
                do="find out whether upstream moved the tag; correct the index or use another upstream",
            )
        if indexed:
            return self._present(indexed)
        return Release(version, tagged, indexed=False) if tagged else None

    def _by_commit(self, commit: str) -> Release:
        known = (release for release in reversed(self.releases()) if release.commit == commit)
        version = next((release.version for release in known), None)
        return (version and self._by_version(version)) or Release(self._stated(commit), commit, indexed=False)

    def _stated(self, commit: str) -> Version:
        try:
            version = recognise(GitTree(self._objects, commit), self.project)
        except MissingBlobError:
            version = None
        return version or self._newest_before(commit)

    def _newest_before(self, commit: str) -> Version:
        indexed = {release.commit: version for version, release in self._index.items()}
        return max((indexed[each] for each in self._objects.history(commit) if each in indexed), default=_BEFORE_ALL)

    def passed_over(self) -> list[OddRef]:
        """Refs that cannot be read, and new tags of versions that lead to no commit; each with its reason."""
        lost = [
            OddRef(f"refs/tags/{tag}", "does not lead to a commit") for tag, commit in self._unindexed() if not commit
        ]
        return sorted([*self._objects.odd_refs(), *lost])

    def date(self, commit: str) -> datetime:
        """When a commit was made; Damaged when there is no such commit, or it does not say."""
        return self._objects.date(commit)

    def _new_tags(self) -> Iterable[Release]:
        for tag, commit in self._unindexed():
            version = self.project.version_of(tag)
            if version and commit:
                yield Release(version, commit, indexed=False)

    def _unindexed(self) -> Iterable[tuple[str, str]]:
        """Each tag of a version that the index lacks, and the commit that it leads to, or ""."""
        versions = {tag: self.project.version_of(tag) for tag in self._objects.tags()}
        return self._objects.commits(
            tag for tag, commit in versions.items() if commit and commit not in self._index
        ).items()

    def _present(self, release: Release) -> Release:
        if self._objects.commit(release.commit) or (self.fetch() and self._objects.commit(release.commit)):
            return release
        shallow = self._objects.is_shallow()
        fetch = f"git -C {quoted(self._objects.path)} fetch --tags{' --unshallow' if shallow else ''}"
        raise PatchforgeError(
            f"{self.origin} lacks the commit of {release.version}",
            expected=release.commit,
            found="a shallow clone" if shallow else "no such commit",
            do=f"{fetch}; if it still lacks it, this is a clone of something other than {self.project.url}, "
            "or the index is wrong",
        )

    def _is_local(self) -> bool:
        return self.origin == str(self._objects.path)

    def _unknown(self, name: str) -> Release:
        names = [str(release.version) for release in self.releases()]
        refs = [*self._objects.branches(), *self._objects.tags()][:_COMPARED]
        newest = f"; the newest is {names[-1]}" if names else ""
        raise PatchforgeError(
            f"{self.origin} has no release, commit or ref called {name!r}",
            expected="such as " + (", ".join(nearest(name, names, refs)) + newest or "a tag, but it has none"),
            do=_FILES if Path(name).exists() else f"check the spelling{self._perhaps_new()}",
        )

    def _refuse_path(self, name: str) -> NoReturn:
        raise PatchforgeError(f"{name!r} is a path, not a release", expected="such as v0.32.0", do=_FILES)

    def _perhaps_new(self) -> str:
        return "; if it is new, fetch the clone" if self._is_local() else ""


def looks_like_path(name: str) -> bool:
    """Whether a word can only be a path: no version, commit or ref is written so."""
    return bool(_PATH.search(name))


def nearest(name: str, versions: Sequence[str], refs: Sequence[str] = ()) -> list[str]:
    """Up to five names to suggest for one that is unknown: the versions beside it in order, then those spelt alike."""
    near: list[str] = []
    if numbers := re.search(r"\d+(\.\d+)*", name):
        near = _beside(_numbers(numbers[0]), sorted(versions, key=_numbers))
    if not _version(name):  # else what is spelt like it is further away
        near += difflib.get_close_matches(name, [*versions, *refs], n=3)
    return list(dict.fromkeys(near))[:5] or list(versions[-3:])


def _beside(wanted: list[int], ordered: list[str]) -> list[str]:
    """The three versions around a number, the nearest first."""
    at = bisect_left(ordered, wanted, key=_numbers)
    below, above = ordered[max(0, at - 3) : at], ordered[at : at + 3][::-1]
    near: list[str] = []
    while (below or above) and len(near) < 3:
        sides = [side for side in (below, above) if side]
        near.append(min(sides, key=lambda side: _distance(_numbers(side[-1]), wanted)).pop())
    return near


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _distance(numbers: list[int], other: list[int]) -> list[int]:
    length = max(len(numbers), len(other))
    return [abs(a - b) for a, b in zip(*(each + [0] * (length - len(each)) for each in (numbers, other)), strict=True)]


def _version(name: str) -> Version | None:
    try:
        return Version.parse(name)
    except ValueError:
        return None
