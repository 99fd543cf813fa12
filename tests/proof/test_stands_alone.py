"""The proofs know nothing of what they judge: they reach no rule, engine or pack by any chain of imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import ROOT

#: All that a proof may need: types, errors and their words, documents, child processes, and how a path is typed.
ALLOWED = frozenset(
    {
        "patchforge",
        "patchforge.bounded",
        "patchforge.documents",
        "patchforge.effort",
        "patchforge.errors",
        "patchforge.extras",
        "patchforge.faults",
        "patchforge.paths",
        "patchforge.processes",
        "patchforge.resources",
        "patchforge.vocabulary",
    }
)
OURS = ("patchforge", "transforms", "templates", "upstream", "emulator")
_MODULE = re.compile(rf"(?:{'|'.join(OURS)})(?:\.\w+)+")


def file_of(module: str, folder: Path) -> Path | None:
    """The source of a module or package; None for what is neither, such as a name in a module."""
    place = folder.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def named_in(path: Path, module: str) -> tuple[str, ...]:
    return tuple(_named_in(path, module))


def _named_in(path: Path, module: str) -> Iterator[str]:
    """Every module of ours that a file names, in functions and as text too; with the packages that they are in."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE.fullmatch(node.value):
            yield node.value


def reached(modules: set[str], folder: Path) -> set[str]:
    """The modules of ours that these import, and what those import, and so on."""
    known: set[str] = set()
    waiting = set(modules)
    while waiting:
        module = waiting.pop()
        path = file_of(module, folder) if module.partition(".")[0] in OURS else None
        if path is None or module in known:
            continue
        known.add(module)
        parts = module.split(".")
        waiting |= {".".join(parts[:end]) for end in range(1, len(parts))} | set(named_in(path, module))
    return known


def proofs() -> set[str]:
    """Every module of the room, those of its packages too."""
    files = (ROOT / "patchforge" / "proof").rglob("*.py")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files if path.stem != "__init__"}


@pytest.mark.parametrize("module", sorted(proofs()))
def test_a_proof_imports_nothing_of_what_it_judges(module: str) -> None:
    others = {name for name in reached({module}, ROOT) if not name.startswith("patchforge.proof")}
    assert others <= ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "from patchforge.engine import convert",
        "from patchforge.nodes.code import Code",
        "from patchforge import transform",
        "def late():\n    from patchforge.engine.convert import Engine",
        "import transforms.comfyui.free_memory as rule",
        "if TYPE_CHECKING:\n    from patchforge.transform import Transform",
        "from ..engine.convert import Engine",
        "from .. import transform",
        "from . import helper",
        "import importlib\nimportlib.import_module('patchforge.transform')",
        "from patchforge.shared import table",
    ],
)
def test_the_check_sees_every_way_to_import(tmp_path: Path, source: str) -> None:
    files = {
        "patchforge/engine/convert.py": "class Engine: ...",
        "patchforge/transform.py": "class Transform: ...",
        "patchforge/nodes/code.py": "class Code: ...",
        "patchforge/shared.py": "from patchforge import transform\ntable = transform",
        "patchforge/proof/helper.py": "import patchforge.engine.convert",
        "patchforge/proof/static.py": source,
        "transforms/comfyui/free_memory.py": "",
    }
    for name in (
        "patchforge",
        "patchforge/engine",
        "patchforge/nodes",
        "patchforge/proof",
        "transforms",
        "transforms/comfyui",
    ):
        files[f"{name}/__init__.py"] = ""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert any(
        name.startswith(("patchforge.engine.", "patchforge.nodes.", "patchforge.transform", "transforms."))
        for name in reached({"patchforge.proof.static"}, tmp_path)
    )
