"""What comes with patchforge beside its code: rules, templates and tracked data, as paths on disk.

In the repository ``transforms/``, ``templates/`` and ``upstream/`` stand beside the package; where it is installed they
are inside of it. A package that is in a zip file is unpacked once, into a folder that goes with the process.
"""

from __future__ import annotations

import atexit
import importlib.resources
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path

ROOMS = ("transforms", "templates", "upstream")


def path(name: str) -> Path:
    """Where a room, or a file or folder of a room or of the package is, such as ``templates/nix``."""
    place = _home() / name
    return _home().parent / name if name.partition("/")[0] in ROOMS and not _is_installed() else place


def repository() -> Path | None:
    """The checkout of patchforge that this code runs from; None where it is installed."""
    return None if _is_installed() else _home().parent


def sources(*names: str) -> Iterator[tuple[str, bytes]]:
    """What ``names`` name, and of a folder its Python files, sorted: as the repository calls them, and their bytes."""
    for name in names:
        top = path(name)
        for file in sorted(top.rglob("*.py")) if top.is_dir() else [top]:
            inside = f"{name}/{file.relative_to(top).as_posix()}" if top.is_dir() else name
            yield inside if inside.partition("/")[0] in ROOMS else f"patchforge/{inside}", file.read_bytes()


@cache
def _home() -> Path:
    package = importlib.resources.files("patchforge")
    if isinstance(package, Path):
        return package
    folder = Path(tempfile.mkdtemp(prefix="patchforge-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _unpack(package, folder / "patchforge")
    return folder / "patchforge"


@cache
def _is_installed() -> bool:
    return (_home() / ROOMS[0]).is_dir()


def _unpack(place: Traversable, target: Path) -> None:
    if place.is_file():
        target.write_bytes(place.read_bytes())
        return
    target.mkdir()
    for part in place.iterdir():
        _unpack(part, target / part.name)
