"""Which folder is what: ComfyUI, a part of it, the folder of all packs, one pack, a folder around them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from patchforge.checkout.examine import FolderState
from patchforge.checkout.examine import look as look_at
from patchforge.checkout.place import FolderKind, where
from patchforge.cli import main
from patchforge.errors import PatchforgeError
from patchforge.nodes.pack import read_pack
from tests.checkout import places
from tests.checkout.places import PACK, content, fill

NODE = b"NODE_CLASS_MAPPINGS = {}\n"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A portable build, a folder of packs elsewhere, and links."""
    tmp_path = tmp_path / "world"
    portable = fill(
        tmp_path / "portable",
        {
            "python_embeded/Lib/os.py": b"",
            "helper.py": b"",
            "ComfyUI/main.py": b"",
            "ComfyUI/comfy/model_management.py": b"",
            "ComfyUI/comfy/ops.py": b"",
            "ComfyUI/user/notes.py": b"",
            "ComfyUI/custom_nodes/websocket_image_save.py": NODE,
            "ComfyUI/custom_nodes/pack/__init__.py": NODE,
            "ComfyUI/custom_nodes/pack/src/nodes.py": b"",
            "ComfyUI/custom_nodes/.disabled/off/__init__.py": NODE,
        },
    )
    fill(tmp_path / "elsewhere", {"loose.py": b"", "one/__init__.py": NODE, "two/__init__.py": NODE})
    fill(tmp_path / "desktop", {"custom_nodes/x/__init__.py": NODE})
    fill(tmp_path / "Documents/ComfyUI", {"custom_nodes/x.py": b"", "models/a": b"", "user/a": b"", ".venv/x.py": b""})
    fill(tmp_path / "data", {"custom_nodes/loose.py": b"", "custom_nodes/x/__init__.py": NODE})
    fill(tmp_path / "dev" / "pack", {"__init__.py": NODE, "vendored/comfy/model_management.py": b""})
    fill(tmp_path / "empty", {"a.txt": b""})
    fill(
        tmp_path / "to_copy",
        {"README.md": b"", "custom_nodes/masks.py": NODE, "custom_nodes/__pycache__/masks.pyc": b""},
    )
    fill(tmp_path / "fresh", {"custom_nodes/websocket_image_save.py": NODE})
    fill(tmp_path / "models", {"custom_nodes/masks.py": NODE, "models/a": b""})
    fill(tmp_path / "script", {"a.py": b"", "sub/__init__.py": b""})
    (portable / "ComfyUI/custom_nodes/linked").symlink_to(tmp_path / "dev" / "pack")
    (tmp_path / "to_comfy").symlink_to(portable / "ComfyUI" / "comfy")
    return tmp_path


C = "portable/ComfyUI"
WHERE = {
    C: (FolderKind.COMFYUI, C),
    f"{C}/../ComfyUI": (FolderKind.COMFYUI, f"{C}/../ComfyUI"),
    f"{C}/comfy": (FolderKind.WITHIN, C),
    f"{C}/user": (FolderKind.WITHIN, C),
    "to_comfy": (FolderKind.WITHIN, C),
    f"{C}/custom_nodes": (FolderKind.PACKS, C),
    f"{C}/custom_nodes/.disabled": (FolderKind.PACKS, C),
    f"{C}/custom_nodes/pack": (FolderKind.PACK, ""),
    f"{C}/custom_nodes/linked": (FolderKind.PACK, ""),
    f"{C}/custom_nodes/.disabled/off": (FolderKind.PACK, ""),
    f"{C}/custom_nodes/pack/src": (FolderKind.IN_PACK, f"{C}/custom_nodes/pack"),
    "portable": (FolderKind.PORTABLE, C),
    "": (FolderKind.ABOVE, C),
    "elsewhere": (FolderKind.PACKS, ""),
    "data/custom_nodes": (FolderKind.PACKS, ""),
    "desktop": (FolderKind.ABOVE, "desktop"),
    "Documents/ComfyUI": (FolderKind.DATA, ""),
    "dev/pack": (FolderKind.PACK, ""),
    "script": (FolderKind.PACK, ""),
    "to_copy": (FolderKind.PACK, ""),
    "fresh": (FolderKind.ABOVE, "fresh"),
    "models": (FolderKind.ABOVE, "models"),
    "empty": (FolderKind.OTHER, ""),
}


