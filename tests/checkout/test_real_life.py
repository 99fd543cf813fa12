"""What people and their updaters do to a patched checkout, with real repositories made of the miniature releases."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge.checkout.change import opened
from patchforge.checkout.examine import FolderState
from patchforge.checkout.subject import of_module
from patchforge.cli import main
from patchforge.errors import CheckFailed, Exit, PatchforgeError, TryAgain
from tests.checkout import places
from tests.checkout.places import MODULE, NEW, OLD, content, fill, look, named
from tests.support import ROOT

MAIN, MANAGEMENT = "main.py", "comfy/model_management.py"
TOP, END = b"# mine at the top\n", b"# mine at the end\n"


def git(folder: Path, *arguments: str, fails: bool = False) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *own, *arguments], capture_output=True, text=True, check=False, env=_environment()
    )
    assert fails or done.returncode == 0, done.stderr
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases, one after the other, and one more commit that changes a patched file only a little."""
    top = tmp_path_factory.mktemp("upstream")
    git(top, "init", "--quiet", "--initial-branch", "master")
    later = places.release_files(NEW)
    later[MAIN] += b"\nLATER = 1\n"
    for tag, files in ((OLD, places.release_files(OLD)), (NEW, places.release_files(NEW)), ("later", later)):
        for path in git(top, "ls-files").split():
            (top / path).unlink()
        fill(top, files)
        git(top, "add", "--all")
        git(top, "commit", "--quiet", "--message", tag)
        git(top, "tag", tag)
    return top


@pytest.fixture
def subject() -> places.Remembered:
    return places.comfyui()


def clone(upstream: Path, folder: Path, tag: str, *settings: str) -> Path:
    """A user's checkout: branch master, standing on a release."""
    git(folder.parent, "clone", "--quiet", "--no-checkout", *settings, str(upstream), str(folder))
    git(folder, "reset", "--quiet", "--hard", tag)
    return folder


@pytest.fixture
def checkout(upstream: Path, tmp_path: Path) -> Path:
    return clone(upstream, tmp_path / "ComfyUI", OLD)


@pytest.fixture
def expected(tmp_path: Path) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """What the files are once they are patched."""
    return lambda files: places.patched(files, places.comfyui(), tmp_path / "expected")


def plain(folder: Path) -> dict[str, bytes]:
    """The files, the journal not among them."""
    return {path: data for path, data in content(folder).items() if not path.startswith(".patchforge")}


def put_right(folder: Path, subject: places.Remembered) -> None:
    """Does what the state says, until nothing is wrong; at most twice."""
    for _ in range(2):
        examined = look(folder, subject)
        if examined.in_order and examined.state is not FolderState.UNTOUCHED:
            break
        places.COMMANDS[named(examined)](folder, subject)
    assert look(folder, subject).in_order


def wrap(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).write_bytes(TOP + (folder / path).read_bytes() + END)


# --- edits


def test_local_edits_before_and_after_survive(checkout: Path, subject: places.Remembered) -> None:
    wrap(checkout, MAIN)
    mine = content(checkout)
    places.apply(checkout, subject)
    wrap(checkout, MANAGEMENT)
    assert look(checkout, subject).state is FolderState.EDITED
    places.revert(checkout, subject)
    assert content(checkout) == {**mine, MANAGEMENT: TOP + mine[MANAGEMENT] + END}


def test_staged_changes_stay_staged(checkout: Path, subject: places.Remembered) -> None:
    wrap(checkout, MAIN)
    git(checkout, "add", MAIN)
    staged = git(checkout, "diff", "--cached")
    mine = content(checkout)
    places.apply(checkout, subject)
    assert git(checkout, "diff", "--cached") == staged
    places.revert(checkout, subject)
    assert content(checkout) == mine
    assert git(checkout, "diff") == ""


