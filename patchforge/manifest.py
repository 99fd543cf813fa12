"""The manifest beside a release's patches: what it holds, written and read in one way by every command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType

from patchforge import documents
from patchforge.documents import Format
from patchforge.names import odd
from patchforge.vocabulary import Version

NAME = "manifest.json"

Commit = NewType("Commit", str)  #: 40 hex digits, "" for plain files
Blob = NewType("Blob", str)
Sha256 = NewType("Sha256", str)
TreePath = NewType("TreePath", str)  #: relative, plain
FileName = NewType("FileName", str)  #: of a file in the manifest's own folder
Named = NewType("Named", str)  #: a version, as ``v0.3.47``


@dataclass(frozen=True, slots=True)
class PatchedFile:
    """One file of a patch by its blob ids. ``before``: None where the patch adds it."""

    path: TreePath
    before: Blob | None
    after: Blob


@dataclass(frozen=True, slots=True)
class PatchEntry:
    """One patch, in the order of the series."""

    file: FileName
    purpose: str
    sha256: Sha256
    files: tuple[PatchedFile, ...]


@dataclass(frozen=True, slots=True)
class ClaimedSite:
    """A place that a transform claims."""

    path: str
    line: int
    function: str
    note: str


@dataclass(frozen=True, slots=True)
class ReplacedLine:
    """A line of upstream's that a transform replaces, and ours."""

    path: str
    line: int
    by: str


@dataclass(frozen=True, slots=True)
class TransformEntry:
    """One transform: outcome, expectation and the places it claims."""

    id: str
    title: str
    patch: str
    outcome: str
    expected: str
    opt_in: str
    edits: dict[str, int]
    sites: tuple[ClaimedSite, ...]
    replaced: tuple[ReplacedLine, ...]


@dataclass(frozen=True, slots=True)
class UndecidedSite:
    """A device site that nobody has decided about."""

    path: str
    line: int
    function: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Sites:
    """Completeness as a number. ``reasons``: how many sites are left for each."""

    claimed: int
    left: int
    unclaimed: int
    reasons: dict[str, int]
    undecided: tuple[UndecidedSite, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was done to a release and to which bytes; holds no text of upstream's but the names of devices."""

    project: str
    release: Named
    commit: Commit
    rules: str  #: digest of the rule set
    patchforge: str  #: its version
    patches: tuple[PatchEntry, ...]
    transforms: tuple[TransformEntry, ...]
    sites: Sites


FORMAT = Format(Manifest, 1)


def load(folder: Path) -> Manifest:
    """The manifest in ``folder``. Damaged when it is not one, FileNotFoundError where there is none."""
    return FORMAT.read(folder / NAME, do=f"write {folder} again with patchforge apply")


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
