"""Looks into a folder with ComfyUI: its version, and whether it is patched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from patchforge import bounded
from patchforge.checkout import examine as checkouts
from patchforge.checkout.change import way_on
from patchforge.checkout.place import MANAGEMENT, where
from patchforge.doctor.facts import Checkout, Facts, FactState, Finding
from patchforge.errors import PatchforgeError
from patchforge.project import load_project, recognise
from patchforge.sources.folder import FolderTree

_WRONG = frozenset({checkouts.FolderState.HALF, checkouts.FolderState.UPDATED, checkouts.FolderState.LOST})
_ABOUT_TORCH = re.compile(r"^(?:torch\b(?!-).*|(?:-i|--(?:extra-)?index-url)\b.*)$", re.MULTILINE)


def examine(folder: Path) -> Checkout:
    """PatchforgeError for a folder without ComfyUI in it."""
    tree = FolderTree(folder)
    management = folder / MANAGEMENT
    if not management.is_file():
        right = where(folder).right
        raise PatchforgeError(
            f"{folder} does not hold ComfyUI",
            expected=MANAGEMENT,
            found="no such file",
            do=f"name ComfyUI's own folder{f', {right}' if right else ''}",
        )
    version = recognise(tree, load_project())
    seen = checkouts.look(folder)
    listed = [folder / "requirements.txt", *sorted((folder / "custom_nodes").glob("*/requirements*.txt"))]
    stated = {path.relative_to(folder).as_posix(): _about_torch(path) for path in listed if path.is_file()}
    return Checkout(
        path=str(folder),
        version=str(version or ""),
        state=str(seen.state),
        says=seen.says,
        do="" if seen.is_copy else way_on(seen),
        requirements={path: lines for path, lines in stated.items() if lines},
    )


def _about_torch(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in _ABOUT_TORCH.findall(bounded.head(path)))


def findings(facts: Facts) -> Iterator[Finding]:
    """Whether the checkout is patched completely."""
    checkout = facts.checkout
    if checkout is None:
        return
    text = f"ComfyUI {checkout.version or 'of unknown version'} in {checkout.path}: {checkout.says}"
    state = checkouts.FolderState(checkout.state)
    if state in _WRONG:
        yield Finding("ComfyUI", FactState.WRONG, text, checkout.do)
    elif state is checkouts.FolderState.UNTOUCHED:
        wanted = facts.machine.intel or facts.interpreter.sees_xpu
        yield Finding("ComfyUI", FactState.WARNING if wanted else FactState.OK, text, checkout.do if wanted else "")
    else:
        yield Finding("ComfyUI", FactState.WARNING if checkout.do else FactState.OK, text, checkout.do)
