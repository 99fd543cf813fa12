"""What is committed under generated/nodes/: whole, current, of the pinned revision and without upstream's context."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from patchforge import patches
from patchforge.engine.cache import pack_rules_digest
from patchforge.nodes.convert import convert
from patchforge.nodes.manifest import FORMAT, load
from patchforge.nodes.pack import read_pack
from patchforge.nodes.patched import PatchedPack
from patchforge.nodes.report import markdown
from patchforge.outputs import listed
from patchforge.pattern import Options
from patchforge.pins import pin_files
from tests.support import ROOT

FOLDERS = sorted(path for path in (ROOT / "generated" / "nodes").iterdir() if path.is_dir())
PINS = pin_files.load("nodes", ROOT / "upstream" / "pins")
CLONES = os.environ.get("PATCHFORGE_PACKS", "")
MOST_REPLACED = 40  #: upstream's lines that a committed patch may repeat

every_pack = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return manifest


def test_some_are_there() -> None:
    assert {"controlnet-aux", "frame-interpolation", "seedvr2"} <= {folder.name for folder in FOLDERS}


@every_pack
def test_it_is_of_the_pinned_revision_by_these_rules(folder: Path) -> None:
    manifest, pin = manifest_of(folder), PINS[folder.name]
    assert (manifest["pack"], manifest["commit"]) == (pin.repo, pin.rev)
    assert manifest["rules"] == pack_rules_digest(), f"patchforge packs apply CLONE --out generated/nodes/{folder.name}"


@every_pack
def test_series_manifest_and_report_fit_the_patch(folder: Path) -> None:
    manifest = manifest_of(folder)
    names = [entry["file"] for entry in manifest["patches"]]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["REPORT.md", "SHA256SUMS", "manifest.json", "series", *names]
    )
    assert (folder / "series").read_text("utf-8").split() == names
    assert (folder / "REPORT.md").read_text("utf-8") == markdown(load(folder))
    assert FORMAT.dump(load(folder)) == (folder / "manifest.json").read_bytes()
    for entry in manifest["patches"]:
        data = (folder / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert [part.path for part in patches.parse(data)] == [file["path"] for file in entry["files"]]


@every_pack
def test_the_patch_holds_no_context_and_few_of_upstreams_lines(folder: Path) -> None:
    for path in sorted(folder.glob("*.patch")):
        lines = [line for part in patches.parse(path.read_bytes()) for hunk in part.hunks for line in hunk.lines]
        assert {sign for sign, _ in lines} == {b"+", b"-"}
        assert sum(sign == b"-" for sign, _ in lines) <= MOST_REPLACED


@every_pack
def test_its_licence_restricts_no_use(folder: Path) -> None:
    """A patch repeats the lines that it replaces, and this repository is under the GPL."""
    assert not any(word in PINS[folder.name].license for word in ("LicenseRef", "-NC"))


@pytest.mark.upstream
@pytest.mark.skipif(not CLONES, reason="PATCHFORGE_PACKS names no folder with checkouts of the packs")
@every_pack
def test_it_is_generated_again_byte_for_byte(folder: Path) -> None:
    pin = PINS[folder.name]
    clone = Path(CLONES, pin.repo)
    if not clone.is_dir():
        pytest.skip(f"{clone} is not there")
    head = subprocess.run(["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert head.stdout.strip() == pin.rev, "check out the pinned revision"
    patched = PatchedPack(convert(read_pack(clone), Options()), pin.rev)
    patched.check()
    assert listed(patched.files()) == {path.name: path.read_bytes() for path in folder.iterdir()}
