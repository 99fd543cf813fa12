"""A pack as files: read whole, with what cannot be read said and everything else kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from patchforge.checkout.place import need_pack
from patchforge.errors import PatchforgeError
from patchforge.nodes.reach import reachable

LARGEST = 2_000_000  #: bytes of a Python file; larger ones are generated tables
_IGNORED = frozenset((".git", ".hg", ".patchforge", "__pycache__", "node_modules", ".venv", "venv"))
_WANTED = (".py", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".cu", ".cuh")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """A file that was left as it is because it could not be looked at."""

    path: str
    line: int
    reason: str


@dataclass(frozen=True)
class Pack:
    """The files of a pack that matter, by POSIX path, sorted."""

    name: str
    folder: Path
    files: dict[str, bytes]
    problems: tuple[Problem, ...] = ()

    @cached_property
    def reachable(self) -> frozenset[str]:
        """The Python files that a node can come to."""
        return reachable({name: data for name, data in self.files.items() if name.endswith((".py", ".yaml", ".yml"))})


def read_pack(folder: Path) -> Pack:
    """Reads a pack's folder. Links are not followed; PatchforgeError where there is no Python, or not one pack."""
    if not folder.is_dir():
        raise PatchforgeError(f"{folder} is not a folder", expected="the folder of a custom-node pack", do="name it")
    need_pack(folder)
    files: dict[str, bytes] = {}
    problems: list[Problem] = []
    root = folder.resolve()
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            problems += _link(path, name, root)
        elif name.endswith(".py") and path.stat().st_size > LARGEST:
            problems.append(Problem(name, 1, f"{path.stat().st_size} bytes: a generated file, not looked at"))
        elif name.endswith(_WANTED) and path.is_file() and path.stat().st_size <= LARGEST:
            files[name] = path.read_bytes()
    if not any(name.endswith(".py") for name in files) and not problems:
        raise PatchforgeError(
            f"{folder} holds no Python file", expected="the folder of a custom-node pack", do="name another folder"
        )
    return Pack(root.name, folder, dict(sorted(files.items())), tuple(sorted(problems)))


def _walk(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _IGNORED)
        yield from (Path(at, name) for name in folders if Path(at, name).is_symlink())
        yield from (Path(at, name) for name in sorted(names))


def _link(path: Path, name: str, root: Path) -> Iterator[Problem]:
    """A link within the pack is no loss: its target is looked at. One that leads out of it is refused."""
    target = path.resolve()
    if not target.is_relative_to(root):
        yield Problem(name, 1, "a link out of the pack: not followed, and nothing is written through it")
    elif not target.exists():
        yield Problem(name, 1, "a link to nothing")
