"""What a checkout is a checkout of: a ComfyUI release or a node pack, and how either is converted."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from patchforge.errors import PatchforgeError
from patchforge.git.borrowed import checked_out
from patchforge.inside import EntryKind, Inside
from patchforge.project import load_project, recognise, release_index
from patchforge.sources.folder import FolderTree
from patchforge.sources.git import GitObjects, GitTree
from patchforge.vocabulary import Entry, Release, Tree, Version, git_blob_id

if TYPE_CHECKING:
    from patchforge.engine.convert import Engine
    from patchforge.nodes.pack import Pack
    from patchforge.nodes.patched import PatchedPack

MODULE = "comfy/patchforge_xpu"  #: the package that hooks call; ``.py`` in what version 0.1 patched
_PACKAGE = re.compile(rb"\bpatchforge_xpu\b")
_HELPER = re.compile(rb"^def (_patchforge_\w+)\(", re.MULTILINE)
#: What most lines of ours name. A line alone may be anybody's: see ``Subject.names_ours``.
MARK = re.compile(_PACKAGE.pattern + rb"|\b_patchforge_\w+")

Files = Mapping[str, bytes | None]  #: path → bytes; None for a file that is not there


def of_module(path: str) -> bool:
    """Whether a path is a file of the package that hooks call."""
    return path.startswith(f"{MODULE}/") or path == f"{MODULE}.py"


def module_files(inside: Inside) -> dict[str, bytes]:
    """What stands at the place of the package: path → bytes."""
    names = inside.names(MODULE) if inside.kind(MODULE) is not EntryKind.NOTHING else []
    paths = [*(f"{MODULE}/{name}" for name in names if name.endswith(".py")), f"{MODULE}.py"]
    contents = {path: inside.read(path) for path in paths}
    return {path: data for path, data in contents.items() if data is not None}


class PatchedFiles(Protocol):
    """A release or pack with its patches, as far as patching in place asks for it."""

    @property
    def before(self) -> Mapping[str, bytes]:
        """The bytes of every file that is changed; added files are missing."""
        ...

    @property
    def after(self) -> Mapping[str, bytes]:
        """The bytes of every changed or added file."""
        ...

    def files(self, context: int = 0) -> dict[str, bytes]:
        """Patches, series, manifest.json and report."""
        ...


class Subject(Protocol):
    """One kind of checkout."""

    @property
    def kind(self) -> Literal["release", "pack"]: ...

    @property
    def options(self) -> tuple[str, ...]:
        """What was asked for, and is asked for again when it is patched anew."""
        ...

    def stated(self, inside: Inside) -> str:
        """The release that the files state; "" for a pack."""
        ...

    def names_ours(self, data: bytes) -> bool:
        """Whether a file names something of ours, which nobody else has: it is patched, wholly or in part."""
        ...

    def marked(self, inside: Inside) -> dict[str, bytes]:
        """The files that name something of ours, of those that are patched; the module itself not among them."""
        ...

    def variants(self) -> Iterator[Subject]:
        """The same with every choice of options, this one first: for when nobody knows which was taken."""
        ...

    def convert(self, inside: Inside, instead: Files) -> PatchedFiles:
        """Converts and checks what is there, with some files as ``instead`` has them."""
        ...

    def convert_tree(self, inside: Inside, tree: Tree) -> PatchedFiles:
        """Converts another tree of the same, to know what patchforge makes of its files."""
        ...

    def tree(self, folder: Path) -> Tree:
        """The files of a folder with another copy of the same."""
        ...

    def whole(self, inside: Inside) -> bool:
        """Whether nothing is left to convert."""
        ...


def _parsed(data: bytes) -> list[ast.stmt]:
    """The statements of a file that are not in another one; nothing where it is not Python, as in a conflict."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(data).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _imports_ours(node: ast.stmt) -> bool:
    """Whether a statement holds an import of the package."""
    imports = (statement for statement in ast.walk(node) if isinstance(statement, (ast.Import, ast.ImportFrom)))
    names = (f"{getattr(statement, 'module', '')}.{alias.name}" for statement in imports for alias in statement.names)
    return any("patchforge_xpu" in name.split(".") for name in names)


def default_engine() -> Engine:
    """The engine with all transforms and the user's cache, for looking at a checkout."""
    from patchforge import pipeline  # noqa: PLC0415 - slow to import

    return pipeline.make_engine()


class Instead:
    """A tree with some files changed, added or taken away."""

    def __init__(self, base: Tree, files: Files) -> None:
        self.base, self.files, self.origin = base, files, base.origin

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        kept = {path: entry for path, entry in self.base.entries().items() if path not in self.files}
        own = {path: Entry(path, git_blob_id(data)) for path, data in self.files.items() if data is not None}
        return dict(sorted({**kept, **own}.items()))

    def entries(self) -> Mapping[str, Entry]:
        return self._entries

    def read(self, path: str) -> bytes:
        if path not in self.files:
            return self.base.read(path)
        data = self.files[path]
        if data is None:
            raise KeyError(path)
        return data


@dataclass(frozen=True)
class _Nothing:
    """A tree without files."""

    origin: str

    def entries(self) -> Mapping[str, Entry]:
        return {}

    def read(self, path: str) -> bytes:
        raise KeyError(path)


def head(inside: Inside) -> GitTree | None:
    """The tree of the commit that a git checkout stands on; None where there is none, or git cannot read it."""
    if not (inside.root / ".git").exists():
        return None
    try:
        objects = GitObjects(inside.root)
        commit = objects.commit("HEAD")
        return GitTree(objects, commit, str(inside.shown)) if commit else None
    except PatchforgeError:
        return None


