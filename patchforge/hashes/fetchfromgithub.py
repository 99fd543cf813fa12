"""What ``fetchFromGitHub`` will find: the archive that GitHub makes of a commit, unpacked, without its top folder.

An archive is not a checkout. It leaves out what ``export-ignore`` names, expands ``$Format:…$`` in files with
``export-subst``, converts line ends and encodings, has pointers in place of LFS files and empty folders in place of
submodules. A commit whose attributes do none of this is hashed from its objects directly; git itself makes the archive
of any other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import IO

from patchforge.errors import PatchforgeError
from patchforge.hashes.nar import Item, NarFile, NarFolder, NarLink, folder_items, hash_entries, nar_order
from patchforge.hashes.objects import Blob, HashedListing, isolated
from patchforge.hashes.tarball import open_tarball

HOST = "https://github.com"

#: Words in .gitattributes that can make an archive differ from the objects. Text and eol=lf cannot.
_MATTERS = re.compile(rb"export-(ignore|subst)|eol\s*=\s*crlf|ident|working-tree-encoding")
_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_MOST = 1024  #: bytes; the specification's limit of a pointer
_FORMAT = re.compile(rb"\$Format:([^$]*)\$")
_PLACEHOLDER = re.compile(r"%[-+ ]?(%|\(\w+|[aceGgC].|.)", re.DOTALL)
#: Placeholders whose text depends on refs, notes, signatures, the day, or the number of objects in a repository.
_UNSTABLE = re.compile(r"[htpdDSN]|[Gg].|[ac][rhNEL]|\((describe|decorate)")


@dataclass(frozen=True, slots=True)
class SourceNote:
    """Something about a source that whoever pins it should know. ``kind`` is one word for programs."""

    kind: str
    text: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArchiveHash:
    """The hash of an archive's content, worked out here."""

    hash: str
    files: int
    size: int  #: bytes of all files
    source: str  #: what was read: "git objects", "git archive", "tarball" or "folder"
    notes: tuple[SourceNote, ...]


def of_clone(clone: Path, commit: str) -> ArchiveHash:
    """Hash of GitHub's archive of a commit, out of a clone's objects; the clone's and the user's settings play no part.

    IncompleteTreeError names what a partial clone lacks. PatchforgeError for ``export-subst`` with placeholders
    whose text changes with time.
    """
    with isolated(clone) as objects:
        listing = objects.listing(commit)
        attributes = attributes_of(listing)
        if not any(map(_MATTERS.search, attributes)):
            return _of_objects(listing)
        if any(b"export-subst" in text for text in attributes):
            _require_stable(listing)
        return _of_archive(listing)


def of_tarball(stream: IO[bytes], origin: str, commit: str = "") -> ArchiveHash:
    """Hash of a tarball as GitHub makes it, while it arrives. PatchforgeError when it notes another ``commit``."""
    with open_tarball(stream, origin) as tarball:
        archive = hashed(tarball.items(), "tarball")
    if commit and tarball.commit and tarball.commit != commit:
        raise PatchforgeError(
            f"{origin} is the tarball of another commit",
            expected=commit,
            found=tarball.commit,
            do="name the tarball of this revision",
        )
    return archive


def of_folder(folder: Path) -> ArchiveHash:
    """Hash of an unpacked archive. PatchforgeError for a checkout: it is not what GitHub's archive holds."""
    if not folder.is_dir() or (folder / ".git").exists():
        raise PatchforgeError(
            f"{folder} is not an unpacked archive",
            expected="the folder that a tarball unpacks to",
            found="a checkout, with .git in it" if folder.is_dir() else "no such folder",
            do="name a checkout or clone with --upstream",
        )
    return hashed(folder_items(folder), "folder")


def attributes_of(listing: HashedListing) -> list[bytes]:
    """Every .gitattributes of a commit."""
    entries = [
        entry for entry in listing if entry.path.rpartition(b"/")[2] == b".gitattributes" and not entry.is_submodule
    ]
    listing.objects.require(entries, listing)
    return [listing.objects.blob(blob.id) for blob in entries]


def _of_objects(listing: HashedListing) -> ArchiveHash:
    submodules: list[bytes] = []
    archive = hashed(_folders_noted(listing.objects.items(listing), submodules), "git objects")
    return replace(archive, notes=_submodule_notes(submodules) + archive.notes)


def _folders_noted(items: Iterable[Item], folders: list[bytes]) -> Iterator[Item]:
    for path, node in items:
        if isinstance(node, NarFolder):
            folders.append(path)
        yield path, node


def _of_archive(listing: HashedListing) -> ArchiveHash:
    objects, commit = listing.objects, listing.commit
    submodules: list[bytes] = []
    left_out: list[bytes] = []
    try:
        with (
            objects.piped("archive", "--format=tar", "--prefix=top/", commit) as stream,
            open_tarball(stream, str(objects.path)) as tarball,
        ):
            archive = hashed(_compared(tarball.items(), listing, submodules, left_out), "git archive")
    except PatchforgeError:
        objects.require(listing)  # says more, if that is the reason
        raise
    return replace(archive, notes=_submodule_notes(submodules) + _left_out(left_out) + archive.notes)


