"""A run is killed before its changes on disk: the state is told, and the named command puts it right."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchforge.checkout.examine import FolderState
from patchforge.checkout.subject import Subject
from tests.checkout import places
from tests.checkout.places import NEW, OLD, content, fill, look, named

EDIT = b"# mine, at the end\n"


@dataclass(frozen=True)
class Scenario:
    """``ready`` makes the folder that ``command`` is killed in; ``files`` are those without patchforge."""

    command: str
    subject: Callable[[], Subject]
    files: dict[str, bytes]
    ready: Callable[[Path, Subject], None]


def unpatched(_folder: Path, _subject: Subject) -> None:
    """As it is."""


def is_patched(folder: Path, subject: Subject) -> None:
    places.apply(folder, subject)


def without_module(folder: Path, subject: Subject) -> None:
    places.apply(folder, subject)
    (folder / places.MODULE).unlink()


def was_run(folder: Path, subject: Subject) -> None:
    """As ComfyUI leaves it: Python compiled the module."""
    places.apply(folder, subject)
    compiled = (folder / places.MODULE).parent / "__pycache__"
    compiled.mkdir()
    for path in sorted((folder / places.MODULE).parent.glob("*.py")):
        (compiled / f"{path.stem}.cpython-311.pyc").write_bytes(b"compiled")


def half(folder: Path, subject: Subject) -> None:
    before = content(folder)
    places.apply(folder, subject)
    for number, path in enumerate(sorted(before)):
        if number % 2:
            (folder / path).write_bytes(before[path])


def edited(folder: Path, subject: Subject) -> None:
    places.apply(folder, subject)
    for path in ("main.py", "nodes.py"):
        if (folder / path).is_file():
            (folder / path).write_bytes((folder / path).read_bytes() + EDIT)


def updated(folder: Path, subject: Subject) -> None:
    """As git's checkout of another release leaves it: its files there, the module and the journal still there."""
    shutil.copytree(folder, folder.with_name("aside"))
    for path in places.release_files(NEW):
        if (folder / path).is_file():
            (folder / path).unlink()
    fill(folder, places.release_files(OLD))
    places.apply(folder, subject)
    fill(folder, places.release_files(NEW))
    shutil.rmtree(folder.with_name("aside"))


MOVED_ON = {**places.PACK, "nodes.py": places.PACK["nodes.py"] + b"MORE = ['c']\n"}


def moved_on(folder: Path, subject: Subject) -> None:
    """A pack of which a newer version was unpacked over the converted files."""
    places.apply(folder, subject)
    fill(folder, {"nodes.py": MOVED_ON["nodes.py"]})


def with_edit(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data + EDIT if path in ("main.py", "nodes.py") else data for path, data in files.items()}


