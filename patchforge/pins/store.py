"""Where pins are kept: one JSON document for each kind, in ``upstream/pins/``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from patchforge.atomic import write_file
from patchforge.errors import PatchforgeError
from patchforge.project import root

Pins = dict[str, Any]


def pins_folder() -> Path:
    return root() / "upstream" / "pins"


def load(kind: str, folder: Path) -> Pins:
    """The pins of a kind, such as ``nodes``; empty when there are none yet. PatchforgeError for a broken file."""
    path = folder / f"{kind}.json"
    try:
        found: Pins = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise PatchforgeError(f"{path} is not JSON", found=str(error), do="restore it from git") from error
    return found


def render(pins: Pins) -> bytes:
    return (json.dumps(pins, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def save(kind: str, pins: Pins, folder: Path) -> bool:
    """Whether the file changed."""
    return write_file(folder / f"{kind}.json", render(pins))


def kinds(folder: Path) -> list[str]:
    """Every document there is; a lock of torch is one called ``torch/<version>-<abi>``."""
    return sorted(path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json"))
