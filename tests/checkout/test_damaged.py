"""Journals of ours that the disk or a person damaged: status says what is wrong, and its command works as typed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge.checkout import change
from patchforge.checkout.examine import FolderState
from patchforge.checkout.place import command
from patchforge.errors import CheckFailed, Damaged, Exit, PatchforgeError
from tests.checkout import places
from tests.checkout.places import NEW, PACK, content, fill, look
from tests.checkout.test_real_life import git, plain

EDIT = b"# mine\n"
JOURNAL, MANIFEST = ".patchforge/journal.json", ".patchforge/manifest.json"
ORIGINAL, PATCH = ".patchforge/original/nodes.py", ".patchforge/0001-xpu.patch"


def cut(place: Path) -> None:
    place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])


def emptied(place: Path) -> None:
    place.write_bytes(b"")


def garbled(place: Path) -> None:
    place.write_bytes(b"\x00" * 100)


def removed(place: Path) -> None:
    place.unlink()


def one_byte(place: Path) -> None:
    data = place.read_bytes()
    place.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


REPAIR = command("pack", "repair", Path()).removesuffix(" .")
DAMAGES = (cut, emptied, garbled, removed, one_byte)


@pytest.fixture
def subject() -> places.Remembered:
    return places.pack()


@pytest.fixture
def pack(tmp_path: Path, subject: places.Remembered) -> Path:
    folder = fill(tmp_path / "pack", PACK)
    places.apply(folder, subject)
    return folder


@pytest.mark.parametrize("name", [ORIGINAL, PATCH])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_what_a_journal_lacks_is_said_and_had_back(
    pack: Path, subject: places.Remembered, name: str, damage: Callable[[Path], None]
) -> None:
    converted = content(pack)
    damage(pack / name)
    examined = look(pack, subject)
    assert examined.state is FolderState.PATCHED
    assert not examined.in_order
    assert name.removeprefix(".patchforge/") in examined.says
    assert places.named(examined) == "repair"
    places.repair(pack, subject)
    assert {**content(pack), JOURNAL: b""} == {**converted, JOURNAL: b""}
    assert look(pack, subject).in_order
    places.revert(pack, subject)
    assert content(pack) == PACK


@pytest.mark.parametrize("name", [ORIGINAL, PATCH])
def test_a_damaged_journal_is_enough_to_put_back_what_nobody_edited(
    pack: Path, subject: places.Remembered, name: str
) -> None:
    garbled(pack / name)
    places.revert(pack, subject)
    assert content(pack) == PACK


@pytest.mark.parametrize("name", [ORIGINAL, PATCH])
def test_what_cannot_be_had_back_comes_from_where_the_advice_says(
    pack: Path, subject: places.Remembered, tmp_path: Path, name: str
) -> None:
    garbled(pack / name)
    (pack / "nodes.py").write_bytes((pack / "nodes.py").read_bytes() + EDIT)
    edited = content(pack)
    examined = look(pack, subject)
    with pytest.raises(Damaged) as caught:
        places.revert(pack, subject)
    assert caught.value.status is Exit.DATA
    for advice in (examined.do, caught.value.do):
        assert advice.startswith(f"{REPAIR} {pack} --from")
    with pytest.raises(CheckFailed, match="nothing tells") as refused:
        places.repair(pack, subject)
    assert refused.value.do.startswith(f"{REPAIR} {pack} --from")
    assert content(pack) == edited
    original = fill(tmp_path / "original", PACK)
    with change.opened(pack) as inside:
        change.repair(inside, subject, [lambda: subject.tree(original)])
    assert look(pack, subject).in_order
    places.revert(pack, subject)
    assert content(pack) == {**PACK, "nodes.py": PACK["nodes.py"] + EDIT}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_a_broken_journal_is_written_anew_from_what_lies_beside_it(
    pack: Path, subject: places.Remembered, damage: Callable[[Path], None]
) -> None:
    converted = plain(pack)
    damage(pack / JOURNAL)
    examined = look(pack, subject)
    assert not examined.in_order
    assert places.named(examined) == "repair"
    with pytest.raises(Damaged) as caught:
        places.revert(pack, subject)
    assert caught.value.do.startswith(f"{REPAIR} {pack}")
    dry = places.repair(pack, subject, dry_run=True)
    assert not dry.writes
    assert not look(pack, subject).in_order
    places.repair(pack, subject)
    assert look(pack, subject).in_order
    assert plain(pack) == converted
    places.revert(pack, subject)
    assert content(pack) == PACK


def test_a_journal_that_nothing_can_be_had_from_is_put_aside(
    pack: Path, subject: places.Remembered, tmp_path: Path
) -> None:
    converted = plain(pack)
    for name in (JOURNAL, MANIFEST, ORIGINAL):
        garbled(pack / name)
    damaged = content(pack)
    examined = look(pack, subject)
    assert examined.do.startswith(f"{REPAIR} {pack} --from")
    with pytest.raises(CheckFailed) as caught:
        places.repair(pack, subject)
    assert caught.value.do.startswith(f"{REPAIR} {pack} --from")
    assert content(pack) == damaged
    original = fill(tmp_path / "original", PACK)
    with change.opened(pack) as inside:
        change.repair(inside, subject, [lambda: subject.tree(original)])
    assert look(pack, subject).in_order
    assert plain(pack) == converted
    aside = {path.replace("-not-obeyed-1", ""): data for path, data in content(pack).items() if "obeyed" in path}
    assert aside == {path: data for path, data in damaged.items() if path.startswith(".patchforge")}
    places.revert(pack, subject)
    assert plain(pack) == PACK


def test_git_tells_what_a_broken_journal_does_not(tmp_path: Path) -> None:
    files, subject = places.release_files(NEW), places.comfyui()
    folder = fill(tmp_path / "ComfyUI", files)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "release")
    places.apply(folder, subject)
    patched = plain(folder)
    for path in (JOURNAL, MANIFEST, ".patchforge/original/main.py"):
        garbled(folder / path)
    examined = look(folder, subject)
    assert examined.state is FolderState.PATCHED
    assert examined.do.startswith(f"{REPAIR} {folder} makes")
    with pytest.raises(Damaged):
        places.revert(folder, subject)
    places.repair(folder, subject)
    assert look(folder, subject).in_order
    assert plain(folder) == patched
    places.revert(folder, subject)
    assert plain(folder) == files
    assert git(folder, "status", "--porcelain") == ""


def test_a_strangers_folder_on_a_converted_pack_is_put_aside(
    pack: Path, subject: places.Remembered, tmp_path: Path
) -> None:
    """Nothing in it is obeyed, and nothing of it is lost."""
    converted = plain(pack)
    shutil.rmtree(pack / ".patchforge")
    (pack / ".patchforge").symlink_to(tmp_path / "elsewhere")
    original = fill(tmp_path / "original", PACK)
    with change.opened(pack) as inside:
        change.repair(inside, subject, [lambda: subject.tree(original)])
    assert (pack / ".patchforge-not-obeyed-1").is_symlink()
    assert not (tmp_path / "elsewhere").exists()
    assert plain(pack) == converted
    places.revert(pack, subject)
    assert plain(pack) == PACK


# --- whose names they are


OWN = b"_patchforge_cache = {}\n\n\ndef _patchforge_xpu():\n    return False\n\n\nNODE_CLASS_MAPPINGS = {}\n"


def test_a_name_like_ours_is_not_ours(tmp_path: Path, subject: places.Remembered) -> None:
    files = {**PACK, "own.py": OWN, "more.py": b"import patchforge_xpu\n" + PACK["more.py"]}
    pack = fill(tmp_path / "pack", files)
    assert look(pack, subject).state is FolderState.UNTOUCHED
    places.apply(pack, subject)
    converted = plain(pack)
    assert converted["own.py"] == OWN
    assert look(pack, subject).state is FolderState.PATCHED
    (pack / "own.py").write_bytes(OWN + b"_patchforge_more = 1\n")
    assert look(pack, subject).state is FolderState.PATCHED
    shutil.rmtree(pack / ".patchforge")
    assert look(pack, subject).state is FolderState.PATCHED
    (pack / "nodes.py").write_bytes(PACK["nodes.py"])
    (pack / "more.py").write_bytes(files["more.py"])
    assert look(pack, subject).state is FolderState.UNTOUCHED


@pytest.mark.parametrize("path", ["my_tool.py", "custom_nodes/mine.py"])
def test_a_users_own_file_that_names_the_module(tmp_path: Path, path: str) -> None:
    """Only files that transforms edit can be patched, and be restored."""
    files, subject = places.release_files(NEW), places.comfyui()
    files[path] = b"from comfy import patchforge_xpu\n"
    folder = fill(tmp_path / "ComfyUI", files)
    assert look(folder, subject).state is FolderState.UNTOUCHED
    places.apply(folder, subject)
    assert look(folder, subject).in_order
    places.update(folder, subject)
    places.revert(folder, subject)
    assert content(folder) == files


def test_a_users_own_file_beside_those_that_are_patched(tmp_path: Path) -> None:
    files, subject = places.release_files(NEW), places.comfyui()
    folder = fill(tmp_path / "ComfyUI", files)
    places.apply(folder, subject)
    mine = {"comfy/ldm/mine/net.py": b"from comfy import patchforge_xpu\n"}
    fill(folder, mine)
    assert look(folder, subject).state is FolderState.PATCHED
    (folder / "main.py").write_bytes(files["main.py"])
    places.update(folder, subject)
    assert look(folder, subject).in_order
    places.revert(folder, subject)
    assert content(folder) == {**files, **mine}


# --- what a pack was converted with


WITH_OPTIONS = {
    "__init__.py": (
        b"import torch\n\n\ndef go(x, device):\n    y = torch.arange(9, dtype=torch.float64, device=device)\n"
        b"    torch.cuda.empty_cache()\n    w = torch.load(x)\n"
        b"    if device.type == 'cuda' and w:\n        y = y.half()\n    return w, y.to('cuda')\n"
    )
}
CHOICES = [("fp64",), ("half",), ("torch-load",), ("comfy",), ("comfy", "fp64", "torch-load")]


@pytest.mark.parametrize("options", CHOICES, ids="-".join)
@pytest.mark.parametrize("lost", [JOURNAL, ".patchforge"])
def test_the_options_of_a_lost_journal_are_found_out(tmp_path: Path, options: tuple[str, ...], lost: str) -> None:
    pack, original = fill(tmp_path / "pack", WITH_OPTIONS), fill(tmp_path / "original", WITH_OPTIONS)
    asked, unknown = places.pack(options), places.pack()
    places.apply(pack, asked)
    converted = plain(pack)
    assert converted != places.patched(WITH_OPTIONS, unknown, tmp_path / "default")
    (shutil.rmtree if lost == ".patchforge" else Path.unlink)(pack / lost)
    with change.opened(pack) as inside:
        plan = change.repair(inside, unknown, [lambda: unknown.tree(original)])
    assert plain(pack) == converted
    assert plan.options == options
    examined = look(pack, unknown)
    assert examined.in_order
    assert examined.known
    assert examined.known.journal.options == options
    places.revert(pack, unknown)
    assert content(pack) == WITH_OPTIONS


def test_an_edit_does_not_hide_the_options(tmp_path: Path) -> None:
    pack, original = fill(tmp_path / "pack", WITH_OPTIONS), fill(tmp_path / "original", WITH_OPTIONS)
    places.apply(pack, places.pack(("fp64",)))
    converted = plain(pack)["__init__.py"]
    (pack / "__init__.py").write_bytes(EDIT + converted)
    shutil.rmtree(pack / ".patchforge")
    subject = places.pack()
    with change.opened(pack) as inside:
        change.repair(inside, subject, [lambda: subject.tree(original)])
    assert plain(pack)["__init__.py"] == EDIT + converted


def test_an_error_of_usage_is_none_of_the_input(pack: Path, subject: places.Remembered) -> None:
    with pytest.raises(PatchforgeError) as caught:
        places.apply(pack, subject)
    assert caught.value.status is Exit.USAGE


INLINE = b"import torch\n\nd = 'cuda' if torch.cuda.is_available() else 'cpu'\nNODE_CLASS_MAPPINGS = {}\n"


@pytest.mark.parametrize("files", [{"__init__.py": INLINE}, {**PACK, "own.py": INLINE}], ids=["alone", "beside"])
@pytest.mark.parametrize("edit", [b"", EDIT], ids=["", "edited"])
def test_what_was_converted_without_a_helper_is_found_when_the_journal_is_lost(
    tmp_path: Path, subject: places.Remembered, files: dict[str, bytes], edit: bytes
) -> None:
    """Such a file names nothing of ours; what the pack is as it comes tells it."""
    pack, original = fill(tmp_path / "pack", files), fill(tmp_path / "original", files)
    places.apply(pack, subject)
    inline = next(path for path, data in files.items() if data is INLINE)
    assert b"_patchforge" not in (pack / inline).read_bytes()
    (pack / inline).write_bytes((pack / inline).read_bytes() + edit)
    converted = plain(pack)
    shutil.rmtree(pack / ".patchforge")
    with change.opened(pack) as inside:
        change.repair(inside, subject, [lambda: subject.tree(original)])
    assert plain(pack) == converted
    assert look(pack, subject).in_order
    places.revert(pack, subject)
    assert content(pack) == {**files, inline: INLINE + edit}


def test_a_pack_that_is_not_patched_is_not_patched_by_repair(tmp_path: Path, subject: places.Remembered) -> None:
    pack, original = fill(tmp_path / "pack", PACK), fill(tmp_path / "original", PACK)
    (pack / "nodes.py").write_bytes(PACK["nodes.py"] + EDIT)
    before = content(pack)
    with change.opened(pack) as inside:
        assert not change.repair(inside, subject, [lambda: subject.tree(original)]).writes
    assert content(pack) == before
