"""How a patched file may differ from upstream's, and what the static proof says of one that does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Replacement:
    """A declared REPLACE edit: the expression ``before`` in ``path`` gives way to ``after``."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, order=True)
class Stripped:
    """One thing of ours. ``line`` is 1-based, in the patched file; ``text`` is its source."""

    line: int
    rule: str
    text: str


@dataclass(frozen=True, slots=True, order=True)
class Replaced:
    """One declared replacement that was met. ``line`` is 1-based, in upstream's file."""

    line: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class StaticProof:
    """That ``path`` without what is ``stripped`` and ``replaced`` has upstream's syntax tree."""

    path: str
    hooks: int  #: calls of hooks in the patched file
    stripped: tuple[Stripped, ...]
    replaced: tuple[Replaced, ...]
