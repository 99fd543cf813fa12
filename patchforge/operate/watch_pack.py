"""The pack patchforge-watch as the files that it is of."""

from __future__ import annotations

from pathlib import Path

from patchforge import bounded, outputs
from patchforge.trial.server.comfyui import PACK as TRIAL_PACK

NAME = "patchforge-watch"
_OWN = Path(__file__).parent / "pack"
_FILES = {name: _OWN / name for name in ("__init__.py", "watch.py", "probe.py")} | {
    name: TRIAL_PACK / name for name in ("counting.py", "device.py")
}


def files() -> dict[str, bytes]:
    """By name."""
    return {name: bounded.file(path) for name, path in _FILES.items()}


def write(custom_nodes: Path) -> Path:
    """Puts the pack into a folder of packs, which must be there; PatchforgeError as outputs.write_folder raises it."""
    import re  # noqa: PLC0415

    place = custom_nodes / NAME
    outputs.write_folder(place, files(), outputs.Kind("the pack", re.compile(r"\w+\.py")))
    return place
