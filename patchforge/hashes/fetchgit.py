"""What ``fetchFromGitHub { fetchSubmodules = true; }`` will find: a checkout with its submodules, without any ``.git``.

A checkout ignores ``export-ignore`` and ``export-subst``. LFS files are pointers here (``fetchLFS`` is false).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from patchforge.errors import PatchforgeError
from patchforge.hashes.fetchfromgithub import ArchiveHash, attributes_of, hashed, merged
from patchforge.hashes.nar import Folder, Item
from patchforge.hashes.objects import Blob, Objects, isolated

_CONVERTS = re.compile(rb"eol\s*=\s*crlf|ident|working-tree-encoding")


def of_checkout(clone: Path, commit: str, submodules: Mapping[str, Path]) -> ArchiveHash:
    """Hash of a checkout. ``submodules``: clones by path (nested ones by their whole path).

    PatchforgeError for a submodule without clone, a clone without submodule, and attributes by which a checkout
    converts content.
    """
    left = dict(submodules)
    found = hashed(_items(clone, commit, b"", left), "git objects with submodules")
    if left:
        raise PatchforgeError(
            f"{commit} has no such submodule", expected="paths of its submodules", found=", ".join(sorted(left))
        )
    return found


def _items(clone: Path, commit: str, top: bytes, clones: dict[str, Path]) -> Iterator[Item]:
    with isolated(clone) as objects:
        blobs = objects.listing(commit)
        _require_plain(objects, blobs)
        inner = [(blob.path, _submodule(blob, top, clones)) for blob in blobs if blob.is_submodule]
        content = objects.items([blob for blob in blobs if not blob.is_submodule])
        for path, node in merged(content, inner):
            yield top + path, node


def _submodule(blob: Blob, top: bytes, clones: dict[str, Path]) -> Iterator[Item]:
    """Its items, with paths from the top of the repository that it is part of."""
    whole = os.fsdecode(top + blob.path)
    clone = clones.pop(whole, None)
    if clone is None:
        raise PatchforgeError(
            f"the submodule {whole} is not at hand",
            expected=f"a clone with commit {blob.id}",
            found="no clone named for it",
            do=f"name one: --submodule {whole}=CLONE",
        )
    yield blob.path, Folder()
    prefix = top + blob.path + b"/"
    for path, node in _items(clone, blob.id, prefix, clones):
        yield path.removeprefix(top), node


def _require_plain(objects: Objects, blobs: list[Blob]) -> None:
    if any(map(_CONVERTS.search, attributes_of(objects, blobs))):
        raise PatchforgeError(
            f"a checkout of {objects.origin} converts content",
            expected="no eol=crlf, ident or working-tree-encoding in its .gitattributes",
            found="at least one of them",
            do="work this hash out with Nix",
        )
