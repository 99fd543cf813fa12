"""Trees read from git objects without a checkout.

Folders are parsed once and shared between releases: most of them stay the same from one release to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from patchforge.errors import Damaged, PatchforgeError
from patchforge.git.objects import Objects, UnreadableError
from patchforge.names import odd
from patchforge.sources.missing import MissingBlobError
from patchforge.vocabulary import Entry

_FOLDER, _LINK, _SUBMODULE = 0o040000, 0o120000, 0o160000
_FILE = 0o100000
_REASONS = {_LINK: "symbolic link", _SUBMODULE: "submodule"}
_MOST_FILES = 1_000_000  #: of one commit; a few small trees can name each other 10**10 times


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a tree that is not a regular file, or oddly named, and why it is left out."""

    path: str
    reason: str


class Listing(NamedTuple):
    entries: Mapping[str, Entry]
    skipped: tuple[Skipped, ...]


class GitObjects(Objects):
    """A repository whose commits are listed as releases are: plain files by path."""

    def __init__(self, path: Path) -> None:
        """PatchforgeError when ``path`` is not a repository."""
        super().__init__(path)
        self._folders: dict[tuple[str, str], tuple[Entry | Skipped, ...]] = {}
        self._listings: dict[str, Listing] = {}

    def listing(self, commit: str) -> Listing:
        """The files of a commit, sorted by path. Needs no blob."""
        if commit not in self._listings:
            try:
                items = self._items(self.tree_of(commit), "")
            except UnreadableError as error:
                raise PatchforgeError(
                    f"the files of {commit} cannot be listed",
                    expected=f"a commit with all its folders in {self.path}",
                    found=str(error),
                    do="fetch the commit, or use a clone that has it",
                ) from error
            entries = {each.path: each for each in sorted(_files(items), key=lambda each: each.path)}
            skipped = tuple(each for each in items if isinstance(each, Skipped))
            self._listings[commit] = Listing(MappingProxyType(entries), skipped)
        return self._listings[commit]

    def _items(self, tree: str, prefix: str) -> tuple[Entry | Skipped, ...]:
        # Git sorts a folder as if its name ended in "/", so this order is that of the whole paths.
        key = (tree, prefix)
        if key not in self._folders:
            self._folders[key] = tuple(self._walk(tree, prefix))
        return self._folders[key]

    def _walk(self, tree: str, prefix: str) -> Iterator[Entry | Skipped]:
        seen, count = set(), 0
        for mode, name, oid in self.tree(tree):
            base = name.decode("utf-8", "surrogateescape")
            path = prefix + base
            reason = ("listed twice" if base in seen else "") or ("/" in base and "a slash in its name") or odd(path)
            seen.add(base)
            items = (Skipped(path, reason),) if reason else self._item(mode, path, oid)
            count += len(items)
            if count > _MOST_FILES:
                raise Damaged(
                    f"{self.path}: a commit lists more files than can be read",
                    expected=f"{_MOST_FILES} at most",
                    do="name another commit",
                )
            yield from items

    def _item(self, mode: int, path: str, oid: str) -> tuple[Entry | Skipped, ...]:
        if mode == _FOLDER:
            return self._items(oid, path + "/")
        if mode & ~0o7777 != _FILE:
            return (Skipped(path, _REASONS.get(mode, "not a file")),)
        return (Entry(path, oid, 0o100755 if mode & 0o100 else 0o100644),)


def _files(items: Iterable[Entry | Skipped]) -> Iterator[Entry]:
    return (each for each in items if isinstance(each, Entry))


class GitTree:
    """The tree of one commit. Cheap to make: all of a repository's trees share its process and its listings."""

    def __init__(self, repo: GitObjects, commit: str, origin: str = "") -> None:
        self.commit = commit
        self.origin = f"{origin or repo.path} at {commit[:12]}"
        self._repo = repo

    def entries(self) -> Mapping[str, Entry]:
        return self._repo.listing(self.commit).entries

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Symbolic links and submodules."""
        return self._repo.listing(self.commit).skipped

    def read(self, path: str) -> bytes:
        """The file's bytes; KeyError when there is no such file, MissingBlobError when git lacks its content."""
        blob = self.entries()[path].blob
        try:
            return self._repo.blob(blob)
        except UnreadableError as error:
            raise MissingBlobError(path, blob, origin=self.origin, reason=str(error)) from error
