"""A clone's objects as a hash needs them: every file, link and submodule of a commit, in order and with their bytes.

``git archive`` and ``git cat-file`` obey core.autocrlf, filters, info/attributes and replacement objects (facts:
nix-and-bots, 3.4). A git folder of our own that borrows the clone's objects has none of these, and no remote from which
git could fetch what is missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patchforge.errors import Damaged
from patchforge.git.objects import Objects, UnreadableError
from patchforge.hashes.nar import Item, NarFile, NarFolder, NarLink
from patchforge.sources.missing import MissingBlobError

#: Blobs above this many bytes are streamed by git too, unless they are stored as a difference to another blob.
_STREAMED = (
    ("core.bigFileThreshold", "1m"),
    ("core.packedGitWindowSize", "1m"),
    ("core.packedGitLimit", "16m"),
)
_MOST_FILES = 10_000_000  #: of one commit; a few small trees can name each other 10**10 times
_FOLDER = "040000"
_DEEPEST = 1000  #: folders within each other
_LONGEST_LINK = 1 << 16  #: bytes; no system takes more

Named = tuple[bytes, str, str]  #: name, mode and id of what is in a tree


@dataclass(frozen=True, slots=True)
class Blob:
    """One line of a commit's listing."""

    path: bytes
    mode: str  #: as git writes it: 100644, 100755, 120000, 160000
    id: str

    @property
    def is_submodule(self) -> bool:
        return self.mode == "160000"


class IncompleteTreeError(MissingBlobError):
    """Files are listed and git lacks their content. Every one is named; ``missing`` maps path to blob id."""

    def __init__(self, missing: Sequence[Blob], origin: str) -> None:
        self.missing = {os.fsdecode(blob.path): blob.id for blob in missing}
        (path, blob), *others = self.missing.items()
        more = "".join(f"\n    {path}: blob {blob}" for path, blob in others)
        reason = "no such object" + (f", and the same of {len(others)} more:{more}" if others else "")
        super().__init__(path, blob, origin=origin, reason=reason)


class HashedObjects(Objects):
    """The objects of one repository, for the hash of a commit's files."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _STREAMED)

    def listing(self, commit: str) -> HashedListing:
        """Every file, link and submodule of a commit, in ``nar_order``."""
        return HashedListing(self, commit)

    def require(self, needed: Iterable[Blob], listed: Iterable[Blob] = ()) -> None:
        """IncompleteTreeError unless the clone has what is needed; it names what is missing of the ``listed`` too."""
        if missing := self._absent(needed):
            raise IncompleteTreeError(self._absent(listed) or missing, str(self.path))

    def _absent(self, blobs: Iterable[Blob]) -> list[Blob]:
        files = [blob for blob in blobs if not blob.is_submodule]
        lacking = self.lacks(blob.id for blob in files)
        return [blob for blob, lacks in zip(files, lacking, strict=True) if lacks]

    def items(self, blobs: Iterable[Blob]) -> Iterator[Item]:
        """The blobs' content, in their order; a submodule is a folder. IncompleteTreeError at the end."""
        absent = []
        for blob in blobs:
            if blob.is_submodule:
                yield blob.path, NarFolder()
                continue
            try:
                size, pieces = self.pieces(blob.id, os.fsdecode(blob.path))
            except UnreadableError as error:
                if str(error) != "missing":
                    raise self.failed("cat-file", str(error)) from error
                absent.append(blob)
            else:
                yield blob.path, _node(blob, size, pieces)
        if absent:
            raise IncompleteTreeError(absent, str(self.path))

    def with_attribute(self, commit: str, name: str, blobs: Sequence[Blob]) -> list[Blob]:
        """The blobs for which the commit's own .gitattributes set an attribute."""
        self.run("read-tree", commit)
        asked = b"".join(blob.path + b"\0" for blob in blobs)
        fields = self.run("check-attr", "--cached", "-z", "--stdin", name, given=asked).split(b"\0")
        having = {path for path, value in zip(fields[::3], fields[2::3], strict=False) if value == b"set"}
        return [blob for blob in blobs if blob.path in having]

    def sorted_tree(self, oid: str) -> list[Named]:
        """What is in a tree, by name; PatchforgeError if there is none."""
        try:
            return sorted((name, sys.intern(f"{mode:06o}"), part) for mode, name, part in self.tree(oid))
        except UnreadableError as error:
            raise self.failed("cat-file", f"no whole tree {oid}: {error}") from error


@dataclass(frozen=True, slots=True)
class HashedListing:
    """Files, links and submodules of a commit in ``nar_order``, read from git each time they are asked for.

    Memory: the folders on the way to the present one. PatchforgeError when git lacks a folder.
    """

    objects: HashedObjects
    commit: str
    keep: Callable[[Blob], bool] | None = None

    def __iter__(self) -> Iterator[Blob]:
        try:
            tree = self.objects.tree_of(self.commit)
        except UnreadableError as error:
            raise self.objects.failed("cat-file", f"{self.commit}: {error}") from error
        for count, blob in enumerate(_walk(self.objects.sorted_tree, tree)):
            if count >= _MOST_FILES:
                raise self.objects.failed("cat-file", f"more than {_MOST_FILES} files in one commit")
            if self.keep is None or self.keep(blob):
                yield blob

    def only(self, keep: Callable[[Blob], bool]) -> HashedListing:
        return HashedListing(self.objects, self.commit, keep)


@contextmanager
def isolated(clone: Path) -> Iterator[HashedObjects]:
    """The objects of a clone (bare or not). PatchforgeError when it is none."""
    with HashedObjects(clone) as objects:
        yield objects


def _walk(read: Callable[[str], list[Named]], tree: str) -> Iterator[Blob]:
    """Depth first, and without recursion."""
    opened = [(b"", iter(read(tree)))]
    while opened:
        folder, items = opened[-1]
        for name, mode, oid in items:
            if mode == _FOLDER:
                opened.append((folder + name + b"/", iter(read(oid))))
                break
            yield Blob(folder + name, mode, oid)
        else:
            opened.pop()
        if len(opened) > _DEEPEST:
            raise Damaged(
                "folders are nested without end", expected=f"{_DEEPEST} at most", found=tree, do="name another commit"
            )


def _node(blob: Blob, size: int, pieces: Iterator[bytes]) -> NarLink | NarFile:
    if blob.mode == "120000":
        if size > _LONGEST_LINK:
            raise Damaged(
                f"{os.fsdecode(blob.path)} is a link that leads too far",
                found=f"{size} bytes",
                do="name another commit",
            )
        return NarLink(b"".join(pieces))
    return NarFile(size, lambda: pieces, bool(int(blob.mode, 8) & 0o100))