def test_an_edit_in_a_hook_is_kept_and_the_way_on_named(checkout: Path, subject: places.Remembered) -> None:
    places.apply(checkout, subject)
    place = checkout / MAIN
    place.write_bytes(place.read_bytes().replace(b"patchforge_xpu.start(args)", b"patchforge_xpu.start(mine)"))
    edited = content(checkout)
    for command in (places.revert, places.update):
        with pytest.raises(CheckFailed, match=r"main\.py") as caught:
            command(checkout, subject)
        assert f"git -C {checkout} checkout HEAD -- {MAIN}" in caught.value.do
        assert content(checkout) == edited
    git(checkout, "checkout", "HEAD", "--", MAIN)
    places.revert(checkout, subject)
    assert plain(checkout) == places.release_files(OLD)


def test_the_patched_tree_is_committed(checkout: Path, subject: places.Remembered) -> None:
    places.apply(checkout, subject)
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "for my GPU")
    assert look(checkout, subject).state is FolderState.PATCHED
    assert "journal" not in git(checkout, "ls-files")
    places.revert(checkout, subject)
    assert plain(checkout) == places.release_files(OLD)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_line_end(end: str, upstream: Path, tmp_path: Path, subject: places.Remembered) -> None:
    folder = clone(
        upstream, tmp_path / "crlf", NEW, "--config", f"core.autocrlf={'true' if end != chr(10) else 'false'}"
    )
    before = content(folder)
    assert (b"\r\n" in before[MAIN]) == (end == "\r\n")
    places.apply(folder, subject)
    assert look(folder, subject).state is FolderState.PATCHED
    git(folder, "stash", "--quiet")
    assert look(folder, subject).state is FolderState.HALF
    git(folder, "stash", "pop", "--quiet")
    assert look(folder, subject).state is FolderState.PATCHED
    places.revert(folder, subject)
    assert content(folder) == before


def test_line_ends_that_change_after_patching(checkout: Path, subject: places.Remembered) -> None:
    before = content(checkout)
    places.apply(checkout, subject)
    for path in (MAIN, MANAGEMENT):
        (checkout / path).write_bytes((checkout / path).read_bytes().replace(b"\n", b"\r\n"))
    assert look(checkout, subject).state is FolderState.PATCHED
    places.revert(checkout, subject)
    crlf = {path: before[path].replace(b"\n", b"\r\n") for path in (MAIN, MANAGEMENT)}
    assert content(checkout) == {**before, **crlf}


def test_a_worktree_is_a_checkout_of_its_own(checkout: Path, tmp_path: Path, subject: places.Remembered) -> None:
    git(checkout, "worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"), NEW)
    tree = tmp_path / "tree"
    places.apply(tree, subject)
    assert look(checkout, subject).state is FolderState.UNTOUCHED
    shutil.rmtree(tree / ".patchforge")
    (tree / MODULE).unlink()
    assert look(tree, subject).state is FolderState.LOST
    put_right(tree, subject)
    places.revert(tree, subject)
    assert content(tree) == places.release_files(NEW)


# --- git and updaters


