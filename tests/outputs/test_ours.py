"""What patchforge knows as its own: by list, by mark, and by what earlier versions wrote."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from patchforge import outputs
from patchforge.errors import PatchforgeError
from patchforge.nix.generate import NIX, is_our_flake
from patchforge.nodes.report import is_ours, sarif, sarif_file
from patchforge.outputs import LIST, PATCHES, OutputKind, listed, mark, marked, prove, write_folder
from patchforge.pins.pin_files import are_pins
from patchforge.trial.reports.evidence import EVIDENCE
from tests.outputs.world import patches, state
from tests.support import ROOT
from tests.trial import examples


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


GENERATED = sorted(path.parent for path in (ROOT / "generated").glob("*/*/manifest.json"))


@pytest.mark.parametrize("folder", GENERATED, ids=lambda path: path.name)
def test_what_is_committed_may_be_replaced(folder: Path) -> None:
    prove(folder, PATCHES)


def without_list(folder: Path, source: Path) -> Path:
    shutil.copytree(source, folder)
    (folder / LIST).unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("source", GENERATED, ids=lambda path: path.name)
def test_patches_of_earlier_versions_are_replaced_unless_edited(source: Path, tmp_path: Path) -> None:
    folder = without_list(tmp_path / "out", source)
    for name in ("0001-device-support.patch", "0001-xpu.patch", "series"):
        if (folder / name).is_file():
            before = (folder / name).read_bytes()
            (folder / name).write_bytes(before + b"mine\n")
            with pytest.raises(PatchforgeError, match=f"{name}, edited since"):
                write_folder(folder, patches(), PATCHES)
            (folder / name).write_bytes(before)
    assert write_folder(folder, patches(), PATCHES)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == listed(patches())


#: What came beside the Nix files when folders had a list already.
LATER = (
    "modules/fetch-models.py",
    "modules/resizable-bar.sh",
    "data/suites.json",
    "data/nixpkgs.json",
    "data/door.json",
    "data/benchmark.json",
    "packages/benchmark.sh",
)


def test_nix_of_earlier_versions(tmp_path: Path) -> None:
    folder = without_list(tmp_path / "nix", ROOT / "generated" / "nix")
    for later in LATER:
        (folder / later).unlink()
    prove(folder, NIX)
    (folder / "packages" / "mine.nix").write_text("{ }\n")
    with pytest.raises(PatchforgeError, match=r"packages/mine\.nix"):
        prove(folder, NIX)
    (folder / "packages" / "mine.nix").rename(folder / "mine.txt")
    with pytest.raises(PatchforgeError, match=r"mine\.txt"):
        prove(folder, NIX)


def test_evidence_of_earlier_versions(tmp_path: Path) -> None:
    document = {"format": 1, "sessions": [{"judgements": [{"images": ["images/patched/main/a.png"]}]}]}
    files = {"evidence.json": json.dumps(document).encode(), "report.md": b"x", "images/patched/main/a.png": b"p"}
    folder = fill(tmp_path / "v0.32.0-cpu", files)
    prove(folder, EVIDENCE)
    (folder / "images" / "patched" / "main" / "mine.png").write_bytes(b"mine")
    with pytest.raises(PatchforgeError, match=r"mine\.png"):
        prove(folder, EVIDENCE)


def test_line_ends_that_git_made_are_no_edit(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", {name: data.replace(b"\n", b"\r\n") for name, data in listed(patches()).items()})
    assert write_folder(folder, patches("+2\n"), PATCHES)


def test_a_file_of_ours_that_was_removed_is_no_loss(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", patches(), PATCHES)
    (tmp_path / "out" / "series").unlink()
    assert write_folder(tmp_path / "out", patches("+2\n"), PATCHES)
    assert (tmp_path / "out" / "series").is_file()


def test_the_list_is_one_that_sha256sum_reads(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", patches(), PATCHES)
    done = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", LIST], cwd=tmp_path / "out", check=False)
    assert done.returncode == 0


def test_a_list_that_a_stranger_ships_covers_no_files_of_his(tmp_path: Path) -> None:
    pack = fill(tmp_path / "pack", listed({"__init__.py": b"import os\n", "0001-xpu.patch": b"+1\n"}))
    with pytest.raises(PatchforgeError, match=r"__init__\.py"):
        write_folder(pack, patches(), PATCHES)
    assert (pack / "__init__.py").read_bytes() == b"import os\n"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"# Written by somebody\n",
        outputs.listed({})[LIST] + b"no digest\n",
        outputs.listed({})[LIST] + b"0" * 64 + b"  mine.patch",
        outputs.listed({})[LIST] + b"0" * 64 + b"  a/../mine.patch\n",
        outputs.listed({})[LIST] + (b"0" * 64 + b"  mine.patch\n") * 2,
    ],
)
def test_lists_that_prove_nothing(text: bytes, tmp_path: Path) -> None:
    fill(tmp_path / "out", {LIST: text, "mine.patch": b"mine"})
    before = state(tmp_path)
    with pytest.raises(PatchforgeError):
        write_folder(tmp_path / "out", patches(), PATCHES)
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {"format": 1},
        {"format": 1, "rules": "r", "patches": {}},
        {"format": 1, "rules": "r", "patches": ["mine.patch"]},
        {"format": 1, "rules": "r", "patches": [{"file": "mine.patch"}]},
        {"format": 1, "rules": "r", "patches": [{"file": "mine.patch", "sha256": 7}]},
        {"format": 1, "rules": "r", "patches": [{"file": "mine.patch", "sha256": "0" * 64}]},
        {"format": 2, "rules": "r", "patches": []},
        {"format": 1, "rules": 7, "patches": []},
    ],
)
def test_manifests_that_prove_nothing(manifest: object, tmp_path: Path) -> None:
    fill(tmp_path / "out", {"manifest.json": json.dumps(manifest).encode(), "mine.patch": b"mine"})
    before = state(tmp_path)
    with pytest.raises(PatchforgeError):
        write_folder(tmp_path / "out", patches(), PATCHES)
    assert state(tmp_path) == before


def test_a_manifest_that_nests_too_deep(tmp_path: Path) -> None:
    fill(tmp_path / "out", {"manifest.json": b"[" * 100_000, "mine.patch": b"mine"})
    with pytest.raises(PatchforgeError, match="holds other files"):
        write_folder(tmp_path / "out", patches(), PATCHES)


def test_a_file_saved_while_it_is_written_is_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(out, patches(), PATCHES)
    for moment in ("mkdir", "whole", "exchange", "prove"):

        def save(step: str, moment: str = moment) -> None:
            if step == moment:
                place = out if moment != "prove" else next(tmp_path.glob(".out.*")) / "whole"
                (place / "notes.txt").write_bytes(b"mine")

        before = listed(patches())
        with pytest.raises(PatchforgeError, match=r"notes\.txt"):
            write_folder(out, patches("+2\n"), PATCHES, step=save)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == {**before, "notes.txt": b"mine"}
        assert list(tmp_path.iterdir()) == [out]
        (out / "notes.txt").unlink()


def test_an_edit_saved_while_a_file_is_written_is_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "flake.nix"
    outputs.write_document(out, marked(f"# {mark()}\n1\n"))

    def save(step: str) -> None:
        if step.startswith("half"):
            out.write_bytes(b"mine")

    with pytest.raises(PatchforgeError, match="another file"):
        outputs.write_document(out, marked(f"# {mark()}\n2\n"), step=save)
    assert out.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [out]


def test_nothing_is_left_where_nothing_could_be_written(tmp_path: Path) -> None:
    def full(step: str) -> None:
        if step.startswith("half of REPORT"):
            raise OSError(28, "No space left on device")

    for out in (tmp_path / "a" / "b" / "out", tmp_path / "out"):
        with pytest.raises(OSError, match="No space"):
            write_folder(out, patches(), PATCHES, step=full)
    assert list(tmp_path.iterdir()) == []


def test_a_mark_is_of_all_other_lines() -> None:
    data = marked(f"a\n<!-- {mark()} -->\nb\n")
    assert outputs.is_marked(data)
    assert outputs.is_marked(data.replace(b"\n", b"\r\n"))
    line = next(text for text in data.splitlines() if b"sha256" in text)
    assert line.split()[-2].decode() == hashlib.sha256(b"a\nb\n").hexdigest()
    for edited in (data + b"c\n", data.replace(b"a\n", b"A\n"), data.replace(b"b\n", b""), data.replace(line, b"")):
        assert not outputs.is_marked(edited)
    with pytest.raises(ValueError, match="no mark"):
        marked("no line for it\n")


def test_sarif_is_known_with_its_mark_and_as_earlier_versions_wrote_it() -> None:
    new, old = sarif_file([]), (json.dumps(sarif([]), indent=1) + "\n").encode()
    assert is_ours(new)
    assert is_ours(old)
    assert json.loads(new)["runs"][0]["results"] == []
    for other in (
        new + b"\n",
        old + b"\n",
        old.replace(b'"patchforge"', b'"other"'),
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 9999,
    ):
        assert not is_ours(other)


def test_flakes_are_known_with_their_mark_and_as_earlier_versions_wrote_them() -> None:
    note = b"# Generated by `patchforge nix` from templates/nix/flake.nix.j2; edit that. The rest is elsewhere.\n{ }\n"
    assert is_our_flake(note)
    assert is_our_flake((ROOT / "flake.nix").read_bytes())
    assert not is_our_flake(b"{ }\n" + note)
    assert not is_our_flake(b"{ }\n")


@pytest.mark.parametrize("path", sorted((ROOT / "upstream" / "pins").rglob("*.json")), ids=lambda path: path.stem)
def test_every_pin_that_is_committed_is_known(path: Path) -> None:
    kind = path.relative_to(ROOT / "upstream" / "pins").as_posix().removesuffix(".json")
    assert are_pins(kind, path.read_bytes())


@pytest.mark.parametrize(
    "data", [b"[]", b"7", b'{"a": 1}', b'{"a": {"b": 1}}', b'{"a": {"b": {"c": 1}}}', b"[" * 99999]
)
def test_what_does_not_hold_pins(data: bytes) -> None:
    assert not are_pins("nodes", data)
    assert not are_pins("torch/2.14.0-cp312", data)


def test_evidence_and_reports_of_today_are_listed(tmp_path: Path) -> None:
    from patchforge.trial.reports import evidence, report

    trial = examples.evidence()
    evidence.save(tmp_path / "out", trial, dict.fromkeys(trial.pictures, examples.PICTURE))
    report.write(tmp_path / "out", [trial])
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"evidence.json", "report.md", "report.html", LIST} <= names
    prove(tmp_path / "out", EVIDENCE)
    assert evidence.load(tmp_path / "out") == trial


def test_every_name_of_a_kind_is_written_by_it() -> None:
    for kind, names in ((PATCHES, patches()), (NIX, {"a/b.nix": b"", "data/x.json": b"", "packages/launch.sh": b""})):
        assert isinstance(kind, OutputKind)
        assert all(kind.names.fullmatch(name) for name in names)
        assert not kind.names.fullmatch("../x.nix")
        assert not kind.names.fullmatch("x.txt")


#: Who writes without asking ``outputs``: itself, the cache's owner, and what patches a checkout by its own rules.
MAY = {"patchforge/outputs.py", "patchforge/caches.py", "patchforge/inplace.py"}


def _calls(path: Path) -> set[str]:
    """Names of functions of ``atomic`` that a module has."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module == "patchforge.atomic":
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "atomic":
            names.add(node.attr)
    return names & {"write_tree", "write_file"}


def test_nobody_writes_without_asking() -> None:
    modules = [path for path in (ROOT / "patchforge").rglob("*.py") if _calls(path)]
    assert {path.relative_to(ROOT).as_posix() for path in modules} <= MAY
