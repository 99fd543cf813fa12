"""What is called patched is what a fresh patching would give; everything else is said, and no command blesses it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge.checkout import change
from patchforge.checkout.examine import FolderState
from patchforge.cli import main
from patchforge.commands.checkout import undone
from patchforge.errors import CheckFailed, Exit, PatchforgeError, TryAgain
from patchforge.inside import InTheWay
from patchforge.vocabulary import Tree
from tests.checkout import places
from tests.checkout.places import MODULE, NEW, OLD, PACK, content, fill, look
from tests.checkout.test_real_life import MAIN, MANAGEMENT, clone, git, plain, upstream  # noqa: F401 - a fixture

HOOK = b"patchforge_xpu"


@pytest.fixture
def subject() -> places.Remembered:
    return places.comfyui()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "ComfyUI", places.release_files(NEW))


def hook_lines(data: bytes) -> list[bytes]:
    return [line for line in data.splitlines(keepends=True) if HOOK in line]


def test_an_old_stash_on_top_of_an_update_is_never_called_patched(
    upstream: Path,  # noqa: F811
    tmp_path: Path,
    subject: places.Remembered,
) -> None:
    checkout = clone(upstream, tmp_path / "ComfyUI", OLD)
    places.apply(checkout, subject)
    git(checkout, "stash", "--quiet")
    git(checkout, "checkout", "--quiet", NEW)
    places.update(checkout, subject)
    git(checkout, "checkout", "--", ".")
    git(checkout, "stash", "pop", fails=True)
    before = content(checkout)
    assert look(checkout, subject).state is FolderState.HALF
    assert "main.py" in look(checkout, subject).says
    while error := refused(checkout, subject):
        assert "marks of a conflict" in error.found
        assert content(checkout) == before
        assert look(checkout, subject).state is FolderState.HALF
        path = next(path for path in before if error.problem.startswith(path))
        git(checkout, "checkout", "HEAD", "--", path)
        before = content(checkout)
    assert look(checkout, subject).state is FolderState.PATCHED
    assert plain(checkout) == places.patched(places.release_files(NEW), subject, tmp_path / "fresh")


def refused(folder: Path, subject: places.Remembered) -> CheckFailed | None:
    try:
        places.repair(folder, subject)
    except CheckFailed as error:
        return error
    return None


def conflict(data: bytes) -> bytes:
    line = hook_lines(data)[0]
    return data.replace(line, b"<<<<<<< Updated upstream\n=======\n" + line + b">>>>>>> Stashed changes\n", 1)


def conflict_elsewhere(data: bytes) -> bytes:
    return data + b"<<<<<<< Updated upstream\nA = 1\n=======\nA = 2\n>>>>>>> Stashed changes\n"


def conflict_in_a_text(data: bytes) -> bytes:
    return data + b'TEXT = """\n<<<<<<< ours\n=======\n>>>>>>> theirs\n"""\n'


def cut_short(data: bytes) -> bytes:
    return data + b"def f(:\n"


def nul(data: bytes) -> bytes:
    return data + b"A = 1\x00\n"


def hook_removed(data: bytes) -> bytes:
    return data.replace(hook_lines(data)[-1], b"", 1)


def hook_changed(data: bytes) -> bytes:
    line = hook_lines(data)[-1]
    return data.replace(line, line.replace(b"(", b"(1, ", 1), 1) if b"(" in line else data.replace(line, b"pass\n")


def hook_twice(data: bytes) -> bytes:
    line = hook_lines(data)[0]
    return data.replace(line, line + line, 1)


@pytest.mark.parametrize(
    "edit",
    [conflict, conflict_elsewhere, conflict_in_a_text, cut_short, nul, hook_removed, hook_changed, hook_twice],
    ids=lambda each: each.__name__,
)
def test_an_edit_that_a_fresh_patching_would_not_give(
    folder: Path, subject: places.Remembered, tmp_path: Path, edit: Callable[[bytes], bytes]
) -> None:
    places.apply(folder, subject)
    whole = content(folder)
    (folder / MAIN).write_bytes(edit(whole[MAIN]))
    examined = look(folder, subject)
    assert examined.state is FolderState.HALF
    assert not examined.in_order
    assert MAIN in examined.says
    before = content(folder)
    error = refused(folder, subject)
    if error:
        assert MAIN in error.problem
        assert content(folder) == before
    else:
        assert look(folder, subject).state is FolderState.PATCHED
        assert plain(folder)[MAIN] == whole[MAIN]


def test_an_edit_beside_ours_is_edited_and_in_order(folder: Path, subject: places.Remembered) -> None:
    places.apply(folder, subject)
    (folder / MAIN).write_bytes((folder / MAIN).read_bytes() + b"\nMINE = 1\n")
    before = content(folder)
    examined = look(folder, subject)
    assert examined.state is FolderState.EDITED
    assert examined.in_order
    assert not places.repair(folder, subject).writes
    assert content(folder) == before


def test_an_edited_module_is_not_called_patched(folder: Path, subject: places.Remembered) -> None:
    places.apply(folder, subject)
    (folder / MODULE).write_bytes(b"")
    examined = look(folder, subject)
    assert examined.state is FolderState.HALF
    with pytest.raises(CheckFailed, match="patchforge_xpu") as caught:
        places.repair(folder, subject)
    assert str(folder / MODULE) in caught.value.do


def test_without_a_journal_a_broken_file_is_not_called_patched(folder: Path, subject: places.Remembered) -> None:
    places.apply(folder, subject)
    shutil.rmtree(folder / ".patchforge")
    assert look(folder, subject).state is FolderState.PATCHED
    assert look(folder, subject).is_copy  # as apply --to writes one
    (folder / MAIN).write_bytes(conflict((folder / MAIN).read_bytes()))
    assert look(folder, subject).state is FolderState.HALF


def test_a_pack_without_a_journal_that_is_half_converted(tmp_path: Path) -> None:
    pack, subject = fill(tmp_path / "pack", PACK), places.pack()
    places.apply(pack, subject)
    shutil.rmtree(pack / ".patchforge")
    assert look(pack, subject).state is FolderState.PATCHED
    (pack / "nodes.py").write_bytes(PACK["nodes.py"])
    (pack / "__init__.py").write_bytes(PACK["__init__.py"] + b"X = '_patchforge_x'\n")
    assert look(pack, subject).state is FolderState.HALF


# --- originals from elsewhere


def test_a_pack_is_repaired_from_the_pack_as_it_comes(tmp_path: Path) -> None:
    files = {**PACK, "models/net.py": PACK["more.py"]}
    pack, subject = fill(tmp_path / "pack", files), places.pack()
    original = fill(tmp_path / "original", files)
    places.apply(pack, subject)
    converted = plain(pack)
    shutil.rmtree(pack / ".patchforge")
    with pytest.raises(CheckFailed, match="nothing tells") as caught:
        places.repair(pack, subject)
    assert "--from" in caught.value.do
    with change.opened(pack) as inside:
        change.repair(inside, subject, [lambda: subject.tree(original)])
    assert plain(pack) == converted
    places.revert(pack, subject)
    assert content(pack) == files


def test_a_commit_of_the_patched_tree_is_no_original(folder: Path, subject: places.Remembered, tmp_path: Path) -> None:
    original = shutil.copytree(folder, tmp_path / "original")
    places.apply(folder, subject)
    patched = plain(folder)
    shutil.rmtree(folder / ".patchforge")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "patched")
    with pytest.raises(CheckFailed) as caught:
        places.repair(folder, subject)
    assert "checkout HEAD" not in caught.value.do
    assert "--from" in caught.value.do
    with change.opened(folder) as inside:
        change.repair(inside, subject, [lambda: subject.tree(original)])
    assert plain(folder) == patched
    assert look(folder, subject).state is FolderState.PATCHED


# --- what is not ours


@pytest.mark.parametrize("name", ["mine.py", "notes.txt", "sub/mine.py"])
def test_a_file_of_the_users_at_the_modules_place(folder: Path, subject: places.Remembered, name: str) -> None:
    places.apply(folder, subject)
    mine = f"comfy/patchforge_xpu/{name}"
    fill(folder, {mine: b"A = 1\n"})
    places.revert(folder, subject)
    assert content(folder) == {**places.release_files(NEW), mine: b"A = 1\n"}
    with pytest.raises(PatchforgeError) as caught:
        places.apply(folder, subject)
    top = folder / "/".join(mine.split("/")[:3])
    assert f"move {top} away" in caught.value.do
    top.rename(folder.with_name("aside"))
    places.apply(folder, subject)
    assert look(folder, subject).state is FolderState.PATCHED


def test_a_stashed_pack_keeps_its_choices(tmp_path: Path) -> None:
    pack = fill(tmp_path / "pack", PACK)
    git(pack, "init", "--quiet")
    git(pack, "add", "--all")
    git(pack, "commit", "--quiet", "--message", "pack")
    subject = places.pack()
    places.apply(pack, subject)
    converted = plain(pack)
    git(pack, "stash", "--quiet")
    examined = look(pack, subject)
    assert places.named(examined) == "repair"
    places.repair(pack, subject)
    assert plain(pack) == converted
    assert look(pack, subject).state is FolderState.PATCHED
    assert MANAGEMENT not in converted


def test_a_journal_that_was_copied_along_is_removed_and_that_is_said(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    places.apply(folder, places.comfyui())
    shutil.copytree(folder / ".patchforge", other / ".patchforge")
    examined = look(other, places.comfyui())
    assert places.named(examined) == "repair"
    plan = places.revert(other, places.comfyui())
    assert undone(plan) == "no file held anything of patchforge; its journal is removed"
    assert content(other) == places.release_files(NEW)


@pytest.mark.parametrize("path", [MAIN, MANAGEMENT.replace("model_management", "ops"), "comfy/ldm"])
def test_a_link_among_comfyuis_own_files_is_said_to_be_one(
    folder: Path, subject: places.Remembered, tmp_path: Path, path: str
) -> None:
    (folder / path).rename(tmp_path / "aside")
    (folder / path).symlink_to(tmp_path / "aside")
    (folder / "models").mkdir()
    (folder / "models" / "mine.py").symlink_to(tmp_path / "aside")
    with pytest.raises(InTheWay, match=f"{path} is a link"):
        places.apply(folder, subject)


def test_links_among_the_users_own_folders_are_no_matter(
    folder: Path, subject: places.Remembered, tmp_path: Path
) -> None:
    for name in ("models", "venv312", "output"):
        fill(tmp_path / name, {"x.py": b""})
        (folder / name).symlink_to(tmp_path / name)
    places.apply(folder, subject)
    assert look(folder, subject).state is FolderState.PATCHED


def test_a_source_that_may_answer_later_is_worth_another_try(folder: Path, subject: places.Remembered) -> None:
    places.apply(folder, subject)
    shutil.rmtree(folder / ".patchforge")

    def unreachable() -> Tree | None:
        raise TryAgain("github.com does not answer")

    with pytest.raises(TryAgain, match="nothing tells") as caught, change.opened(folder) as inside:
        change.repair(inside, subject, [unreachable])
    assert "github.com" in caught.value.found
    assert "--from" in caught.value.do


@pytest.mark.parametrize("kind", ["release", "pack"])
def test_what_was_put_back_is_not_in_order(
    kind: str, folder: Path, subject: places.Remembered, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `git stash` leaves it: nothing is patched, and somebody who had it patched would not notice."""
    if kind == "pack":
        shutil.rmtree(folder)
        fill(folder, PACK)
    before = content(folder)
    if kind == "pack":
        assert main(["packs", "apply", str(folder), "--in-place"]) == Exit.OK
    else:
        places.apply(folder, subject)
    assert main(["status", str(folder)]) == Exit.OK
    for path in plain(folder).keys() - before.keys():
        (folder / path).unlink()
    fill(folder, before)
    capsys.readouterr()
    assert main(["status", str(folder)]) == Exit.FAILED
    said = capsys.readouterr().out
    assert "not patched any more, but there is a journal" in said
    assert "repair" in said.partition("to do: ")[2]
    shutil.rmtree(folder / ".patchforge")
    assert main(["status", str(folder)]) == Exit.OK
