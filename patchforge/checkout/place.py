"""What a folder is, by what lies in it and above it: ComfyUI, a pack, a part of either, or a folder around them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from patchforge import bounded
from patchforge.checkout import installation
from patchforge.errors import Damaged, PatchforgeError
from patchforge.paths import need_folder, quoted
from patchforge.started import program

MANAGEMENT = "comfy/model_management.py"  #: in every release of ComfyUI
PACKS = "custom_nodes"
_DISABLED = ".disabled"  #: where ComfyUI-Manager puts packs that are switched off
_COMFYUIS_OWN = "websocket_image_save.py"  #: comes with ComfyUI among the packs
_COMFYUIS_FOLDERS = frozenset(("models", "input", "output", "user"))


class FolderKind(StrEnum):
    """What a folder can be; the text goes on from "FOLDER is"."""

    COMFYUI = "ComfyUI itself"
    PACK = "a pack of nodes"
    WITHIN = "a part of ComfyUI"
    IN_PACK = "a part of a pack"
    PACKS = "the folder of all packs"
    ABOVE = "a folder around ComfyUI"
    PORTABLE = "the folder of the portable build, around ComfyUI itself"
    DATA = "where the desktop application keeps models and packs, not ComfyUI itself"
    OTHER = "neither ComfyUI nor a pack of nodes"


@dataclass(frozen=True, slots=True)
class Where:
    """A folder, what it is, and the folder that was probably meant."""

    folder: Path
    place: FolderKind
    right: Path | None = None

    def refusal(self, wanted: str = "") -> PatchforgeError:
        """For a command that wants a ``release``, a ``pack``, or either ("")."""
        expected = {"release": "ComfyUI's own folder", "pack": "the folder of one pack"}
        return PatchforgeError(
            f"{self.folder} is {self.place}",
            expected=expected.get(wanted, "ComfyUI's own folder, or the folder of one pack"),
            found="neither comfy/model_management.py nor a Python file in it" if self.place is FolderKind.OTHER else "",
            do=self._do(wanted),
        )

    def _do(self, wanted: str) -> str:
        pack = f"one of the packs in {self.right / PACKS}" if self.right else ""
        return {
            FolderKind.COMFYUI: f"{command('release', 'apply', self.folder)} patches ComfyUI; for a pack, name {pack}",
            FolderKind.PACK: f"{command('pack', 'apply', self.folder)} converts a pack",
            FolderKind.WITHIN: f"name {pack}" if wanted == "pack" else f"name {self.right}",
            FolderKind.PACKS: f"name {self.right}"
            if wanted == "release" and self.right
            else "name one of the packs in it",
            FolderKind.ABOVE: f"name {pack}" if wanted == "pack" else f"name {self.right}",
            FolderKind.PORTABLE: f"name {pack}" if wanted == "pack" else f"name {self.right}",
            FolderKind.DATA: self._of_desktop(wanted),
            FolderKind.IN_PACK: f"name {self.right}",
            FolderKind.OTHER: "check the path",
        }[self.place]

    def _of_desktop(self, wanted: str) -> str:
        if wanted == "pack":
            return f"name one of the packs in {self.folder / PACKS}"
        known = " or ".join(str(folder) for folder in installation.desktop())
        return f"name the program's own folder, {known or 'LOCALAPPDATA/Programs/ComfyUI/resources/ComfyUI'}"


def command(kind: str, name: str, *folders: Path) -> str:
    """The whole command line for a folder of that kind, or for several packs."""
    shown, start = " ".join(map(quoted, folders)), program()
    return {
        ("release", "apply"): f"{start} apply {shown} --in-place",
        ("pack", "apply"): f"{start} packs apply {shown} --in-place",
        ("pack", "revert"): f"{start} packs revert {shown}",
    }.get((kind, name), f"{start} {name} {shown}")


def where(folder: Path) -> Where:
    """What ``folder`` is, also if a link leads there. Reads names only."""
    for path in dict.fromkeys((Path(os.path.abspath(folder)), folder.resolve())):  # noqa: PTH100 - links stay
        if location := _by_what_is_above(folder, path):
            return location
    return _by_what_is_in_it(folder)


def refuse_file(path: Path) -> None:
    """PatchforgeError for a file of a pack in its folder's place. ComfyUI also takes packs that are one file."""
    if path.suffix != ".py" or not path.is_file():
        return
    own = path.with_suffix("")
    moved = f"move it to {own / '__init__.py'}, from where ComfyUI loads it in the same way, and name {own}"
    raise PatchforgeError(
        f"{path} is not a folder",
        expected="the folder of a custom-node pack",
        found="a file",
        do=f"name {path.parent}" if (path.parent / "__init__.py").is_file() else moved,
    )


