"""Hashes that others published: of repositories' commits, and of torch's wheels. They are claims, not proofs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchforge import documents
from patchforge.hashes import refuse_shared, trusted
from patchforge.hashes.published_hashes import published_hashes
from patchforge.project import load_project

_SOURCES = ("repository", "commit", "hash", "published_by")
_WHEELS = ("torch", "abi", "file", "hash", "published_by")


@dataclass(frozen=True, slots=True)
class Claim:
    hash: str  #: SRI
    published_by: str


@dataclass(frozen=True, slots=True)
class WheelClaim:
    torch: str
    abi: str
    file: str
    hash: str  #: SRI
    published_by: str


def source_claims(folder: Path) -> dict[str, Claim]:
    """By commit: what ``sources.hashes.tsv`` and ComfyUI's own list say of whole repositories."""
    project = load_project(folder=folder)
    claims = {
        publication.commit: Claim(publication.hash, publication.published_by)
        for publication in published_hashes(project).values()
    }
    for _, commit, text, by in _rows(folder / "sources.hashes.tsv", _SOURCES):
        claims[commit] = Claim(trusted(text), by)
    refuse_shared((commit, claim.hash) for commit, claim in claims.items())
    return claims


def wheel_claims(folder: Path) -> list[WheelClaim]:
    """What ``torch.hashes.tsv`` says of wheels, in its order."""
    rows = _rows(folder / "torch.hashes.tsv", _WHEELS)
    wheels = [WheelClaim(torch, abi, file, trusted(text), by) for torch, abi, file, text, by in rows]
    refuse_shared({wheel.file: wheel.hash for wheel in wheels}.items())
    return wheels


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    if not path.is_file():
        return
    yield from documents.read_table(path, columns)