COMFY = places.release_files(NEW)
SCENARIOS = {
    "apply": Scenario("apply", places.comfyui, COMFY, unpatched),
    "revert": Scenario("revert", places.comfyui, COMFY, is_patched),
    "revert with edits": Scenario("revert", places.comfyui, with_edit(COMFY), edited),
    "revert of what was run": Scenario("revert", places.comfyui, COMFY, was_run),
    "repair of a half": Scenario("repair", places.comfyui, COMFY, half),
    "repair without module": Scenario("repair", places.comfyui, COMFY, without_module),
    "update": Scenario("update", places.comfyui, COMFY, updated),
    "pack apply": Scenario("apply", places.pack, places.PACK, unpatched),
    "pack revert": Scenario("revert", places.pack, places.PACK, is_patched),
    "pack revert with edits": Scenario("revert", places.pack, with_edit(places.PACK), edited),
    "pack repair": Scenario("repair", places.pack, places.PACK, half),
    "pack update": Scenario("update", places.pack, MOVED_ON, moved_on),
}
LEAST = 200  #: kill points over all scenarios
ALIKE = 3  #: of steps that do the same to one file after another, this many at both ends are tried
POINTS: dict[str, int] = {}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_anywhere_is_put_right(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, subject = SCENARIOS[name], SCENARIOS[name].subject()
    clean = {path: data.removesuffix(EDIT) for path, data in scenario.files.items()}
    monkeypatch.setenv("PATCHFORGE_STATE", str(place / "ready" / "state"))
    scenario.ready(fill(place / "ready" / "folder", clean), subject)
    if name != "update":
        assert {*content(place / "ready" / "folder")} >= {*scenario.files}
    whole = places.patched(scenario.files, subject, place / "whole")
    for number in _killed(scenario, subject, place, monkeypatch):
        POINTS[name] = number
        folder = place / "now" / "folder"
        _put_right(folder, subject, scenario, whole)
        if number % 5 == 0:
            _put_back(folder, subject, scenario)
    assert POINTS[name] > 3
    assert not list((place / "now" / "folder").rglob("*.new*"))


def test_there_are_enough_kill_points() -> None:
    if {*POINTS} != {*SCENARIOS}:
        pytest.skip("counts what the scenarios had, when all of them ran")
    assert sum(POINTS.values()) >= LEAST, POINTS


def _killed(scenario: Scenario, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Kills the command before one of its changes, again and again; the last run ends by itself."""
    monkeypatch.setenv("PATCHFORGE_STATE", str(tmp_path / "now" / "state"))
    again(tmp_path)
    steps: list[str] = []
    places.COMMANDS[scenario.command](tmp_path / "now" / "folder", subject, step=steps.append)
    for number, point in enumerate([*points(steps), len(steps) + 1], 1):
        again(tmp_path)
        assert _run_until(scenario, subject, tmp_path / "now" / "folder", point) is (point > len(steps))
        yield number


def again(place: Path) -> None:
    """The folder as it is before the command, and the records of it."""
    shutil.rmtree(place / "now", ignore_errors=True)
    shutil.copytree(place / "ready", place / "now")


def points(steps: list[str], alike: int = ALIKE) -> list[int]:
    """The steps to try, by number: of those that do the same to many files some at the beginning and at the end."""
    kinds: dict[tuple[str, bool], list[int]] = {}
    for number, step in enumerate(steps, 1):
        kinds.setdefault((step.partition(" ")[0], ".patchforge" in step), []).append(number)
    return sorted({number for numbers in kinds.values() for number in (*numbers[:alike], *numbers[-alike:])})


class Killed(BaseException):
    """Nothing catches this; what is open is closed, as by the system."""


def _run_until(scenario: Scenario, subject: Subject, folder: Path, number: int) -> bool:
    left = number

    def step(_name: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    try:
        places.COMMANDS[scenario.command](folder, subject, step=step)
    except Killed:
        return False
    return True


def _put_right(folder: Path, subject: Subject, scenario: Scenario, whole: dict[str, bytes]) -> None:
    """Follows what the state says until nothing is wrong, at most twice; the bytes are right."""
    examined = look(folder, subject)
    for _ in range(2):
        if examined.in_order:
            break
        places.COMMANDS[named(examined)](folder, subject)
        examined = look(folder, subject)
    assert examined.in_order, (examined.state, examined.leftovers, examined.do)
    files = {path: data for path, data in content(folder).items() if not path.startswith(".patchforge/")}
    if examined.state is not FolderState.UNTOUCHED:
        files = {path: data for path, data in files.items() if "__pycache__" not in path}
    assert files == (scenario.files if examined.state is FolderState.UNTOUCHED else whole), examined.state
    assert examined.state is not FolderState.UNTOUCHED or not empty_folders(folder)


def empty_folders(folder: Path) -> list[str]:
    """Folders without a file below them; none of a release or a pack is one."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir() and not content(path)]


def _put_back(folder: Path, subject: Subject, scenario: Scenario) -> None:
    if look(folder, subject).known:
        places.revert(folder, subject)
    assert content(folder) == scenario.files
    assert not empty_folders(folder)