def need_pack(folder: Path) -> None:
    """PatchforgeError for what is surely something else than one pack's folder, such as a home or a whole disk."""
    refuse_file(folder)
    need_folder(folder, "the folder of a custom-node pack")
    root = folder.resolve()
    if root in (Path(root.anchor), Path.home().resolve()):  # asked first: nobody's whole disk is looked through
        raise PatchforgeError(f"{folder} is not a pack", expected="the folder of one custom-node pack", do="name that")
    location = where(folder)
    if location.place not in (FolderKind.PACK, FolderKind.OTHER):
        raise location.refusal("pack")


def _is_comfyui(folder: Path) -> bool:
    return (folder / MANAGEMENT).is_file()


def _by_what_is_above(folder: Path, path: Path) -> Where | None:
    if _is_comfyui(path):
        return Where(folder, FolderKind.COMFYUI, folder)
    root = next((parent for parent in path.parents if _is_comfyui(parent)), None)
    if path.name.lower() == PACKS or (path.name, path.parent.name) == (_DISABLED, PACKS):
        return Where(folder, FolderKind.PACKS, root)
    if root is None:
        return None
    top, *below = path.relative_to(root).parts
    if top == PACKS:
        depth = 2 if below[0] == _DISABLED else 1
        right = Path(root, top, *below[:depth])
        return Where(folder, FolderKind.IN_PACK, right) if len(below) > depth else None
    return None if (path / ".git").exists() else Where(folder, FolderKind.WITHIN, root)


def _by_what_is_in_it(folder: Path) -> Where:
    names = set(os.listdir(folder))  # noqa: PTH208
    if "__init__.py" not in names:
        if inner := next(_below(folder), None) if folder.resolve() != Path(folder.resolve().anchor) else None:
            return Where(folder, FolderKind.PORTABLE if installation.is_portable(folder) else FolderKind.ABOVE, inner)
        if installation.is_data(names):
            return Where(folder, FolderKind.DATA)
        if PACKS in names:
            one = _has_python(names) or _holds_loose_nodes(folder, names)
            return Where(folder, FolderKind.PACK) if one else Where(folder, FolderKind.ABOVE, folder)
        if ".git" not in names and any(_is_pack(folder / name) for name in sorted(names)):
            return Where(folder, FolderKind.PACKS)
    return Where(folder, FolderKind.PACK if _has_python(names) else FolderKind.OTHER)


def _below(folder: Path) -> Iterator[Path]:
    """ComfyUI one or two levels down, as in the portable build and in a folder of such."""
    for pattern in (f"*/{MANAGEMENT}", f"*/*/{MANAGEMENT}"):
        yield from (folder / file.relative_to(folder).parents[1] for file in sorted(folder.glob(pattern)))


def _has_python(names: set[str]) -> bool:
    return any(name.endswith(".py") for name in names)


def _holds_loose_nodes(folder: Path, names: set[str]) -> bool:
    """Whether a repository's ``custom_nodes`` is the pack: files that users are to copy into ComfyUI's own."""
    packs = folder / PACKS
    inside = set(os.listdir(packs)) if packs.is_dir() and not packs.is_symlink() else set()  # noqa: PTH208
    loose = _has_python(inside - {_COMFYUIS_OWN})
    return loose and not names & _COMFYUIS_FOLDERS and not any(_is_pack(packs / name) for name in sorted(inside))


def _is_pack(folder: Path) -> bool:
    """Whether a folder is loaded as a pack: its first file tells the nodes."""
    first = folder / "__init__.py"
    try:
        return not folder.is_symlink() and b"NODE_CLASS_MAPPINGS" in bounded.file(first)
    except (OSError, Damaged):
        return False
