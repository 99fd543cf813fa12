"""What is committed under generated/: whole, current and without upstream's context."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from patchforge import patches
from patchforge.engine.cache import rule_set_digest
from patchforge.manifest import FORMAT, load
from patchforge.pipeline import runtime_changes
from patchforge.templating import report
from tests.support import ROOT

FOLDERS = sorted((ROOT / "generated" / "comfyui").glob("v*"))


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return manifest


def test_the_promised_releases_are_there() -> None:
    assert {"v0.32.0", "v0.25.0", "v0.3.47"} <= {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_was_made_by_these_rules(folder: Path) -> None:
    assert manifest_of(folder)["rules"] == rule_set_digest(), "run make generated with a clone of upstream"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_series_manifest_and_report_fit_the_patches(folder: Path) -> None:
    manifest = manifest_of(folder)
    names = [entry["file"] for entry in manifest["patches"]]
    assert (folder / "series").read_text(encoding="utf-8").split() == names
    assert sorted(names) == sorted(path.name for path in folder.glob("*.patch"))
    for entry in manifest["patches"]:
        assert hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    assert (folder / "REPORT.md").read_text(encoding="utf-8") == report("release", load(folder))
    assert FORMAT.dump(load(folder)) == (folder / "manifest.json").read_bytes()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_patches_hold_no_context_and_the_runtime_module(folder: Path) -> None:
    for path in sorted(folder.glob("*.patch")):
        data = path.read_bytes()
        assert not [line for line in data.splitlines() if line.startswith(b" ")]
        for part in patches.parse(data):
            assert all(sign != b" " for hunk in part.hunks for sign, _ in hunk.lines)
            added = {change.path: change.after for change in runtime_changes()}
            if part.path in added:
                assert b"".join(line for hunk in part.hunks for _, line in hunk.lines) == added[part.path]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_nothing_is_left_to_decide(folder: Path) -> None:
    manifest = manifest_of(folder)
    assert manifest["sites"]["unclaimed"] == 0
    assert all(transform["outcome"] == transform["expected"] for transform in manifest["transforms"])
