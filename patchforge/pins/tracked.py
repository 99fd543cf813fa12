"""What is tracked besides ComfyUI: the TOML files in ``upstream/`` that people edit."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from patchforge import documents
from patchforge.errors import Damaged
from patchforge.hashes.fetchfromgithub import HOST

GROUPS = ("controlnet-aux", "upscaling", "animation", "samplers", "ollama")
_GITHUB = re.compile(re.escape(HOST) + r"/([\w-]+)/([\w.-]+)")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TrackedRepository:
    """A repository of GitHub that is pinned to a commit: the head of ``branch``, or the tag of ``version``."""

    name: str
    title: str
    url: str
    license: str  #: SPDX expression; ``LicenseRef-…`` where the repository's own words are not an SPDX expression
    branch: str = ""
    branch_days: float = 7  #: how old a commit of the branch must be before ``track`` calls it new; 24 hours each
    version: str = ""  #: held at this version, whose tag is ``v<version>``
    group: str = ""  #: of a node pack: one of GROUPS
    submodules: bool = False
    requirements: str = ""  #: the file in the repository that names Python requirements
    without: tuple[str, ...] = ()  #: names in that file that are left out
    also: tuple[str, ...] = ()  #: requirements that the file should name and does not
    vendor_hash: str = ""  #: of a Go program: the hash of its modules, as its publisher says
    notes: str = ""

    @property
    def owner_and_repo(self) -> tuple[str, str]:
        matched = _GITHUB.fullmatch(self.url)
        return (matched[1], matched[2]) if matched else ("", "")


@dataclass(frozen=True, slots=True)
class Companions:
    """Python packages that are pinned together with ComfyUI's releases."""

    title: str
    python: str  #: the oldest Python that the packages are built for
    names: tuple[str, ...]  #: pinned although a release does not name one version
    elsewhere: tuple[str, ...]  #: pinned in another file, or nixpkgs' own


@dataclass(frozen=True, slots=True)
class TrackedTorch:
    """PyTorch for XPU: where its wheels are and what belongs together."""

    title: str
    indexes: tuple[str, ...]
    local: str  #: the local version of its builds, ``xpu``
    default: str  #: the version that packages use
    pythons: tuple[str, ...]  #: the Pythons they use it on, the preferred one first
    elsewhere: tuple[str, ...]  #: requirements that nixpkgs' own packages meet
    versions: dict[str, dict[str, str]] = field(default_factory=dict)  #: by torch version: torchvision, torchaudio


def load_companions(folder: Path) -> Companions:
    return _loaded(Companions, folder / "companions.toml")


def load_torch(folder: Path) -> TrackedTorch:
    return _loaded(TrackedTorch, folder / "torch.toml")


def load_repository(path: Path) -> TrackedRepository:
    """Damaged for unknown keys, an address outside GitHub, and unless it says which commit to follow."""
    repository = _loaded(TrackedRepository, path)
    wrong = [
        *(["name"] if repository.name != path.stem else []),
        *(["url"] if not _GITHUB.fullmatch(repository.url) else []),
        *(["branch or version"] if bool(repository.branch) == bool(repository.version) else []),
        *(["branch_days"] if type(repository.branch_days) not in (int, float) or repository.branch_days < 0 else []),
        *(["group"] if (path.parent.name == "nodes") != (repository.group in GROUPS) else []),
    ]
    if wrong:
        raise Damaged(
            f"{path} does not declare a repository",
            expected=f"the file's name, {HOST}/OWNER/REPO, either branch or version, for a node pack a group",
            found="missing or malformed: " + ", ".join(wrong),
            do="correct the file",
        )
    return repository


def load_nodes(folder: Path) -> list[TrackedRepository]:
    """The node packs, sorted by name."""
    return [load_repository(path) for path in sorted((folder / "nodes").glob("*.toml"))]


def _plain(value: Any, kind: Any, origin: str) -> Any:
    """``value`` when it is of the declared type; TOML's lists become tuples."""
    if get_origin(kind) is tuple:
        return tuple(documents.structured(value, list[str], origin, do="correct the file"))
    return documents.structured(value, kind, origin, do="correct the file")


def _loaded(kind: type[_T], path: Path) -> _T:
    declared = documents.read_toml(path)
    kinds = get_type_hints(kind)
    try:
        known = {key: _plain(value, kinds[key], f"{key} in {path}") for key, value in declared.items() if key in kinds}
        return kind(**{**declared, **known})
    except TypeError as error:
        raise Damaged(
            f"{path} does not declare what it should",
            expected="keys: " + ", ".join(each.name for each in fields(kind)),  # type: ignore[arg-type]
            found=str(error),
            do="correct the file",
        ) from error
