"""The pack patchforge-watch as the files that it is of."""

from __future__ import annotations

import re
from pathlib import Path

from patchforge import bounded, outputs
from patchforge.errors import PatchforgeError
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
    """Puts the pack into a folder of packs, which must be there; PatchforgeError as outputs.write_folder raises it."""
    need_folder(custom_nodes, "ComfyUI's custom_nodes")
    place = custom_nodes / NAME
    if place.is_symlink():
        raise PatchforgeError(
            f"{place} is a link", expected="a folder of ours, or nothing", do="remove the link, or name another folder"
        )
    outputs.write_folder(place, files(), _KIND)
    return place
