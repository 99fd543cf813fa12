"""The keys of what is kept cover every module that decides what a file becomes, and none that only tells of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from patchforge import resources
from patchforge.engine.cache import PACKS, RELEASES, pack_rules_digest, rule_set_digest
from tests.support import ROOT

#: What the deciding modules import that decides nothing about a file's bytes.
TOLD = {"patchforge/__init__.py", "patchforge/errors.py", "patchforge/processes.py", "patchforge/resources.py"}
#: Where what is kept is kept, looked up and shown. What is read of a pack is a part of the key.
AROUND = {
    *("patchforge/engine/cache.py", "patchforge/engine/sites.py", "patchforge/engine/__init__.py"),
    *("patchforge/nodes/__init__.py", "patchforge/proof/__init__.py", "patchforge/proof/packs/__init__.py"),
    "patchforge/nodes/pack.py",
}


def imported(path: Path) -> set[Path]:
    """The files of ours that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    places: set[Path] = set()
    for name in names:
        if name.partition(".")[0] == "patchforge":
            place = ROOT / name.removeprefix("patchforge.transforms.").replace(".", "/")
            top = ROOT / "transforms" if name.startswith("patchforge.transforms.") else ROOT
            place = top / place.relative_to(ROOT)
            places |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return places


@pytest.mark.parametrize(
    ("entry", "covered"),
    [("patchforge/engine/convert.py", RELEASES), ("patchforge/nodes/convert.py", PACKS)],
    ids=["releases", "packs"],
)
def test_all_that_decides_is_in_the_key(entry: str, covered: tuple[str, ...]) -> None:
    inside = {name for name, _ in resources.sources(*covered)}
    seen: set[str] = set()
    todo = [ROOT / entry, *(ROOT / name for name in inside if name.endswith(".py"))]
    while todo:
        path = todo.pop()
        name = path.relative_to(ROOT).as_posix()
        if name not in seen and name not in TOLD | AROUND:
            seen.add(name)
            todo += imported(path) if name != "patchforge/rules.py" else ()  # it imports either kind, when asked
    assert seen - inside == set()


@pytest.mark.parametrize("name", ["vocabulary.py", "effort.py", "rules.py", "devices.py", "engine/edits.py"])
def test_what_both_rest_on_is_in_both_keys(name: str) -> None:
    assert name in RELEASES
    assert name in PACKS


@pytest.mark.parametrize("name", ["nodes/report.py", "nodes/patched.py", "nodes/pack_cache.py", "engine/cache.py"])
def test_what_only_tells_is_in_no_key(name: str) -> None:
    assert f"patchforge/{name}" not in {covered for covered, _ in resources.sources(*RELEASES, *PACKS)}


def test_the_keys_differ() -> None:
    assert rule_set_digest() != pack_rules_digest()
