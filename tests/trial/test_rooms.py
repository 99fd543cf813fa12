"""The rooms of a trial: imports go one way, and what decides results is all there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from patchforge import trial
from patchforge.trial import pack_runner, runner

HOME = Path(trial.__file__).parent
#: Room → the rooms that it may import of. Every room may know ``model``; the runners, at the top, know all.
ARROWS = {
    "server": set[str](),
    "workflows": set[str](),
    "verdicts": {"server", "workflows"},
    "reports": set[str](),
    "comparison": set[str](),
}


def imported(path: Path) -> set[str]:
    """What of ``patchforge.trial`` a file imports, by its first name there."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("patchforge.trial"):
            names = (node.module or "").split(".")[2:3] or [name.name for name in node.names]
            imported |= set(names)
    return imported


def test_all_rooms_are_known() -> None:
    assert ARROWS.keys() == {path.parent.name for path in HOME.glob("*/__init__.py")}


@pytest.mark.parametrize("room", ARROWS)
def test_imports_go_one_way(room: str) -> None:
    seen = set[str]().union(*(imported(path) for path in (HOME / room).rglob("*.py")))
    assert seen - {room, "model"} <= ARROWS[room]


@pytest.mark.parametrize("pattern", [*runner.JUDGED, *pack_runner._OWN])
def test_what_decides_results_is_found(pattern: str) -> None:
    assert list(HOME.rglob(pattern))
