"""Published fetchFromGitHub pins, reproduced from clones.

PATCHFORGE_PAIRS names a JSON list of {owner, repo, rev, hash}; PATCHFORGE_MIRRORS a folder of clones, each at
``OWNER+REPO/repo``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from patchforge.hashes import IncompleteTreeError, of_clone

PAIRS, MIRRORS = os.environ.get("PATCHFORGE_PAIRS"), os.environ.get("PATCHFORGE_MIRRORS")


@pytest.mark.skipif(not (PAIRS and MIRRORS), reason="PATCHFORGE_PAIRS and PATCHFORGE_MIRRORS name no pins and clones")
def test_published_pins_are_reproduced() -> None:
    wrong, incomplete, absent = [], [], []
    for pin in json.loads(Path(PAIRS or "").read_bytes()):
        clone = Path(MIRRORS or "") / f"{pin['owner']}+{pin['repo']}" / "repo"
        name = f"{pin['owner']}/{pin['repo']} {pin['rev']}"
        if not clone.is_dir():
            absent.append(name)
            continue
        try:
            found = of_clone(clone, pin["rev"])
        except IncompleteTreeError as error:
            incomplete.append(f"{name}: {error.missing}")
            continue
        submodules = any(note.kind == "submodules" for note in found.notes)
        if found.hash != pin["hash"] and not submodules:  # then the pin may have fetchSubmodules
            wrong.append(name)
    print("incomplete:", *incomplete, "not at hand:", *absent, sep="\n")
    assert not wrong