def test_git_clean_takes_module_and_journal(
    checkout: Path, subject: places.Remembered, expected: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    places.apply(checkout, subject)
    wrap(checkout, MAIN)
    git(checkout, "clean", "-fdxq")
    examined = look(checkout, subject)
    assert examined.state is FolderState.LOST
    assert named(examined) == "repair"
    for command in (places.apply, places.revert):
        with pytest.raises(PatchforgeError, match="patchforge repair"):
            command(checkout, subject)
    put_right(checkout, subject)
    mine = places.release_files(OLD)
    mine[MAIN] = TOP + mine[MAIN] + END
    assert plain(checkout) == expected(mine)
    places.revert(checkout, subject)
    assert content(checkout) == mine


@pytest.mark.parametrize("untracked", [False, True])
def test_stash_and_pop(checkout: Path, subject: places.Remembered, untracked: bool) -> None:
    places.apply(checkout, subject)
    patched = content(checkout)
    git(checkout, "stash", "--quiet", *(["--include-untracked"] if untracked else []))
    examined = look(checkout, subject)
    assert examined.state is (FolderState.UNTOUCHED if untracked else FolderState.HALF)
    git(checkout, "stash", "pop", "--quiet")
    assert content(checkout) == patched
    assert look(checkout, subject).state is FolderState.PATCHED


@pytest.mark.parametrize("command", ["repair", "revert", "update"])
def test_stash_without_pop(checkout: Path, subject: places.Remembered, command: str) -> None:
    places.apply(checkout, subject)
    patched = plain(checkout)
    git(checkout, "stash", "--quiet")
    places.COMMANDS[command](checkout, subject)
    assert plain(checkout) == (places.release_files(OLD) if command == "revert" else patched)
    assert look(checkout, subject).in_order


def portable_update(folder: Path) -> None:
    """What the portable build's update.py does: stash, check out master, pull."""
    git(folder, "stash", "--quiet")
    git(folder, "checkout", "--quiet", "master")
    git(folder, "reset", "--quiet", "--hard", NEW)


def manager_update(folder: Path) -> None:
    """What ComfyUI-Manager does to go to a release: stash, fetch, check out the tag."""
    git(folder, "stash", "--quiet", fails=True)
    git(folder, "fetch", "--quiet", "--tags")
    git(folder, "checkout", "--quiet", NEW)


def forced_checkout(folder: Path) -> None:
    git(folder, "checkout", "--quiet", "--force", NEW)


def unpacked_over(folder: Path) -> None:
    fill(folder, places.release_files(NEW))


def cleaned_and_checked_out(folder: Path) -> None:
    git(folder, "checkout", "--quiet", "--force", NEW)
    (folder / MODULE).unlink()


UPDATES = (portable_update, manager_update, forced_checkout, unpacked_over, cleaned_and_checked_out)


@pytest.mark.parametrize("move", UPDATES, ids=lambda each: each.__name__)
def test_an_update_over_the_patches(
    checkout: Path,
    subject: places.Remembered,
    expected: Callable[[dict[str, bytes]], dict[str, bytes]],
    move: Callable[[Path], None],
) -> None:
    places.apply(checkout, subject)
    move(checkout)
    examined = look(checkout, subject)
    assert examined.state is FolderState.UPDATED
    assert named(examined) == "update"
    places.update(checkout, subject)
    assert look(checkout, subject).state is FolderState.PATCHED
    new = {**plain_old_only(checkout, move), **places.release_files(NEW)}
    assert plain(checkout) == {**new, **expected(places.release_files(NEW))}
    places.revert(checkout, subject)
    assert content(checkout) == new


def plain_old_only(folder: Path, move: Callable[[Path], None]) -> dict[str, bytes]:
    """Files that only the old release has stay where a release is unpacked over it."""
    old = places.release_files(OLD) if move is unpacked_over else {}
    return {path: data for path, data in old.items() if path not in places.release_files(NEW)}


@pytest.mark.parametrize("move", UPDATES, ids=lambda each: each.__name__)
def test_a_revert_after_an_update_brings_no_old_original_back(
    checkout: Path, subject: places.Remembered, move: Callable[[Path], None]
) -> None:
    places.apply(checkout, subject)
    move(checkout)
    updated = {path: data for path, data in plain(checkout).items() if not of_module(path)}
    places.revert(checkout, subject)
    assert content(checkout) == updated


def test_an_update_with_stash_and_pop_keeps_edits(
    upstream: Path,
    tmp_path: Path,
    subject: places.Remembered,
    expected: Callable[[dict[str, bytes]], dict[str, bytes]],
) -> None:
    """The hooks come back with the user's edits, on top of the new commit."""
    folder = clone(upstream, tmp_path / "ComfyUI", NEW)
    places.apply(folder, subject)
    (folder / MAIN).write_bytes(TOP + (folder / MAIN).read_bytes())
    git(folder, "stash", "--quiet")
    git(folder, "reset", "--quiet", "--hard", "later")
    assert look(folder, subject).state is FolderState.UPDATED
    git(folder, "stash", "pop", "--quiet")
    places.update(folder, subject)
    later = places.release_files(NEW)
    later[MAIN] = TOP + later[MAIN] + b"\nLATER = 1\n"
    assert plain(folder) == expected(later)
    places.revert(folder, subject)
    assert content(folder) == later


def test_a_pull_with_autostash(
    upstream: Path,
    tmp_path: Path,
    subject: places.Remembered,
    expected: Callable[[dict[str, bytes]], dict[str, bytes]],
) -> None:
    folder = clone(upstream, tmp_path / "ComfyUI", NEW)
    places.apply(folder, subject)
    git(folder, "pull", "--quiet", "--rebase", "--autostash", "origin", "master")
    places.update(folder, subject)
    later = places.release_files(NEW)
    later[MAIN] += b"\nLATER = 1\n"
    assert plain(folder) == expected(later)
    places.revert(folder, subject)
    assert git(folder, "status", "--porcelain") == ""


def test_a_downgrade(
    upstream: Path,
    tmp_path: Path,
    subject: places.Remembered,
    expected: Callable[[dict[str, bytes]], dict[str, bytes]],
) -> None:
    folder = clone(upstream, tmp_path / "ComfyUI", NEW)
    places.apply(folder, subject)
    git(folder, "checkout", "--quiet", "--force", OLD)
    assert named(look(folder, subject)) == "update"
    places.update(folder, subject)
    assert plain(folder) == expected(places.release_files(OLD))
    places.revert(folder, subject)
    assert content(folder) == places.release_files(OLD)


def test_a_conflict_of_stash_pop_stops_and_names_the_way_on(
    checkout: Path, subject: places.Remembered, expected: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    places.apply(checkout, subject)
    git(checkout, "stash", "--quiet")
    git(checkout, "checkout", "--quiet", NEW)
    git(checkout, "stash", "pop", fails=True)
    conflicted = [path for path, data in plain(checkout).items() if b"<<<<<<<" in data]
    assert conflicted
    before = content(checkout)
    for _ in conflicted:
        with pytest.raises(CheckFailed) as caught:
            places.update(checkout, subject)
        assert content(checkout) == before
        path = next(path for path in conflicted if path in caught.value.problem)
        assert f"checkout HEAD -- {path}" in caught.value.do
        git(checkout, "checkout", "HEAD", "--", path)
        before = content(checkout)
    places.update(checkout, subject)
    assert plain(checkout) == expected(places.release_files(NEW))


def test_files_were_restored_one_by_one(checkout: Path, subject: places.Remembered) -> None:
    places.apply(checkout, subject)
    patched = plain(checkout)
    git(checkout, "checkout", "HEAD", "--", MAIN)
    examined = look(checkout, subject)
    assert examined.state is FolderState.HALF
    put_right(checkout, subject)
    assert plain(checkout) == patched


def test_an_edit_of_a_file_whose_patch_was_taken_out(
    checkout: Path, subject: places.Remembered, expected: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    places.apply(checkout, subject)
    git(checkout, "checkout", "HEAD", "--", MAIN)
    wrap(checkout, MAIN)
    mine = places.release_files(OLD)
    mine[MAIN] = TOP + mine[MAIN] + END
    assert look(checkout, subject).state is FolderState.HALF
    put_right(checkout, subject)
    assert plain(checkout) == expected(mine)
    places.revert(checkout, subject)
    assert content(checkout) == mine


# --- what stands in the way


def test_a_link_at_the_modules_place_is_not_followed(
    checkout: Path, tmp_path: Path, subject: places.Remembered
) -> None:
    (tmp_path / "mine.py").write_bytes(b"mine\n")
    (checkout / MODULE).parent.mkdir()
    (checkout / MODULE).symlink_to(tmp_path / "mine.py")
    before = content(checkout)
    with pytest.raises(PatchforgeError, match="is a link"):
        places.apply(checkout, subject)
    assert content(checkout) == before
    assert (tmp_path / "mine.py").read_bytes() == b"mine\n"


def test_a_folder_that_became_a_link_after_patching(checkout: Path, tmp_path: Path, subject: places.Remembered) -> None:
    places.apply(checkout, subject)
    shutil.copytree(checkout / "comfy", tmp_path / "elsewhere")
    shutil.rmtree(checkout / "comfy")
    (checkout / "comfy").symlink_to(tmp_path / "elsewhere")
    before = content(tmp_path / "elsewhere")
    for command in places.COMMANDS.values():
        with pytest.raises(PatchforgeError, match=r"link|neither ComfyUI"):
            command(checkout, subject)
    assert content(tmp_path / "elsewhere") == before


def _folder(place: Path) -> None:
    place.unlink()
    place.mkdir()
    (place / "mine.txt").write_bytes(b"mine")


def _dangling(place: Path) -> None:
    place.unlink()
    place.symlink_to("nowhere")


def _pipe(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


@pytest.mark.parametrize("path", [MODULE, MAIN])
@pytest.mark.parametrize("put", [_folder, _dangling, _pipe])
def test_what_is_no_file_stops_both_ways_and_both_go_on(
    checkout: Path, subject: places.Remembered, path: str, put: Callable[[Path], None]
) -> None:
    places.apply(checkout, subject)
    patched = plain(checkout)
    put(checkout / path)
    before = content(checkout)
    for command in (places.apply, places.revert, places.repair, places.update):
        with pytest.raises(PatchforgeError, match=r"is a folder|is a link|is neither") as caught:
            command(checkout, subject)
        assert f"move {checkout / path} away" in caught.value.do
    assert content(checkout) == before
    (checkout / path).rename(checkout.with_name("aside"))
    put_right(checkout, subject)
    assert plain(checkout) == patched
    places.revert(checkout, subject)
    assert plain(checkout) == places.release_files(OLD)


def test_a_module_of_the_users_own_is_not_replaced(checkout: Path, subject: places.Remembered) -> None:
    (checkout / MODULE).parent.mkdir()
    (checkout / MODULE).write_bytes(b"mine\n")
    before = content(checkout)
    with pytest.raises(PatchforgeError, match="patchforge_xpu"):
        places.apply(checkout, subject)
    assert content(checkout) == before


def test_a_file_that_the_user_removed_comes_back(checkout: Path, subject: places.Remembered) -> None:
    places.apply(checkout, subject)
    (checkout / MAIN).unlink()
    places.revert(checkout, subject)
    assert content(checkout) == places.release_files(OLD)


def test_without_original_and_without_journal_nothing_is_removed(checkout: Path, subject: places.Remembered) -> None:
    places.apply(checkout, subject)
    shutil.rmtree(checkout / ".patchforge" / "original")
    places.revert(checkout, subject)
    assert content(checkout) == places.release_files(OLD)


# --- at the same time


@pytest.mark.parametrize("command", ["apply", "revert", "repair", "update"])
def test_a_file_that_is_saved_meanwhile_keeps_what_was_saved(
    checkout: Path, subject: places.Remembered, command: str
) -> None:
    if command != "apply":
        places.apply(checkout, subject)
    if command == "repair":
        git(checkout, "stash", "--quiet")
    if command == "update":
        git(checkout, "checkout", "--quiet", "--force", NEW)
    saved: dict[str, bytes] = {}

    def step(name: str) -> None:
        if name == f"rename {MAIN}" and not saved:
            saved[MAIN] = TOP + (checkout / MAIN).read_bytes()
            (checkout / MAIN).write_bytes(saved[MAIN])

    with pytest.raises(CheckFailed, match=r"main\.py was changed"):
        places.COMMANDS[command](checkout, subject, step=step)
    assert (checkout / MAIN).read_bytes() == saved[MAIN]
    assert not list(checkout.rglob("*.patchforge-new"))
    put_right(checkout, subject)
    assert (checkout / MAIN).read_bytes().startswith(TOP)
    places.revert(checkout, subject)
    version = NEW if command == "update" else OLD
    files = places.release_files(version)
    assert content(checkout) == {**files, MAIN: TOP + files[MAIN]}


def test_another_run_is_at_work(checkout: Path, subject: places.Remembered) -> None:
    with opened(checkout):
        for command in places.COMMANDS.values():
            with pytest.raises(TryAgain, match="another run") as caught:
                command(checkout, subject)
            assert caught.value.status is Exit.AGAIN


def test_a_checkout_has_one_lock_whatever_the_settings(
    checkout: Path, subject: places.Remembered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by another way to it, and for a process with other folders for records, cache and temporary files."""
    (tmp_path / "link").symlink_to(checkout)
    with opened(checkout):
        for name in ("PATCHFORGE_STATE", "PATCHFORGE_CACHE", "XDG_STATE_HOME", "TMPDIR", "HOME"):
            monkeypatch.setenv(name, str(tmp_path / "other"))
        for folder in (checkout, tmp_path / "link", checkout / ".." / checkout.name):
            with pytest.raises(TryAgain, match="another run"):
                places.apply(folder, subject)
    places.apply(checkout, subject)


def test_three_at_once(checkout: Path) -> None:
    """One does it; the others say that another is at work, or that it is patched already."""
    command = [sys.executable, "-m", "patchforge", "apply", "--in-place", str(checkout), "--jobs", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs].count(0) == 1
    for run, text in zip(runs, said, strict=True):
        assert "Traceback" not in text
        assert run.returncode == 0 or "another run" in text or "already" in text
    assert look(checkout, places.comfyui()).state is FolderState.PATCHED


def test_a_lock_ends_with_its_process(checkout: Path, subject: places.Remembered) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom patchforge.checkout.change import opened\n"
        "with opened(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([sys.executable, "-c", code, str(checkout)], env=env, stdout=subprocess.PIPE, text=True)
    assert run.stdout
    run.stdout.readline()
    with pytest.raises(TryAgain):
        places.apply(checkout, subject)
    run.kill()
    run.wait()
    time.sleep(0.05)
    places.apply(checkout, subject)


@pytest.mark.parametrize("inside", [True, False], ids=["in the pack", "elsewhere"])
def test_other_names_of_a_file_keep_what_they_hold_and_that_is_said_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: bool
) -> None:
    pack = places.fill(tmp_path / "pack", places.PACK)
    other = (pack if inside else tmp_path) / "other.txt"
    os.link(pack / "nodes.py", other)
    told = (
        "note: nodes.py: other names of the same file (hard links) keep what they hold, "
        "and are other files from then on\n"
    )
    for words in (["apply", str(pack), "--in-place", "--dry-run"], ["apply", str(pack), "--in-place"]):
        assert main(["packs", *words]) == 0
        assert capsys.readouterr().err == told
    assert other.read_bytes() == places.PACK["nodes.py"]
    assert main(["packs", "revert", str(pack)]) == 0
    assert capsys.readouterr().err == ""
    assert (pack / "nodes.py").read_bytes() == other.read_bytes()
    assert main(["packs", "apply", str(pack), "--in-place"]) == 0
    os.link(pack / "nodes.py", tmp_path / "patched.py")
    capsys.readouterr()
    for words in (["revert", str(pack), "--dry-run"], ["revert", str(pack)]):
        assert main(["packs", *words]) == 0
        assert capsys.readouterr().err == told
    assert b"_patchforge_" in (tmp_path / "patched.py").read_bytes()
