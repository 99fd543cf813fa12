"""Folders that are patched in place, without converting the same files twice."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from patchforge.checkout import change, journal
from patchforge.checkout.examine import Examined, examine
from patchforge.checkout.subject import ComfyUICheckout, Files, NodePack, PatchedFiles, Subject
from patchforge.inside import Inside
from patchforge.rules import transforms
from patchforge.vocabulary import Tree
from tests.support import engine_of, miniature

OLD, NEW = "v0.21.0", "v0.33.0"
MODULE = "comfy/patchforge_xpu/__init__.py"
PACK = {
    "__init__.py": b"from . import nodes\n\nNODE_CLASS_MAPPINGS = {'A': nodes.A, 'B': nodes.B}\n",
    "nodes.py": (
        b"import torch\n\nfrom . import more\n\n\nclass A:\n    def run(self, x):\n"
        b'        device = "cuda" if torch.cuda.is_available() else "cpu"\n        return more.go(x.to(device))\n\n\n'
        b"class B:\n    def run(self):\n        torch.cuda.empty_cache()\n        return None\n\n\nNAMES = ['a', 'b']\n"
    ),
    "more.py": b"import torch\n\n\ndef go(x):\n    torch.cuda.empty_cache()\n    return x\n",
}
_ENGINE = cache(lambda: engine_of(transforms()))
_MADE: dict[str, PatchedFiles] = {}


@dataclass(frozen=True)
class Made:
    """A conversion whose files are rendered once."""

    real: PatchedFiles

    @cached_property
    def before(self) -> dict[str, bytes]:
        return dict(self.real.before)

    @cached_property
    def after(self) -> dict[str, bytes]:
        return dict(self.real.after)

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return self.real.files()

    def files(self, context: int = 0) -> dict[str, bytes]:
        assert context == 0
        return self._files


@dataclass(frozen=True)
class Remembered:
    """A subject that converts equal files once."""

    real: Subject
    converted: list[str] = field(default_factory=list)

    @property
    def kind(self) -> Literal["release", "pack"]:
        return self.real.kind

    @property
    def options(self) -> tuple[str, ...]:
        return self.real.options

    def stated(self, inside: Inside) -> str:
        return self.real.stated(inside)

    def names_ours(self, data: bytes) -> bool:
        return self.real.names_ours(data)

    def marked(self, inside: Inside) -> dict[str, bytes]:
        return self.real.marked(inside)

    def variants(self) -> Iterator[Subject]:
        return (Remembered(variant, self.converted) for variant in self.real.variants())

    def tree(self, folder: Path) -> Tree:
        return self.real.tree(folder)

    def whole(self, inside: Inside) -> bool:
        return self.real.whole(inside)

    def convert(self, inside: Inside, instead: Files) -> PatchedFiles:
        there = {path: data for path, data in content(inside.root).items() if not path.startswith(".patchforge")}
        return self._once(inside, {**there, **instead}, lambda: self.real.convert(inside, instead))

    def convert_tree(self, inside: Inside, tree: Tree) -> PatchedFiles:
        files: dict[str, bytes | None] = {path: tree.read(path) for path in tree.entries()}
        return self._once(inside, files, lambda: self.real.convert_tree(inside, tree))

    def _once(self, inside: Inside, files: Files, make: Callable[[], PatchedFiles]) -> PatchedFiles:
        own = sorted((path, data) for path, data in files.items() if data is not None and path.endswith(".py"))
        key = hashlib.sha256(repr((self.kind, self.options, inside.root.name, own)).encode()).hexdigest()
        self.converted.append(key)
        if key not in _MADE:
            _MADE[key] = Made(make())
        return _MADE[key]


def comfyui() -> Remembered:
    return Remembered(ComfyUICheckout(_ENGINE))


def pack(options: tuple[str, ...] = ()) -> Remembered:
    return Remembered(NodePack(options))


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file but git's own."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    names = ((path.relative_to(folder), path) for path in sorted(files))
    return {name.as_posix(): path.read_bytes() for name, path in names if name.parts[0] not in (".git", "__pycache__")}


def patched(files: dict[str, bytes], subject: Subject, scratch: Path) -> dict[str, bytes]:
    """What the files are once they are patched."""
    place = fill(scratch, files)
    made = subject.convert(Inside(place), {})
    shutil.rmtree(place)
    return {**files, **made.after}


def apply(folder: Path, subject: Subject, **more: Any) -> change.Plan:
    with change.opened(folder, **more) as inside:
        change.refuse_unless_untouched(inside, subject)
        return change.patch(inside, subject, subject.convert(inside, {}))


def revert(folder: Path, subject: Subject, *, dry_run: bool = False, **more: Any) -> change.Plan:
    with change.opened(folder, dry_run=dry_run, **more) as inside:
        return change.revert(inside, subject, dry_run=dry_run)


def repair(folder: Path, subject: Subject, *, dry_run: bool = False, **more: Any) -> change.Plan:
    with change.opened(folder, dry_run=dry_run, **more) as inside:
        return change.repair(inside, subject, dry_run=dry_run)


def update(folder: Path, subject: Subject, *, dry_run: bool = False, **more: Any) -> change.Plan:
    with change.opened(folder, dry_run=dry_run, **more) as inside:
        return change.update(inside, subject, dry_run=dry_run)


COMMANDS: dict[str, Callable[..., change.Plan]] = {
    "apply": apply,
    "revert": revert,
    "repair": repair,
    "update": update,
}


def look(folder: Path, subject: Subject) -> Examined:
    return examine(Inside(folder), subject)


def named(examined: Examined) -> str:
    """The command that the state names first."""
    return next(name for name in COMMANDS if examined.do.startswith(examined.command(name)))


def release_files(version: str) -> dict[str, bytes]:
    return miniature(version)


def state_folder() -> Path:
    assert os.environ["PATCHFORGE_STATE"]
    return journal.state_folder()
