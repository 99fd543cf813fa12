"""Looks into a folder with ComfyUI: its version, and whether it is patched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from patchforge.checkout.examine import State as Found
from patchforge.checkout.examine import look as examine
from patchforge.checkout.place import MANAGEMENT, where
from patchforge.doctor.words import Checkout, Facts, Finding, State
from patchforge.errors import PatchforgeError
from patchforge.project import load_project, recognise
from patchforge.sources.folder import FolderTree

_WRONG = frozenset({Found.HALF, Found.UPDATED, Found.LOST})
_ABOUT_TORCH = re.compile(r"^(?:torch\b(?!-).*|(?:-i|--(?:extra-)?index-url)\b.*)$", re.MULTILINE)


def look(folder: Path) -> Checkout:
    """PatchforgeError for a folder without ComfyUI in it."""
    tree = FolderTree(folder)
    management = folder / MANAGEMENT
    if not management.is_file():
        right = where(folder).right
        raise PatchforgeError(
            f"{folder} holds no ComfyUI",
            expected=MANAGEMENT,
            found="no such file",
            do=f"name ComfyUI's own folder{f', {right}' if right else ''}",
        )
    version = recognise(tree, load_project())
    seen = examine(folder)
    listed = [folder / "requirements.txt", *sorted((folder / "custom_nodes").glob("*/requirements*.txt"))]
    found = {path.relative_to(folder).as_posix(): _about_torch(path) for path in listed if path.is_file()}
    return Checkout(
        path=str(folder),
        version=str(version or ""),
        state=str(seen.state),
        says=seen.says,
        do=seen.do,
        requirements={path: lines for path, lines in found.items() if lines},
    )


def _about_torch(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in _ABOUT_TORCH.findall(path.read_text("utf-8", "replace")))


def findings(facts: Facts) -> Iterator[Finding]:
    """Whether the checkout is patched, and wholly."""
    one = facts.checkout
    if one is None:
        return
    name = f"ComfyUI {one.version or 'of unknown version'} in {one.path}"
    found = Found(one.state)
    if found in _WRONG:
        yield Finding("ComfyUI", State.WRONG, f"{name}: {one.says}", one.do)
    elif found is Found.UNTOUCHED:
        wanted = facts.machine.intel or facts.interpreter.sees_xpu
        yield Finding("ComfyUI", State.WARNING if wanted else State.OK, f"{name}: {one.says}", one.do if wanted else "")
    else:
        yield Finding("ComfyUI", State.WARNING if one.do else State.OK, f"{name}: {one.says}", one.do)
