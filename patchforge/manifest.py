"""The manifest beside a release's patches, as it is read: what it must hold, checked once for every command."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NewType, TypedDict

from patchforge import documents
from patchforge.names import odd
from patchforge.vocabulary import Version

NAME = "manifest.json"

Commit = NewType("Commit", str)  #: 40 hex digits, "" for plain files
Blob = NewType("Blob", str)
Sha256 = NewType("Sha256", str)
TreePath = NewType("TreePath", str)  #: relative, plain
FileName = NewType("FileName", str)  #: of a file in the manifest's own folder
Named = NewType("Named", str)  #: a version, as ``v0.3.47``


class PatchedFile(TypedDict):
    path: TreePath
    before: Blob | None
    after: Blob


class PatchEntry(TypedDict):
    file: FileName
    sha256: Sha256
    files: list[PatchedFile]


class Sites(TypedDict):
    claimed: int
    left: int
    unclaimed: int


class Place(TypedDict):
    path: str
    function: str


class TransformEntry(TypedDict):
    id: str
    title: str
    outcome: str
    edits: dict[str, int]
    sites: list[Place]


class Patches(TypedDict):
    """What the manifests of releases and of node packs share."""

    commit: Commit
    rules: str
    patches: list[PatchEntry]


class Manifest(Patches):
    """What commands read of a release's; there is more in it for people."""

    release: Named
    transforms: list[TransformEntry]
    sites: Sites


def load(folder: Path) -> Manifest:
    """The manifest in ``folder``. Damaged when it is not one, FileNotFoundError where there is none."""
    return documents.read_json(folder / NAME, Manifest, do=f"write {folder} again with patchforge apply")


def load_patches(folder: Path) -> Patches:
    """The same of a release or of a node pack."""
    return documents.read_json(folder / NAME, Patches, do=f"write {folder} again with patchforge")


def _plain_path(value: Any, _: Any) -> str:
    if not isinstance(value, str) or (reason := odd(value)):
        raise ValueError(f"expected a plain relative path, found {repr(value)[:80]}{f': {reason}' if value else ''}")
    return value


def _file_name(value: Any, kind: Any) -> str:
    if "/" in (name := _plain_path(value, kind)):
        raise ValueError(f"expected the name of a file beside the manifest, found {name[:80]!r}")
    return name


def _version(value: Any, _: Any) -> str:
    if not isinstance(value, str) or len(value) > 40:
        raise TypeError(f"expected a version, found {repr(value)[:80]}")
    return str(Version.parse(value))


documents.register(Commit, documents.matching("([0-9a-f]{40})?", "a commit of 40 hex digits"))
documents.register(Blob, documents.matching("[0-9a-f]{40}", "a blob id of 40 hex digits"))
documents.register(Sha256, documents.matching("[0-9a-f]{64}", "a SHA-256 of 64 hex digits"))
documents.register(TreePath, _plain_path)
documents.register(FileName, _file_name)
documents.register(Named, _version)

__all__ = ["NAME", "Manifest", "PatchEntry", "PatchedFile", "Patches", "load", "load_patches"]
