"""What status advises works, in whatever state a folder is: each of its ways is gone, as it is typed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge.checkout import change, journal
from patchforge.checkout.change import way_on
from patchforge.checkout.examine import FolderState
from patchforge.sources import FolderTree
from tests.checkout import places
from tests.checkout.places import MODULE, NEW, OLD, fill, look
from tests.checkout.test_real_life import git
from tests.checkout.test_truth import conflict, cut_short, hook_changed, hook_lines

Happening = Callable[[Path], None]
NO_MARK = b"# another line\n"


def edits(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def hooked(folder: Path) -> list[Path]:
    files = (path for path in sorted(folder.rglob("*.py")) if ".patchforge" not in path.parts)
    return [path for path in files if "patchforge_xpu" not in path.parts and hook_lines(path.read_bytes())]


def a_line_of_the_module(folder: Path) -> None:
    edits(folder / MODULE, lambda data: NO_MARK + data)


def every_hook_changed(folder: Path) -> None:
    for path in hooked(folder):
        edits(path, lambda data: data.replace(hook_lines(data)[0], hook_lines(data)[0].rstrip() + b"  # mine\n", 1))


def a_hook_changed(folder: Path) -> None:
    edits(hooked(folder)[0], hook_changed)


def a_conflict(folder: Path) -> None:
    edits(hooked(folder)[-1], conflict)


def not_python(folder: Path) -> None:
    edits(hooked(folder)[0], cut_short)


def the_module_lost(folder: Path) -> None:
    shutil.rmtree((folder / MODULE).parent)


def a_file_of_the_module_lost(folder: Path) -> None:
    (folder / MODULE).unlink()


def the_module_edited_everywhere(folder: Path) -> None:
    for path in sorted((folder / MODULE).parent.glob("*.py")):
        edits(path, lambda data: NO_MARK + data)


def a_stranger_in_the_module(folder: Path) -> None:
    (folder / MODULE).with_name("mine.py").write_bytes(b"A = 1\n")


def half(folder: Path) -> None:
    path = next(path for path in hooked(folder))
    shutil.copy(folder / ".patchforge/original" / path.relative_to(folder), path)


def all_put_back(folder: Path) -> None:
    for path in hooked(folder):
        shutil.copy(folder / ".patchforge/original" / path.relative_to(folder), path)
    the_module_lost(folder)


def an_edit_beside_ours(folder: Path) -> None:
    edits(hooked(folder)[0], lambda data: data + b"\nMINE = 1\n")


def the_journal_lost(folder: Path) -> None:
    shutil.rmtree(folder / ".patchforge")


def the_journal_not_this_users(folder: Path) -> None:
    shutil.rmtree(journal.state_folder())


def an_original_lost(folder: Path) -> None:
    (folder / ".patchforge/original" / hooked(folder)[0].relative_to(folder)).unlink()


def all_originals_lost(folder: Path) -> None:
    shutil.rmtree(folder / ".patchforge/original")
    for patch in (folder / ".patchforge").glob("*.patch"):
        patch.unlink()


def a_newer_release(folder: Path) -> None:
    fill(folder, places.release_files(NEW))


def a_file_gone(folder: Path) -> None:
    hooked(folder)[0].unlink()


def nothing(folder: Path) -> None:
    pass


FIRST = (nothing, the_journal_lost, the_journal_not_this_users, an_original_lost, all_originals_lost, a_newer_release)
THEN = (
    nothing,
    a_line_of_the_module,
    the_module_edited_everywhere,
    every_hook_changed,
    a_hook_changed,
    a_conflict,
    not_python,
    the_module_lost,
    a_file_of_the_module_lost,
    a_stranger_in_the_module,
    half,
    all_put_back,
    an_edit_beside_ours,
    a_file_gone,
)


def happens(folder: Path, first: Happening, then: Happening) -> None:
    """Both; what is copied from the originals is copied while they are there."""
    for happening in sorted((first, then), key=lambda each: each in (half, all_put_back), reverse=True):
        happening(folder)


def steps(text: str) -> None:
    """What a person does first, as it is said."""
    for step in text.split(", "):
        if step.startswith("save your edit"):
            continue
        if told := re.fullmatch(r"(?:look at )?(.+) and move it away", step):
            shutil.rmtree(told[1])
        elif told := re.fullmatch(r"(?:remove|move) (.+?)(?: away)?", step):
            for path in shlex.split(told[1]):
                Path(path).unlink()
        elif told := re.fullmatch(r"copy (\S+) to (\S+)", step):
            shutil.copy(told[1], told[2])
        elif told := re.fullmatch(r"copy the unpatched (\S+) to (\S+)", step):
            shutil.copy(ORIGINALS / told[1], told[2])
        else:
            assert step.startswith("run git -C "), step
            subprocess.run(shlex.split(step.removeprefix("run ")), check=True, capture_output=True)


ORIGINALS = Path()


def put_right(folder: Path, subject: places.Remembered, act: Callable[[], object]) -> None:
    """Where only an archive tells what a file was, only the command can say whether an edit of it can be kept."""
    refused = change._refusal(act)
    if refused is not None:
        assert isinstance(refused, change.InOnePlace), refused
        assert refused.problems.keys() <= set(look(folder, subject).untold)
        steps(refused.first)
        act()


def gone(folder: Path, subject: places.Remembered, way: str) -> None:
    """Goes one of the ways that status names, and holds the folder against what the command promises."""
    before, _, last = way.rpartition(", then ")
    steps(before) if before else None
    examined = look(folder, subject)
    name = next(name for name in places.COMMANDS if last.startswith(examined.command(name)))
    with change.opened(folder) as inside:
        sources = [lambda: FolderTree(ORIGINALS)] if "--from ARCHIVE|DIR" in last else []
        if name == "apply":
            change.patch(inside, subject, subject.convert(inside, {}))
        elif name == "revert":
            change.revert(inside, subject)
        else:
            put_right(
                folder,
                subject,
                lambda: {"repair": change.repair, "update": change.update}[name](inside, subject, sources),
            )
    after = look(folder, subject)
    assert after.in_order, (way, after.says)
    assert after.state is FolderState.UNTOUCHED if name == "revert" else after.state is not FolderState.UNTOUCHED


CASES = [
    *((nothing, then, False) for then in THEN),
    *((first, nothing, False) for first in FIRST[1:]),
    (nothing, every_hook_changed, True),
    (the_journal_lost, a_line_of_the_module, False),
    (the_journal_lost, a_conflict, False),
    (the_journal_lost, a_hook_changed, True),
    (the_journal_not_this_users, a_hook_changed, False),
    (the_journal_not_this_users, the_module_lost, False),
    (an_original_lost, every_hook_changed, False),
    (an_original_lost, every_hook_changed, True),
    (all_originals_lost, a_conflict, False),
    (all_originals_lost, the_module_edited_everywhere, True),
    (a_newer_release, a_line_of_the_module, False),
    (a_newer_release, a_stranger_in_the_module, False),
]


@pytest.mark.parametrize(
    ("first", "then", "in_git"), CASES, ids=lambda each: getattr(each, "__name__", "git" if each else "plain")
)
def test_what_status_says_works(
    place: Path, monkeypatch: pytest.MonkeyPatch, first: Happening, then: Happening, in_git: bool
) -> None:
    subject = places.comfyui()
    release = NEW if first is a_newer_release else OLD
    monkeypatch.setattr(f"{__name__}.ORIGINALS", fill(place / "archive", places.release_files(release)))
    whole = fill(place / "whole" / "ComfyUI", places.release_files(OLD))
    if in_git:
        git(whole, "init", "--quiet")
        git(whole, "add", "--all")
        git(whole, "commit", "--quiet", "--message", "release")
    places.apply(whole, subject)
    happens(whole, first, then)
    examined = look(whole, subject)
    text = way_on(examined)
    assert examined.in_order or text
    ways = [] if examined.in_order and then is not nothing else [way for way in text.split("; or ") if way]
    if examined.is_copy and ways:
        assert ways.pop(0) == "write a new copy with apply --to"
    for number, _ in enumerate(ways):
        folder = place / f"ComfyUI-{number}"
        shutil.copytree(whole, folder, symlinks=True)
        gone(folder, subject, way_on(look(folder, subject)).split("; or ")[number - len(ways)])