def _compared(
    items: Iterable[Item], listing: Iterable[Blob], submodules: list[bytes], left_out: list[bytes]
) -> Iterator[Item]:
    """Passes an archive's items on, and notes what is listed and not among them."""
    listed = iter(listing)
    blob = next(listed, None)
    for path, node in items:
        while blob and nar_order(blob.path) < nar_order(path):
            left_out.append(blob.path)
            blob = next(listed, None)
        if blob and blob.path == path:
            submodules += [path] if blob.is_submodule else []
            blob = next(listed, None)
        yield path, node
    left_out += [blob.path] if blob else []
    left_out += [entry.path for entry in listed]


def _require_stable(listing: HashedListing) -> None:
    """PatchforgeError unless every ``$Format:…$`` that an archive expands gives the same text for ever."""
    objects, commit = listing.objects, listing.commit
    files = objects.with_attribute(commit, "export-subst", [blob for blob in listing if blob.mode.startswith("100")])
    objects.require(files, listing)
    unstable = [f"{os.fsdecode(blob.path)}: {text}" for blob in files for text in _unstable(objects.blob(blob.id))]
    if unstable:
        raise PatchforgeError(
            f"the archive of {commit} changes with time (export-subst)",
            expected="only placeholders such as %H, whose text never changes",
            found="; ".join(unstable),
            do="pin this source with fetchgit (forceFetchGit = true), which expands nothing",
        )


def _unstable(data: bytes) -> list[str]:
    """The placeholders in ``$Format:…$`` that a new tag, branch, object or day can change."""
    formats = [match[1].decode("utf-8", "replace") for match in _FORMAT.finditer(data)]
    placeholders = (match for text in formats for match in _PLACEHOLDER.finditer(text))
    return [match[0] + ")" * ("(" in match[0]) for match in placeholders if _UNSTABLE.fullmatch(match[1])]


def hashed(items: Iterable[Item], source: str, notes: tuple[SourceNote, ...] = ()) -> ArchiveHash:
    """The hash of items in ``nar_order``, with notes on what they show."""
    watch = _Watch()
    digest = hash_entries(watch.over(items))
    return ArchiveHash(digest.hash, digest.files, digest.size, source, notes + watch.notes())


@dataclass(slots=True)
class _Watch:
    """Sees every item on its way to the hash."""

    pointers: list[bytes] = field(default_factory=list)
    clashes: list[bytes] = field(default_factory=list)
    _last: list[bytes] = field(default_factory=list)  #: the names in the path before
    _names: list[set[int]] = field(default_factory=lambda: [set()])  #: by depth, hashes of folded names

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        for path, node in items:
            self._case(path.split(b"/"))
            yield path, self._watched(path, node)

    def notes(self) -> tuple[SourceNote, ...]:
        made = []
        if self.pointers:
            text = "LFS pointers stand in place of these files; for the files, pin with fetchgit and fetchLFS = true"
            made.append(SourceNote("lfs", text, _names(self.pointers)))
        if self.clashes:
            text = "names differ in case only; on a file system that does not tell them apart the hash is another"
            made.append(SourceNote("case", text, _names(self.clashes)))
        return tuple(made)

    def _case(self, parts: list[bytes]) -> None:
        """Compares each name with those before it in the same folder; a folder that is over is forgotten."""
        known = len(parts) - 1
        if self._last[:-1] != parts[:-1]:
            known = sum(1 for _ in takewhile(lambda each: each[0] == each[1], zip(self._last, parts, strict=False)))
        del self._names[known + 1 :]
        for depth in range(known, len(parts)):
            folded = hash(os.fsdecode(parts[depth]).casefold())
            self._names += [set()] * (depth == len(self._names))
            if folded in self._names[depth]:
                self.clashes.append(b"/".join(parts[: depth + 1]))
            self._names[depth].add(folded)
        self._last = parts

    def _watched(self, path: bytes, node: NarFolder | NarLink | NarFile) -> NarFolder | NarLink | NarFile:
        if not isinstance(node, NarFile) or not len(_LFS) < node.size < _LFS_MOST:
            return node
        data = b"".join(node.chunks())
        if data.startswith(_LFS):
            self.pointers.append(path)
        return NarFile(node.size, lambda: (data,), node.executable)


def _submodule_notes(paths: Sequence[bytes]) -> tuple[SourceNote, ...]:
    text = "submodules are empty folders in the archive; for their files, pin with fetchgit and fetchSubmodules = true"
    return (SourceNote("submodules", text, _names(paths)),) if paths else ()


def _left_out(paths: Sequence[bytes]) -> tuple[SourceNote, ...]:
    text = "export-ignore leaves these out of the archive; fetchgit has them, and another hash"
    return (SourceNote("export-ignore", text, _names(paths)),) if paths else ()


def _names(paths: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(map(os.fsdecode, paths))
