"""What is known of one file, in a form that a cache can keep. Nothing here needs libcst."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from patchforge.vocabulary import Outcome, Purpose, Segment, split_lines


@dataclass(frozen=True, slots=True)
class FoundPlace:
    """What one transform found at one place of one file."""

    transform: str
    outcome: Outcome
    line: int  #: 1-based, in upstream's file
    last_line: int
    function: str
    note: str = ""  #: what is expected (drifted) or how upstream does it
    fragment: str = ""  #: the code that stands there (drifted); shown, never committed
    edits: tuple[tuple[str, int], ...] = ()  #: (edit kind, how many)
    replaced: tuple[tuple[str, str], ...] = ()  #: (upstream's expression, ours) of REPLACE edits


@dataclass(frozen=True, slots=True)
class RawSite:
    """A device named in a file. ``guard`` is "xpu", "beside-xpu", "vendor" or "": the kind of arm it stands in."""

    line: int
    function: str
    kind: str
    text: str
    guard: str


@dataclass(frozen=True, slots=True)
class FileRecord:
    """All that was found in one file, and its edits patch by patch."""

    found: tuple[FoundPlace, ...] = ()
    stages: tuple[tuple[Purpose, tuple[Segment, ...]], ...] = ()
    sites: tuple[RawSite, ...] = ()
    unreadable: str = ""  #: why the file could not be read as Python, with the line

    @property
    def empty(self) -> bool:
        """Nothing here concerns anybody."""
        return not (self.found or self.sites or self.unreadable)

    def to_json(self) -> list[Any]:
        """Plain lists."""
        stages = [[purpose.value, plain_segments(parts)] for purpose, parts in self.stages]
        return [plain(self.found), stages, plain(self.sites), self.unreadable]

    @classmethod
    def from_json(cls, value: list[Any]) -> FileRecord:
        """The inverse of ``to_json``."""
        findings, stages, sites, unreadable = value
        return cls(
            tuple(map(_found, findings)),
            tuple((Purpose(name), segments_of(parts)) for name, parts in stages),
            tuple(RawSite(*site) for site in sites),
            unreadable,
        )


def _found(value: list[Any]) -> FoundPlace:
    transform, outcome, line, last, function, note, fragment, edits, replaced = value
    changed = tuple(map(tuple, edits)), tuple(map(tuple, replaced))
    return FoundPlace(transform, Outcome(outcome), line, last, function, note, fragment, *changed)


def plain(values: Iterable[Any]) -> list[list[Any]]:
    """Dataclasses with slots as lists of their fields, in order."""
    return [[getattr(value, name) for name in value.__slots__] for value in values]


def plain_segments(parts: Iterable[Segment]) -> list[Any]:
    """Segments as lists; bytes as latin-1 text."""
    return [[part.start, part.end, [line.decode("latin-1") for line in part.lines]] for part in parts]


def segments_of(value: Iterable[list[Any]]) -> tuple[Segment, ...]:
    """The inverse of ``plain_segments``."""
    return tuple(Segment(start, end, tuple(line.encode("latin-1") for line in lines)) for start, end, lines in value)


def apply_segments(data: bytes, parts: Sequence[Segment]) -> bytes:
    """A file after its segments."""
    lines, out, position = split_lines(data), list[bytes](), 0
    for part in parts:
        out += lines[position : part.start]
        out += part.lines
        position = part.end
    return b"".join([*out, *lines[position:]])
