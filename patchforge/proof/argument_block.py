"""Runs the block of ``main.py`` that reads the command line and sets the environment, before torch is imported."""

from __future__ import annotations

import ast
import importlib
import logging
import os
import sys
from pathlib import Path

from patchforge import bounded
from patchforge.proof.fake_torch import Fakes
from patchforge.proof.recording import canonical

OURS = "patchforge_xpu"
#: What main's argument block is run with, beside the scenario's own flags, and what the environment already holds.
COMMAND_LINES: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    ((), {}),
    (("--cuda-device", "1"), {}),
    (("--cuda-device", "1"), {"ZE_AFFINITY_MASK": "0"}),
    (("--default-device", "1"), {}),
    (("--oneapi-device-selector", "level_zero:1"), {}),
    (("--oneapi-device-selector", "level_zero:1", "--cuda-device", "1"), {}),
    (("--deterministic",), {}),
    (("--disable-cuda-malloc",), {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
)


def run_main(fakes: Fakes, tree: Path, flags: tuple[str, ...]) -> dict[str, object]:
    """Run main's argument block as if torch were not imported yet; what became of the environment and the arguments."""
    before = dict(os.environ)
    sys.argv = ["main.py", *flags]
    torch, stub = fakes.torch, fakes.scratch / "torch" / "__init__.py"
    stub.write_text("import sys\nsys.modules['torch'] = sys._patchforge_torch()\n", encoding="utf-8")
    imported: list[str] = []

    def lend_torch() -> object:
        imported.append("torch")
        return torch

    sys._patchforge_torch = lend_torch  # type: ignore[attr-defined] # noqa: SLF001 - the stub is a file of its own
    sys.path.insert(1, str(fakes.scratch))
    del sys.modules["torch"]
    arguments: dict[str, str] = {}
    error = ""
    try:
        arguments = _exec_blocks(tree)
    except BaseException as problem:  # noqa: BLE001 - argparse exits
        error = canonical(problem)
    finally:
        sys.modules["torch"] = torch
        sys.path.remove(str(fakes.scratch))
        importlib.invalidate_caches()
    changed = {
        k: os.environ.get(k, "<unset>") for k in sorted({*before, *os.environ}) if os.environ.get(k) != before.get(k)
    }
    return {
        "error": error,
        "environment": changed,
        "arguments": arguments,
        "imported": imported,
        "calls": fakes.log.take(),
    }


def _exec_blocks(tree: Path) -> dict[str, str]:
    options = importlib.import_module("comfy.options")
    options.enable_args_parsing()
    args = importlib.import_module("comfy.cli_args").args
    blocks = argument_blocks(tree)
    if not blocks:
        raise LookupError("main.py has no argument block that sets CUDA_VISIBLE_DEVICES")
    code = compile(ast.Module([*our_imports(tree), *blocks], []), str(tree / "main.py"), "exec")
    given = {"__name__": "__main__", "os": os, "sys": sys, "logging": logging, "importlib": importlib, "args": args}
    exec(code, given)  # noqa: S102 - running upstream's block is what this is for
    return {name: canonical(value) for name, value in sorted(vars(args).items())}


def argument_blocks(tree: Path) -> list[ast.stmt]:
    """main.py's ``if __name__ == "__main__":`` blocks up to the one that sets CUDA_VISIBLE_DEVICES; else none."""
    source = bounded.file(tree / "main.py")
    blocks: list[ast.stmt] = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
    ]
    last = max((number for number, block in enumerate(blocks, 1) if _sets_visible_devices(block)), default=0)
    return blocks[:last]


def our_imports(tree: Path) -> list[ast.stmt]:
    """main.py's top-level imports of our module, which the blocks use."""
    body = ast.parse(bounded.file(tree / "main.py")).body
    return [node for node in body if isinstance(node, ast.ImportFrom) and any(name.name == OURS for name in node.names)]


def _sets_visible_devices(block: ast.stmt) -> bool:
    return any(
        isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.slice, ast.Constant)
        and node.slice.value == "CUDA_VISIBLE_DEVICES"
        for node in ast.walk(block)
    )


def knows_flag(tree: Path, flag: str) -> bool:
    """Whether the tree's own parser, or our module in it, spells the flag."""
    files = (
        tree / "comfy" / "cli_args.py",
        *sorted((tree / "comfy").glob(f"{OURS}/*.py")),
        tree / "comfy" / f"{OURS}.py",
    )
    return any(f'"{flag}"'.encode() in bounded.file(path) for path in files if path.is_file())