@dataclass(frozen=True)
class ComfyUICheckout:
    """A checkout of ComfyUI. ``engine`` makes what converts it, when it is needed."""

    engine: Callable[[], Engine] = default_engine
    named: str = ""  #: the version that the user names, for releases that do not state theirs
    options: tuple[str, ...] = ()
    kind: Literal["release"] = "release"

    def stated(self, inside: Inside) -> str:
        return str(recognise(FolderTree(inside.root), load_project()) or "")

    def names_ours(self, data: bytes) -> bool:
        if not _PACKAGE.search(data):
            return False
        statements = _parsed(data)
        return not statements or any(map(_imports_ours, statements))

    def marked(self, inside: Inside) -> dict[str, bytes]:
        tree = FolderTree(inside.root)
        paths = [path for path in tree.entries() if path.endswith(".py") and not of_module(path)]
        named = [(path, data) for path in paths if _PACKAGE.search(data := tree.read(path))]
        wanted = self.engine().transforms if named else ()
        return {
            path: data
            for path, data in named
            if self.names_ours(data) and any(transform.wants(path) for transform in wanted)
        }

    def variants(self) -> Iterator[Subject]:
        yield self

    def convert(self, inside: Inside, instead: Files) -> PatchedFiles:
        from patchforge import pipeline  # noqa: PLC0415 - slow to import

        tree = Instead(FolderTree(inside.root), instead)
        patched = pipeline.convert(self.engine(), self._release(inside, tree), tree, edited=True)
        pipeline.check(patched)
        return patched

    def convert_tree(self, inside: Inside, tree: Tree) -> PatchedFiles:
        from patchforge import pipeline  # noqa: PLC0415 - slow to import

        return pipeline.convert(self.engine(), self._release(inside, tree), tree)

    def tree(self, folder: Path) -> Tree:
        return FolderTree(folder)

    def whole(self, inside: Inside) -> bool:
        tree = Instead(FolderTree(inside.root), dict.fromkeys(module_files(inside)))
        return not self.engine().convert(self._release(inside, tree), tree).changes

    def _release(self, inside: Inside, tree: Tree) -> Release:
        version = recognise(tree, load_project()) or self._indexed(inside)
        if version is None and self.named:
            version = Version.parse(self.named)
        if version is None:
            raise PatchforgeError(
                f"{inside.shown} is not recognised as a ComfyUI release",
                expected="comfyui_version.py, a version in pyproject.toml, or a checkout of a release's commit",
                found="none of them",
                do="check the path",
            )
        return Release(version, getattr(tree, "commit", ""))

    def _indexed(self, inside: Inside) -> Version | None:
        commit = checked_out(inside.root)
        known = release_index(load_project()) if commit else []
        return next((release.version for release in known if release.commit == commit), None)


OPTIONS = ("comfy", "fp64", "torch-load", "half")  #: in the order of ``nodes.words.Options``


@dataclass(frozen=True)
class NodePack:
    """A custom-node pack. ``options`` are flags of ``packs apply``."""

    options: tuple[str, ...] = ()
    kind: Literal["pack"] = "pack"

    def stated(self, inside: Inside) -> str:  # noqa: ARG002 - a pack states nothing that can be relied on
        return ""

    def names_ours(self, data: bytes) -> bool:
        from patchforge.proof.packs.helpers import helpers, is_ours  # noqa: PLC0415

        if helpers().keys().isdisjoint(name.decode() for name in _HELPER.findall(data)):
            return False
        statements = _parsed(data)
        return not statements or any(map(is_ours, statements))

    def marked(self, inside: Inside) -> dict[str, bytes]:
        files = self._pack(inside).files
        return {path: data for path, data in files.items() if path.endswith(".py") and self.names_ours(data)}

    def variants(self) -> Iterator[Subject]:
        yield self
        for choice in sorted(product((False, True), repeat=len(OPTIONS)), key=sum):
            options = tuple(name for name, wanted in zip(OPTIONS, choice, strict=True) if wanted)
            if options != self.options:
                yield NodePack(options)

    def convert(self, inside: Inside, instead: Files) -> PatchedFiles:
        pack = self._pack(inside)
        kept = {path: data for path, data in pack.files.items() if path not in instead}
        own = {path: data for path, data in instead.items() if data is not None}
        return self._patched(replace(pack, files=dict(sorted({**kept, **own}.items()))), checked_out(inside.root))

    def convert_tree(self, inside: Inside, tree: Tree) -> PatchedFiles:
        wanted = (path for path in tree.entries() if path.endswith((".py", ".yaml", ".yml")))
        return self._patched(replace(self._pack(inside), files={path: tree.read(path) for path in wanted}), "")

    def tree(self, folder: Path) -> Tree:
        from patchforge.nodes.pack import read_pack  # noqa: PLC0415

        return Instead(_Nothing(str(folder)), dict(read_pack(folder).files))

    def whole(self, inside: Inside) -> bool:
        return not self.convert(inside, {}).after

    def _pack(self, inside: Inside) -> Pack:
        from patchforge.nodes.pack import read_pack  # noqa: PLC0415

        return read_pack(inside.root)

    def _patched(self, pack: Pack, commit: str) -> PatchedPack:
        from patchforge.nodes.pack_cache import cached  # noqa: PLC0415
        from patchforge.nodes.patched import PatchedPack  # noqa: PLC0415
        from patchforge.pattern import Options  # noqa: PLC0415

        asked = Options(*(flag in self.options for flag in OPTIONS))
        return PatchedPack(cached().convert(pack, asked), commit).checked()
