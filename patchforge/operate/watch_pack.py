"""The pack patchforge-watch as the files that it is of."""

from __future__ import annotations

import re
from pathlib import Path

from patchforge import bounded, outputs
from patchforge.checkout.place import PACKS, FolderKind, where
from patchforge.errors import PatchforgeError
from patchforge.inside import Inside
from patchforge.paths import need_folder
from patchforge.trial.server.comfyui import PACK as TRIAL_PACK

NAME = "patchforge-watch"
_KIND = outputs.OutputKind("the pack", re.compile(r"\w+\.py"))
_OWN = Path(__file__).parent / "pack"
_FILES = {name: _OWN / name for name in ("__init__.py", "watch.py", "probe.py")} | {
    name: TRIAL_PACK / name for name in ("counting.py", "device.py")
}


def files() -> dict[str, bytes]:
    """By name."""
    return {name: bounded.file(path) for name, path in _FILES.items()}


def write(custom_nodes: Path) -> Path:
    """Puts the pack into a folder of packs, or an empty one, in place of an earlier one and what Python compiled of it.

    PatchforgeError for another folder, and as outputs.write_folder raises it.
    """
    need_folder(custom_nodes, "ComfyUI's custom_nodes")
    place = custom_nodes / NAME
    if place.is_symlink():
        raise PatchforgeError(
            f"{place} is a link", expected="a folder of ours, or nothing", do="remove the link, or name another folder"
        )
    found = where(custom_nodes).place
    if found is not FolderKind.PACKS and any(custom_nodes.iterdir()):
        inner = custom_nodes / PACKS
        raise PatchforgeError(
            f"{custom_nodes} is not a folder of packs",
            expected="ComfyUI's custom_nodes",
            found=str(found),
            do=f"name {inner}" if inner.is_dir() else "name ComfyUI's custom_nodes",
        )
    if place.is_dir():
        compiled = {name.removesuffix(".py") for name in _FILES}
        Inside(place).remove_folder("__pycache__", lambda name: name.partition(".")[0] in compiled)
    outputs.write_folder(place, files(), _KIND)
    return place
