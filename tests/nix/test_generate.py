"""What ``patchforge nix`` writes."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchforge.commands import nix as command
from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import trusted
from patchforge.nix.generate import Generated, generate
from tests.nix.sandbox import ABI, MOCK, PYTHON, REAL_LIB, Miniature, Nix, write_json
from tests.support import ROOT

COMMITTED = ROOT / "generated" / "nix"


def files() -> list[Path]:
    return sorted(path for path in COMMITTED.rglob("*") if path.is_file())


def options(folder: Path, **changes: bool) -> argparse.Namespace:
    given = {"options": None, "units": None, "check": False, "dry_run": False, "json": False}
    return argparse.Namespace(generated=str(folder), **given, **changes)


def test_what_is_committed_is_what_is_generated(capsys: pytest.CaptureFixture[str]) -> None:
    given = options(ROOT / "generated")
    given.check = True
    assert command.run(given) == 0, capsys.readouterr().out


def test_every_file_parses_without_a_warning(nix: Nix, mini: Miniature) -> None:
    sources = [*files(), ROOT / "flake.nix", *(mini.project / "generated" / "nix").rglob("*")]
    nix_files = [str(path) for path in sources if path.suffix == ".nix"]
    done = nix.run("nix-instantiate", "--parse", *nix_files)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(nix_files)


def test_every_file_is_plain_text() -> None:
    for path in files():
        data = path.read_bytes()
        assert data.endswith(b"\n"), path
        assert b"\t" not in data, path
        assert b"\r" not in data, path


def test_no_hash_is_a_place_holder_and_none_is_in_code() -> None:
    hashes = 0
    for path in files():
        for text in re.findall(r"sha256-[A-Za-z0-9+/]{43}=", path.read_text()):
            assert path.suffix == ".json", path
            assert trusted(text) == text
            hashes += 1
    assert hashes > 20


def test_no_version_is_in_code() -> None:
    pins = json.loads((COMMITTED / "data" / "comfyui.json").read_bytes())["releases"]
    versions = "|".join(re.escape(name.removeprefix("v")) for name in pins)
    for path in files():
        if path.suffix == ".nix":
            assert not re.search(versions, path.read_text()), path


def made(mini: Miniature, upstream: Path) -> Generated:
    return generate(upstream, mini.project / "generated")


@pytest.fixture
def pinned(mini: Miniature, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mini.project / "upstream", tmp_path / "upstream"))


def test_again_gives_the_same_bytes(mini: Miniature, pinned: Path) -> None:
    first, other = made(mini, pinned), made(mini, pinned)
    assert (first.files, first.flake) == (other.files, other.flake)
    assert json.loads(first.files["data/comfyui.json"])["default"] == "v0.33.0"


@pytest.mark.parametrize("kind", ["comfyui", "python", "nodes", "ollama", "mordragt-nixos"])
def test_a_missing_pin_is_named(mini: Miniature, pinned: Path, kind: str) -> None:
    (pinned / "pins" / f"{kind}.json").unlink()
    with pytest.raises(PatchforgeError, match=rf"pins/{kind}\.json is not there") as error:
        made(mini, pinned)
    assert error.value.do == f"patchforge pin {kind}"


def test_no_lock_of_torch_is_left_to_evaluation(mini: Miniature, pinned: Path) -> None:
    shutil.rmtree(pinned / "pins" / "torch")
    assert json.loads(made(mini, pinned).files["data/torch.json"])["locks"] == {}


def test_the_first_python_with_a_complete_lock_is_used(mini: Miniature, pinned: Path) -> None:
    def versions() -> dict[str, str]:
        by_name: dict[str, str] = json.loads(made(mini, pinned).files["data/torch.json"])["versions"]
        return by_name

    assert versions() == {"2.14.0": PYTHON}  # 3.99 is preferred, and has no lock
    shutil.copy(pinned / f"pins/torch/2.14.0-{ABI}.json", pinned / "pins/torch/2.14.0-cp399.json")
    assert versions() == {"2.14.0": "3.99"}
    changed(pinned / "pins/torch/2.14.0-cp399.json", lambda lock: lock.update(complete=False))
    assert versions() == {"2.14.0": PYTHON}


def changed(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    write_json(path, value)


def test_patches_of_another_commit_are_refused(mini: Miniature, pinned: Path) -> None:
    changed(pinned / "pins/comfyui.json", lambda file: file["pins"]["v0.33.0"].update(rev="9" * 40))
    with pytest.raises(PatchforgeError, match="not for the pinned commit"):
        made(mini, pinned)


def test_a_node_packs_patch_for_another_commit_is_refused(mini: Miniature, pinned: Path) -> None:
    changed(pinned / "pins/nodes.json", lambda file: file["pins"]["a-node"].update(rev="9" * 40))
    with pytest.raises(PatchforgeError, match="patches of a-node are not for the pinned commit") as error:
        made(mini, pinned)
    assert error.value.do.startswith("patchforge packs apply")


def test_a_node_pack_has_its_patch_if_there_is_one(mini: Miniature, pinned: Path, tmp_path: Path) -> None:
    assert json.loads(made(mini, pinned).files["data/nodes.json"])["a-node"]["patches"] == ["0001-xpu.patch"]
    shutil.copytree(mini.project / "generated" / "comfyui", tmp_path / "comfyui")
    generated = generate(pinned, tmp_path)
    assert json.loads(generated.files["data/nodes.json"])["a-node"]["patches"] == []


def test_a_pinned_release_without_patches_is_refused(mini: Miniature, pinned: Path) -> None:
    changed(pinned / "pins/comfyui.json", lambda file: file["pins"].update({"v0.99.0": file["pins"]["v0.33.0"]}))
    with pytest.raises(PatchforgeError, match=r"v0\.99\.0 is pinned and has no patches"):
        made(mini, pinned)


def test_a_place_holder_is_refused(mini: Miniature, pinned: Path) -> None:
    fake = "sha256-" + "A" * 43 + "="
    changed(pinned / "pins/comfyui.json", lambda file: file["pins"]["v0.33.0"].update(hash=fake))
    with pytest.raises(CheckFailed, match="fakeHash"):
        made(mini, pinned)


def test_a_node_pack_without_a_hash_is_left_out_and_said(mini: Miniature, pinned: Path) -> None:
    changed(pinned / "pins/nodes.json", lambda file: file["pins"]["a-node"].pop("hash"))
    generated = made(mini, pinned)
    assert generated.left_out == ("a-node",)
    assert json.loads(generated.files["data/nodes.json"]) == {}


def test_a_wheel_without_address_gets_pypis(mini: Miniature, pinned: Path) -> None:
    pin = json.loads(made(mini, pinned).files["data/python.json"])["comfy-kitchen"]["0.2.31"]
    file = f"comfy_kitchen-0.2.31-{ABI}-{ABI}-manylinux_2_28_x86_64.whl"
    assert pin["url"] == f"https://files.pythonhosted.org/packages/{ABI}/c/comfy_kitchen/{file}"


def test_an_address_cannot_become_code(mini: Miniature, pinned: Path) -> None:
    changed(pinned / "pins/mordragt-nixos.json", lambda pin: pin.update(repo='x"; evil = "${y}'))
    assert rb'url = "github:MordragT/x\"; evil = \"\${y}/' in made(mini, pinned).flake


def test_the_options_page_is_current(nix: Nix, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(ROOT / "generated")
    for lib in filter(None, (str(MOCK / "lib"), REAL_LIB)):
        given.options = lib
        assert command.run(given) == 0
        assert capsys.readouterr().out == (ROOT / "docs" / "nix-options.md").read_text()


def test_check_and_dry_run_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "generated"
    for name in ("comfyui", "nodes"):
        shutil.copytree(ROOT / "generated" / name, folder / name)
    given = options(folder)
    given.check = True
    assert command.run(given) == 1
    given.check, given.dry_run = False, True
    assert command.run(given) == 0
    assert not (folder / "nix").exists()
    given.dry_run = False
    assert command.run(given) == 0
    assert (tmp_path / "flake.nix").read_bytes() == (ROOT / "flake.nix").read_bytes()
    (folder / "nix" / "stray.nix").write_text("{ }\n")
    (folder / "nix" / "data.nix").write_text("changed\n")
    given.check, given.json = True, True
    capsys.readouterr()
    assert command.run(given) == 1
    names = [Path(path).name for path in json.loads(capsys.readouterr().out)["changes"]]
    assert names == ["data.nix", "stray.nix"]
