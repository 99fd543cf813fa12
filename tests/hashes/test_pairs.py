"""Published fetchFromGitHub pins, reproduced from clones: from git's objects, from tarballs, and ten as Nix does it.

PATCHFORGE_PAIRS names a JSON list of {owner, repo, rev, hash}; PATCHFORGE_MIRRORS a folder of clones, each at
``OWNER+REPO/repo``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from patchforge.hashes import ArchiveHash, IncompleteTreeError, of_checkout, of_clone, of_tarball
from patchforge.hashes.objects import isolated
from tests.hashes.test_judges import needs_nix, nix_hash

PAIRS, MIRRORS = os.environ.get("PATCHFORGE_PAIRS"), os.environ.get("PATCHFORGE_MIRRORS")
pytestmark = pytest.mark.skipif(
    not (PAIRS and MIRRORS), reason="PATCHFORGE_PAIRS and PATCHFORGE_MIRRORS name no pins and clones"
)
Pin = dict[str, Any]


def at_hand() -> Iterator[tuple[Pin, Path]]:
    """Pins and the clones that have them; what is absent is printed."""
    for pin in json.loads(Path(PAIRS or "").read_bytes()):
        clone = Path(MIRRORS or "") / f"{pin['owner']}+{pin['repo']}" / "repo"
        if clone.is_dir():
            yield pin, clone
        else:
            print("not at hand:", pin["owner"], pin["repo"], pin["rev"])


def from_tarball(clone: Path, commit: str) -> ArchiveHash:
    """As GitHub packs it. The clone's settings play no part."""
    with isolated(clone) as objects:
        objects.require(objects.listing(commit))
        with objects.piped("archive", "--format=tar.gz", "--prefix=x/", commit) as stream:
            return of_tarball(stream, str(clone), commit)


def from_nix(clone: Path, commit: str) -> str:
    """What ``nix hash path`` finds of the unpacked tarball."""
    with isolated(clone) as objects, tempfile.TemporaryDirectory() as folder:
        with objects.piped("archive", "--format=tar", "--prefix=top/", commit) as stream:
            subprocess.run(["tar", "-x", "-C", folder], stdin=stream, check=True)
        return nix_hash(Path(folder, "top"))


def with_submodules(clone: Path, commit: str) -> str:
    """The hash of a checkout with its submodules, "" when there are none or their clones are not at hand."""
    with isolated(clone) as objects:
        if not any(blob.is_submodule for blob in objects.listing(commit)):
            return ""
        text = objects.run("show", f"{commit}:.gitmodules").decode()
    named = re.findall(r"path = (\S+)\s+url = https://github.com/([\w-]+)/([\w.-]+?)(?:\.git)?\s", text)
    clones = {path: Path(MIRRORS or "") / f"{owner}+{repo}" / "repo" for path, owner, repo in named}
    return of_checkout(clone, commit, clones).hash if all(each.is_dir() for each in clones.values()) else ""


@pytest.mark.parametrize("of", [of_clone, from_tarball])
def test_published_pins_are_reproduced(of: Callable[[Path, str], ArchiveHash]) -> None:
    """Pins with fetchSubmodules = true from checkouts; no tarball has their submodules."""
    right, wrong = 0, []
    for pin, clone in at_hand():
        name = f"{pin['owner']}/{pin['repo']} {pin['rev']}"
        try:
            computed = of(clone, pin["rev"]).hash
        except IncompleteTreeError as error:
            print(f"incomplete: {name}: {error.missing}")
            continue
        if computed != pin["hash"] and (whole := with_submodules(clone, pin["rev"])):
            computed = whole
            print(f"with submodules: {name}")
        right += computed == pin["hash"]
        wrong += [] if computed == pin["hash"] else [f"{name}: {computed}"]
    print(f"reproduced: {right}")
    assert not wrong
    assert right


@needs_nix
def test_nix_finds_ten_of_them_too() -> None:
    newest = {(pin["owner"], pin["repo"]): (pin, clone) for pin, clone in at_hand()}
    for pin, clone in list(newest.values())[:10]:
        assert from_nix(clone, pin["rev"]) == pin["hash"], pin
