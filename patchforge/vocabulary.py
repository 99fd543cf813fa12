"""The words of the project, as types. Everything else imports this; this imports nothing of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Outcome(StrEnum):
    """What a transform did to a release. There is no fifth."""

    APPLIED = "applied"  #: edited, with its sites
    UPSTREAM = "upstream"  #: the release already does this
    ABSENT = "absent"  #: the release has nothing this could apply to
    DRIFTED = "drifted"  #: the target is there and its premise is not


class Decision(StrEnum):
    """What becomes of a place that names a device. There is no fourth."""

    CONVERTED = "converted"  #: a rule takes care of it
    LEFT = "left"  #: on purpose, with the reason
    PERSON = "person"  #: somebody must look; there is a suggestion


@dataclass(frozen=True, slots=True)
class DecidedSite:
    """One place that names a device, in a release or a pack, and what was decided about it."""

    path: str
    line: int
    function: str
    kind: str
    text: str
    rule: str  #: "" where no rule has decided
    reason: str
    decision: Decision


class Purpose(StrEnum):
    """The patches of a release, in the order of the series."""

    DEVICE = "device-support"
    MEMORY = "memory-management"
    MODEL = "model-optimisation"
    CUDA_ONLY = "cuda-only-sites"


class EditKind(StrEnum):
    """How an edit treats upstream's text (HOUSE rule 1: additive first)."""

    INSERT = "insert"  #: whole lines of ours; upstream's lines stay
    WRAP = "wrap"  #: upstream's expression becomes the first argument of a hook that returns it
    REPLACE = "replace"  #: upstream's text goes; must sit in an XPU arm


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A release number such as ``v0.3.47``; orders numerically."""

    parts: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Version:
        """``v0.3.47`` or ``0.3.47``; ValueError for anything else."""
        if not re.fullmatch(r"v?[0-9]{1,9}(\.[0-9]{1,9}){1,7}", text):
            raise ValueError(f"not a version: {text[:80]!r}")
        return cls(tuple(int(part) for part in text.removeprefix("v").split(".")))

    def __str__(self) -> str:
        return "v" + ".".join(map(str, self.parts))


@dataclass(frozen=True, slots=True)
class Release:
    """One upstream version: its name, its commit (40 hex digits, "" when read from plain files)."""

    version: Version
    commit: str
    indexed: bool = True  #: False: a tag that the release index does not list yet


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree. ``blob`` is git's object id, as ``git_blob_id`` computes it."""

    path: str
    blob: str
    mode: int = 0o100644


class Tree(Protocol):
    """The files of a release as bytes; need not be checked out."""

    @property
    def origin(self) -> str:
        """Where it is read from, for messages."""
        ...

    def entries(self) -> Mapping[str, Entry]:
        """Every regular file by its POSIX path, sorted by path."""
        ...

    def read(self, path: str) -> bytes:
        """The file's bytes; KeyError when there is no such file, MissingBlobError when git lacks its content."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """Lines ``start:end`` (0-based, end exclusive) of a file give way to ``lines`` (line ends included).

    ``start == end`` is a pure insertion before line ``start``.
    """

    start: int
    end: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file before and after one patch. ``before`` is None for a file that the patch adds.

    ``segments`` ascend, do not overlap or touch, and turn ``before`` into ``after`` exactly.
    """

    path: str
    before: bytes | None
    after: bytes
    segments: tuple[Segment, ...]
    mode: int = 0o100644


@dataclass(frozen=True, slots=True, order=True)
class CodeSite:
    """One place in upstream's code. ``line`` is 1-based in upstream's file."""

    path: str
    line: int
    function: str  #: dotted name of the enclosing function, or "<module>"
    kind: str
    text: str = field(compare=False)  #: our rendering of what names the device, one short expression


@dataclass(frozen=True, slots=True)
class Drift:
    """What a transform expected at a place and what stands there instead."""

    path: str
    line: int
    expected: str
    found: str


def git_blob_id(data: bytes) -> str:
    """Git's object id of a file with these bytes."""
    import hashlib  # noqa: PLC0415 - keeps start-up light

    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def split_lines(data: bytes) -> list[bytes]:
    """Lines with their ends; a line feed alone ends a line (a carriage return stays part of it), as in a diff."""
    return data.splitlines(keepends=True) if b"\r" not in data else list(_lines(data))


def _lines(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end