@pytest.mark.parametrize("name", WHERE)
def test_what_a_folder_is(world: Path, name: str) -> None:
    place, right = WHERE[name]
    location = where(world / name)
    assert location.place is place
    assert location.right == (world / right if right else None)


@pytest.mark.parametrize("name", [name for name, (place, _) in WHERE.items() if place is not FolderKind.PACK])
def test_what_is_not_one_pack_is_refused_as_one(world: Path, name: str) -> None:
    before = content(world)
    with pytest.raises(PatchforgeError) as caught:
        read_pack(world / name)
    assert caught.value.do
    for command in places.COMMANDS.values():
        with pytest.raises(PatchforgeError):
            command(world / name, places.pack())
    assert content(world) == before


@pytest.mark.parametrize("name", [name for name, (place, _) in WHERE.items() if place is not FolderKind.COMFYUI])
def test_what_is_not_comfyui_is_refused_as_it(world: Path, name: str) -> None:
    before = content(world)
    for command in (places.apply, places.revert):
        with pytest.raises(PatchforgeError) as caught:
            command(world / name, places.comfyui())
        right = WHERE[name][1]
        assert not right.endswith("ComfyUI") or f"name {world / right}" in caught.value.do
        assert "repair" not in caught.value.do
    assert content(world) == before


def test_the_state_of_a_wrong_folder_names_the_right_one(world: Path) -> None:
    for name, (place, right) in WHERE.items():
        examined = look_at(world / name)
        if place in (FolderKind.WITHIN, FolderKind.ABOVE, FolderKind.PORTABLE, FolderKind.IN_PACK):
            assert examined.state is FolderState.UNKNOWN
            assert examined.do == f"name {world / right}"


def test_packs_that_were_converted_as_one_can_be_put_back(tmp_path: Path) -> None:
    """As an earlier patchforge did: the journal is in the folder of all packs."""
    packs = fill(tmp_path / "other", {f"one/{path}": data for path, data in PACK.items()})
    fill(packs, {"loose.py": b"import torch\n"})
    (packs / "one" / "__init__.py").write_bytes(b"from . import nodes\n")
    before = content(packs)
    places.apply(packs, places.pack())
    fill(packs.rename(tmp_path / "custom_nodes"), {})
    packs = tmp_path / "custom_nodes"
    examined = look_at(packs)
    assert not examined.in_order
    assert places.named(examined) == "revert"
    with pytest.raises(PatchforgeError, match="all packs") as caught:
        places.update(packs, places.pack())
    assert f"packs revert {packs}" in caught.value.do
    with pytest.raises(PatchforgeError, match="was converted with all") as caught:
        places.revert(packs / "one", places.pack())
    assert f"{packs}" in caught.value.do
    places.revert(packs, places.pack())
    assert content(packs) == before
    assert not os.path.lexists(packs / ".patchforge")


@pytest.mark.parametrize("arguments", [("nodes", "apply"), ("nodes", "check"), ("nodes", "revert"), ("apply",)])
def test_commands_name_the_right_folder(
    world: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([*arguments, str(world / C)])
    assert status == 2
    assert f"patchforge apply {world / C}" in capsys.readouterr().err


def test_a_tarball_in_place_of_a_release_is_read_with_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"")
    assert main(["apply", str(tmp_path / "x.tar.gz")]) == 2
    assert f"--from {tmp_path / 'x.tar.gz'}" in capsys.readouterr().err


def test_a_pack_is_told_where_it_was_written_and_how_to_undo_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = fill(tmp_path / "pack", PACK)
    assert main(["nodes", "apply", str(pack), "--out", str(tmp_path / "out")]) == 0
    assert f"written: {tmp_path / 'out'}" in capsys.readouterr().out
    assert main(["nodes", "apply", str(pack), "--in-place"]) == 0
    assert f"packs revert {pack}" in capsys.readouterr().out
    shutil.rmtree(pack / ".patchforge")
    assert main(["status", str(pack)]) == 1
    original = fill(tmp_path / "original", PACK)
    assert main(["repair", str(pack), "--from", str(tmp_path / "nothing")]) == 2
    assert main(["repair", str(pack), "--from", str(original)]) == 0
    assert "journal" in capsys.readouterr().out
    assert main(["nodes", "revert", str(pack)]) == 0
    assert content(pack) == PACK
