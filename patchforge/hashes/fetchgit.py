"""What ``fetchFromGitHub { fetchSubmodules = true; }`` will find: a checkout with its submodules, without any ``.git``.

A checkout ignores ``export-ignore`` and ``export-subst``. LFS files are pointers here (``fetchLFS`` is false).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from patchforge.errors import PatchforgeError
from patchforge.hashes.fetchfromgithub import ArchiveHash, attributes_of, hashed
from patchforge.hashes.nar import Item
from patchforge.hashes.objects import HashedListing, isolated

_CONVERTS = re.compile(rb"eol\s*=\s*crlf|ident|working-tree-encoding")


def of_checkout(clone: Path, commit: str, submodules: Mapping[str, Path]) -> ArchiveHash:
    """Hash of a checkout. ``submodules``: clones by path (nested ones by their whole path).

    PatchforgeError for a submodule without clone, a clone without submodule, and attributes by which a checkout
    converts content.
    """
    left = dict(submodules)
    checkout = hashed(_items(clone, commit, b"", left), "git objects with submodules")
    if left:
        raise PatchforgeError(
            f"{commit} has no such submodule",
            expected="paths of its submodules",
            found=", ".join(sorted(left)),
            do="name paths of these",
        )
    return checkout


def _items(clone: Path, commit: str, top: bytes, clones: dict[str, Path]) -> Iterator[Item]:
    with isolated(clone) as objects:
        listing = objects.listing(commit)
        _require_plain(listing)
        submodules = {blob.path: blob for blob in listing if blob.is_submodule}
        for path, node in objects.items(listing):
            yield top + path, node
            if path in submodules:
                yield from _submodule(top + path, submodules[path].id, clones)


def _submodule(path: bytes, commit: str, clones: dict[str, Path]) -> Iterator[Item]:
    """Its items, with paths from the top of the whole checkout."""
    name = os.fsdecode(path)
    clone = clones.pop(name, None)
    if clone is None:
        raise PatchforgeError(
            f"the submodule {name} is not at hand",
            expected=f"a clone with commit {commit}",
            found="no clone named for it",
            do=f"name one: --submodule {name}=CLONE",
        )
    yield from _items(clone, commit, path + b"/", clones)


def _require_plain(listing: HashedListing) -> None:
    if any(map(_CONVERTS.search, attributes_of(listing))):
        raise PatchforgeError(
            f"a checkout of {listing.objects.path} converts content",
            expected="no eol=crlf, ident or working-tree-encoding in its .gitattributes",
            found="at least one of them",
            do="work this hash out with Nix",
        )
