"""Hashes that others published for releases, for when a complete tree is not at hand. They are facts, not proofs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from patchforge import documents
from patchforge.errors import CheckFailed
from patchforge.hashes.sri import trusted
from patchforge.project import Project

_COLUMNS = ("version", "commit", "hash", "published_by")


@dataclass(frozen=True, slots=True)
class PublishedHash:
    version: str
    commit: str
    hash: str  #: SRI
    published_by: str


def published_hashes(project: Project) -> dict[str, PublishedHash]:
    """By commit: what ``upstream/<project>.hashes.tsv`` lists; nothing when there is no such file."""
    path = project.index.with_name(f"{project.name}.hashes.tsv")
    if not path.is_file():
        return {}
    rows = documents.read_table(path, _COLUMNS)
    publications = [PublishedHash(version, commit, trusted(text), by) for version, commit, text, by in rows]
    refuse_shared((publication.commit, publication.hash) for publication in publications)
    return {publication.commit: publication for publication in publications}


def refuse_shared(pins: Iterable[tuple[str, str]]) -> None:
    """CheckFailed when two revisions bear one hash: so look sources that were cut short at the same place.

    ``pins`` are pairs of what is pinned (a commit or, where equal trees are no surprise, a tree) and its hash.
    """
    seen: dict[str, str] = {}
    for revision, text in pins:
        if seen.setdefault(text, revision) != revision:
            raise CheckFailed(
                f"two revisions have one hash, {text}",
                expected="a hash of its own for each revision",
                found=f"{seen[text]} and {revision}",
                do="work out both again from complete sources",
            )
