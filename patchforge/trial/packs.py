"""Custom-node packs as a trial takes them: files, conversion, requirements, and the workflows that we have for them."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.utils import canonicalize_name

from patchforge import bounded, resources
from patchforge.engine.cache import pack_rules_digest
from patchforge.errors import PatchforgeError
from patchforge.git.borrowed import checked_out
from patchforge.nodes.pack import read_pack
from patchforge.nodes.pack_cache import PackStore
from patchforge.nodes.patched import PatchedPack
from patchforge.pattern import Options
from patchforge.pins import requirements
from patchforge.pins.tracked import TrackedRepository, load_nodes
from patchforge.trial.model import AS_IT_COMES, CONVERTED, OWN_PACK, JsonObject, Workflow
from patchforge.trial.workflows import library
from patchforge.vocabulary import Decision

WORKFLOWS = Path(library.__file__).parent / "packs"  #: a folder for each pack that has some
#: Requirements that are not installed: they are for CUDA only, or stand in for what is for XPUs.
_NOT_WANTED = re.compile(
    r"cupy(-.+)?|onnxruntime-gpu|nvidia-.+|tensorrt.*|flash-attn|sageattention|xformers|deepspeed|pycuda"
)
_NOT_COPIED = frozenset([".git", "__pycache__", ".patchforge"])


@dataclass(frozen=True)
class TrialPack:
    """A pack that is to be tried, as it comes and converted."""

    name: str  #: as ``upstream/nodes/`` calls it; a pack that is not tracked has its folder's name
    folder: Path
    revision: str  #: the commit that is checked out; "" where that is not known
    patched: PatchedPack
    requirements: tuple[str, ...]
    left_out: tuple[str, ...]  #: requirements that are not installed
    workflows: dict[str, Workflow]

    @property
    def states(self) -> tuple[str, ...]:
        """The ways to try it: one where there is nothing to convert."""
        return (AS_IT_COMES, CONVERTED) if self.patched.after else (AS_IT_COMES,)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the files that matter (``read_pack``), as they come, with their names."""
        files = {name: hashlib.sha256(data).hexdigest() for name, data in self.patched.converted.pack.files.items()}
        return hashlib.sha256(repr(files).encode()).hexdigest()

    @cached_property
    def patch_digest(self) -> str:
        """The SHA-256 of its patch; "" where there is nothing to convert."""
        return "".join(hashlib.sha256(data).hexdigest() for data in self.patched.patch_files().values())

    @cached_property
    def facts(self) -> JsonObject:
        """What evidence says of it."""
        sites = self.patched.converted.sites
        return {
            "name": self.name,
            "folder": self.folder.name,
            "revision": self.revision,
            "files": self.digest,
            "patch": self.patch_digest,
            "rules": pack_rules_digest(),
            "sites": {str(decision): sum(site.decision is decision for site in sites) for decision in Decision},
            "left_out": list(self.left_out),
        }

    def put_into(self, tree: Path, state: str) -> Path:
        """Into ``custom_nodes``, in place of what is there by its name; the folder that it is then in."""
        target = tree / "custom_nodes" / self.folder.name
        self.take_from(tree)
        shutil.copytree(self.folder, target, symlinks=True, ignore=_not_copied)
        if state == CONVERTED:
            for path, data in self.patched.after.items():
                (target / path).write_bytes(data)
        return target

    def take_from(self, tree: Path) -> None:
        """Out of ``custom_nodes``, with all that it has written there."""
        shutil.rmtree(tree / "custom_nodes" / self.folder.name, ignore_errors=True)


def _not_copied(folder: str, names: list[str]) -> list[str]:
    """Also what is neither a file, a link nor a folder: a pipe would stop the copy."""
    return [name for name in names if name in _NOT_COPIED or not _is_plain(Path(folder, name))]


def _is_plain(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)


def read(folders: Iterable[Path], store: PackStore, without: Sequence[str] = ()) -> list[TrialPack]:
    """The packs in ``folders``; ``without`` names requirements to leave out. PatchforgeError for two of one name."""
    declared = {pack.owner_and_repo[1].lower(): pack for pack in load_nodes(resources.path("upstream"))}
    packs = [_read(folder, declared.get(folder.resolve().name.lower()), store, without) for folder in folders]
    names = [OWN_PACK, *(pack.folder.name for pack in packs)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PatchforgeError(f"two packs are called {twice[0]}", expected="one folder for each", do="name one of them")
    return packs


def _read(folder: Path, declared: TrackedRepository | None, store: PackStore, without: Sequence[str]) -> TrialPack:
    folder = folder.resolve()
    converted = store.convert(read_pack(folder), Options())
    patched = PatchedPack(converted, checked_out(folder)).checked()
    name = declared.name if declared else folder.name
    wanted, left_out = _requirements(folder, declared, {canonicalize_name(requirement) for requirement in without})
    own = WORKFLOWS / name
    known = library.load(folder=own) if own.is_dir() else {}
    return TrialPack(name, folder, patched.commit, patched, wanted, left_out, known)


def _requirements(
    folder: Path, declared: TrackedRepository | None, without: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is to be installed, and what is left out: options, addresses, what is for CUDA, what ``without`` names."""
    name = declared.requirements if declared else "requirements.txt"
    path = folder / name
    data = bounded.file(path) if name and path.is_file() and not path.is_symlink() else b""
    taken, refused = requirements.read(data, str(path))
    wanted: list[str] = []
    left_out = [refusal.line for refusal in refused]
    for line in {*taken, *(declared.also if declared else ())}:
        package = requirements.parse(line).name
        out = package in without or _NOT_WANTED.fullmatch(package)
        (left_out if out else wanted).append(line)
    return tuple(sorted(wanted)), tuple(sorted(left_out))
