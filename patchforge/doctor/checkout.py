"""Looks into a folder with ComfyUI: its version, and whether it is patched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from patchforge.doctor.words import Checkout, Facts, Finding, State
from patchforge.errors import PatchforgeError
from patchforge.project import load_project, recognise, root
from patchforge.sources.folder import FolderTree

_MANAGEMENT = "comfy/model_management.py"
_MODULE = "comfy/patchforge_xpu"
_ABOUT_TORCH = re.compile(r"^(?:torch\b(?!-).*|(?:-i|--(?:extra-)?index-url)\b.*)$", re.MULTILINE)


def look(folder: Path) -> Checkout:
    """PatchforgeError for a folder without ComfyUI in it."""
    tree = FolderTree(folder)
    management = folder / _MANAGEMENT
    if not management.is_file():
        raise PatchforgeError(
            f"{folder} holds no ComfyUI", expected=_MANAGEMENT, found="no such file", do="name ComfyUI's own folder"
        )
    version = recognise(tree, load_project())
    listed = [folder / "requirements.txt", *sorted((folder / "custom_nodes").glob("*/requirements*.txt"))]
    found = {path.relative_to(folder).as_posix(): _about_torch(path) for path in listed if path.is_file()}
    return Checkout(
        path=str(folder),
        version=str(version or ""),
        module=_module(folder / _MODULE),
        hooked=b"patchforge_xpu" in management.read_bytes(),
        requirements={path: lines for path, lines in found.items() if lines},
    )


def _module(folder: Path) -> str:
    if not folder.is_dir():
        return "other" if folder.with_suffix(".py").is_file() else ""
    ours = {path.name: path.read_bytes() for path in (root() / "transforms" / "runtime" / folder.name).glob("*.py")}
    return "ours" if ours == {path.name: path.read_bytes() for path in folder.glob("*.py")} else "other"


def _about_torch(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in _ABOUT_TORCH.findall(path.read_text("utf-8", "replace")))


def findings(facts: Facts) -> Iterator[Finding]:
    """Whether the checkout is patched, wholly, and by this patchforge."""
    one = facts.checkout
    if one is None:
        return
    name = f"ComfyUI {one.version or 'of unknown version'} in {one.path}"
    again = f"patchforge apply --revert {one.path}, then patchforge apply --in-place {one.path}"
    if one.module and not one.hooked:
        text = (
            f"{name}: patchforge's module is there and {_MANAGEMENT} does not call it; was it updated over the patches?"
        )
        yield Finding("ComfyUI", State.WRONG, text, again)
    elif one.hooked and not one.module:
        yield Finding("ComfyUI", State.WRONG, f"{name}: calls patchforge's module, and {_MODULE} is missing", again)
    elif one.module == "other":
        yield Finding("ComfyUI", State.WARNING, f"{name}: patched by another version of patchforge", again)
    elif one.module:
        yield Finding("ComfyUI", State.OK, f"{name}: patched")
    else:
        state = State.WARNING if facts.machine.intel or facts.interpreter.sees_xpu else State.OK
        do = f"patchforge apply --in-place {one.path}" if state is State.WARNING else ""
        yield Finding("ComfyUI", state, f"{name}: not patched", do)
