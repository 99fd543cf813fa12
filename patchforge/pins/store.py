"""Where pins are kept: one JSON document for each kind, in ``upstream/pins/``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

from patchforge import documents
from patchforge.atomic import write_file
from patchforge.project import root

Pins = dict[str, Any]
_SINGLE = ("ollama", "mordragt-nixos")


class Pin(TypedDict, total=False):
    """What every pin has that names these; which of them it must have depends on its kind."""

    rev: str
    hash: str
    hash_source: str
    owner: str
    repo: str
    tag: str
    url: str
    requirements: list[str]
    wheels: list[dict[str, Any]]


def pins_folder() -> Path:
    return root() / "upstream" / "pins"


def load(kind: str, folder: Path) -> Pins:
    """The pins of a kind, such as ``nodes``; empty when there are none yet. Damaged for a broken file."""
    path = folder / f"{kind}.json"
    if not path.exists():
        return {}
    pins = documents.read_json(path, dict[str, Any])
    if kind in _SINGLE or "wheels" in pins or "rev" in pins:
        documents.structured(pins, Pin, str(path))
    else:
        documents.structured(pins, dict[str, dict[str, Any]] if kind == "python" else dict[str, Pin], str(path))
    return pins


def render(pins: Pins) -> bytes:
    return (json.dumps(pins, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def save(kind: str, pins: Pins, folder: Path) -> bool:
    """Whether the file changed."""
    return write_file(folder / f"{kind}.json", render(pins))


def kinds(folder: Path) -> list[str]:
    """Every document there is; a lock of torch is one called ``torch/<version>-<abi>``."""
    return sorted(path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json"))
