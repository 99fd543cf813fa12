"""Where pins are kept: one JSON document for each kind, in ``upstream/pins/``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from patchforge import documents
from patchforge.outputs import write_document

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


def save(kind: str, pins: Pins, folder: Path, inputs: Iterable[Path] = ()) -> bool:
    """Whether the file changed. PatchforgeError where another file than pins stands there, or one of ``inputs``."""
    return write_document(folder / f"{kind}.json", render(pins), partial(are_pins, kind), inputs=inputs)


def are_pins(kind: str, data: bytes) -> bool:
    """Whether a file holds pins of that kind, such as ``nodes``: people may have edited their values."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict):
        return False
    if kind.startswith("torch/"):
        return isinstance(found.get("wheels"), list)
    entries = [found] if "rev" in found else list(found.values())
    return all(isinstance(one, dict) and _is_pin(one) for one in entries)


def _is_pin(entry: Mapping[str, Any]) -> bool:
    """One of a repository, or wheels by version."""
    return bool({"rev", "hash"} & entry.keys()) or all(
        isinstance(one, dict) and "file" in one for one in entry.values()
    )


def kinds(folder: Path) -> list[str]:
    """Every document there is; a lock of torch is one called ``torch/<version>-<abi>``."""
    return sorted(path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json"))
