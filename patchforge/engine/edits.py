"""Edits become splices of a file's text and then segments of its lines.

Every edit of ours, in a release or in a pack, is made by one of ``Text``'s constructors, so that one table says what
comes first where several meet.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate

from patchforge.engine.blocks import SourceFile
from patchforge.errors import PatchforgeError
from patchforge.vocabulary import Segment, split_lines


class _Order(IntEnum):
    """What comes first where several edits stand at one place."""

    IMPORT = -2
    LINES = -1  #: what ends there from the inside out, an arm before what follows its chain; then what begins there
    CLOSING = 0  #: the inner expression's before the outer one's
    OPENING = 2  #: the outer expression's before the inner one's
    INSTEAD = 3  #: inside what goes around it


class EditConflict(PatchforgeError):
    """Two transforms want the same text, and one of them would lose it."""


@dataclass(frozen=True, slots=True)
class Splice:
    """``text`` takes the place of characters ``start:end``. ``order`` settles who comes first at one place."""

    start: int
    end: int
    text: str
    order: tuple[int, ...]
    owner: str


class Text:
    """A source's text with lines addressed by number and offset."""

    def __init__(self, source: SourceFile) -> None:
        self.source = source
        self.lines = source.text.split("\n")
        self.starts = [0, *accumulate(len(line) + 1 for line in self.lines)]

    def offset(self, line: int, column: int) -> int:
        """Offset of a 0-based line and column."""
        return min(self.starts[line] + column, len(self.source.text))

    def line_of(self, offset: int) -> int:
        """0-based line that holds ``offset``."""
        return min(bisect_right(self.starts, offset) - 1, len(self.lines) - 1)

    def indent(self, line: int) -> str:
        """The line's leading white space."""
        text = self.lines[line]
        return text[: len(text) - len(text.lstrip(" \t\f"))]

    def before(self, line: int, lines: Iterable[str], owner: str, rank: int = 0) -> Splice:
        """Whole lines before 0-based ``line``, at its indentation."""
        at, text = self.beside(line, lines, line)
        return Splice(at, at, text, (_Order.LINES, 1, rank), owner)

    def behind(
        self, first: int, last: int, lines: Iterable[str], owner: str, rank: int = 0, *, arm: bool = False
    ) -> Splice:
        """Whole lines behind what stands on lines ``first`` to ``last``, at its indentation."""
        at, text = self.beside(last + 1, lines, first)
        return Splice(at, at, text, (_Order.LINES, 0, -len(self.indent(first)), int(not arm), rank), owner)

    def around(self, span: tuple[int, int], prefix: str, suffix: str, owner: str, rank: int = 0) -> tuple[Splice, ...]:
        """Text on both sides of an expression; either may be empty."""
        start, end = span
        opening = Splice(start, start, self.apart(start, prefix), (_Order.OPENING, -end, -rank), owner)
        closing = Splice(end, end, suffix, (_Order.CLOSING, -start, rank), owner)
        return tuple(splice for splice in (opening, closing) if splice.text)

    def instead(self, span: tuple[int, int], text: str, owner: str, rank: int = 0) -> Splice:
        """``text`` in place of an expression, or between two characters."""
        return Splice(*span, self.apart(span[0], text), (_Order.INSTEAD, 0, rank), owner)

    def apart(self, at: int, text: str) -> str:
        """``text`` with a space before it where it would grow together with a word, as with ``return"cuda"``."""
        return f" {text}" if _is_word(self.source.text[max(at - 1, 0) : at]) and _is_word(text[:1]) else text

    def imported(self, lines: Iterable[str], owner: str) -> Splice:
        """Whole lines behind the first imports of the file."""
        line = self.source.import_line
        at, text = self.beside(line, lines, max(line - 1, 0), indented=False)
        return Splice(at, at, text, (_Order.IMPORT, 0, 0), owner)

    def beside(self, line: int, lines: Iterable[str], anchor: int, *, indented: bool = True) -> tuple[int, str]:
        """Where and what to insert so that ``lines`` stand before 0-based ``line``, indented as line ``anchor``."""
        end = (
            "\r\n"
            if self.lines[anchor].endswith("\r")
            else "\n"
            if anchor + 1 < len(self.lines)
            else self.source.newline
        )
        indent = self.indent(anchor) if indented else ""
        indented_lines = [indent + text for text in lines]
        at = self.offset(line, 0) if line < len(self.starts) else len(self.source.text)
        if line >= len(self.lines):  # the last line has no line end: ours goes before, and the file stays without one
            return len(self.source.text), "".join(end + text for text in indented_lines)
        return at, "".join(text + end for text in indented_lines)


def _is_word(character: str) -> bool:
    return character == "_" or character.isalnum()


class Chosen:
    """Edits of which none lies across another."""

    def __init__(self) -> None:
        self.splices: list[Splice] = []
        self._known: set[tuple[int, int, str]] = set()
        self._inserted: list[tuple[int, str]] = []  #: (offset, owner), ascending
        self._replaced: list[tuple[int, int, str]] = []  #: (start, end, owner), ascending; they do not overlap

    def take(self, splices: Iterable[Splice]) -> str | None:
        """Takes edits that belong together, or none of them: then the owner of what stands in their way.

        An edit that was taken before is not taken again.
        """
        return self.add([splice for splice in splices if (splice.start, splice.end, splice.text) not in self._known])

    def add(self, splices: Sequence[Splice]) -> str | None:
        """``take`` for edits of which each counts."""
        for splice in splices:
            if (owner := self._in_the_way(splice)) is not None:
                return owner
        for splice in splices:
            self._known.add((splice.start, splice.end, splice.text))
            self.splices.append(splice)
            if splice.start == splice.end:
                insort(self._inserted, (splice.start, splice.owner))
            else:
                self._replace(splice)
        return None

    def _in_the_way(self, splice: Splice) -> str | None:
        """The owner of a chosen edit that this one lies across; two insertions at one place do not."""
        at = bisect_left(self._replaced, (splice.end,)) - 1
        if at >= 0 and self._replaced[at][1] > splice.start:
            return self._replaced[at][2]
        at = bisect_left(self._inserted, (splice.start + 1,))
        return self._inserted[at][1] if at < len(self._inserted) and self._inserted[at][0] < splice.end else None

    def _replace(self, splice: Splice) -> None:
        """Adds a range; edits that were taken together may overlap, and count as one range then."""
        start, end = splice.start, splice.end
        while (at := bisect_left(self._replaced, (end,)) - 1) >= 0 and self._replaced[at][1] > start:
            first, last, _ = self._replaced.pop(at)
            start, end = min(start, first), max(end, last)
        insort(self._replaced, (start, end, splice.owner))


def check_conflicts(splices: Sequence[Splice], path: str) -> None:
    """Raises EditConflict where one splice's text is inside what another replaces."""
    chosen = Chosen()
    for splice in splices:
        if (owner := chosen.add([splice])) is not None:
            raise EditConflict(
                f"{path}: transforms {owner} and {splice.owner} edit the same expression",
                expected="at most one replacement of an expression, and nothing else inside it",
                found=f"{splice.text[:80]!r} for characters {splice.start}-{splice.end}",
                do="make one of them wrap the expression, or make it need the other (needs = …)",
            )


def segments(text: Text, splices: Sequence[Splice]) -> tuple[Segment, ...]:
    """The lines that change, ascending; splices of one line or of touching lines share a segment."""
    ordered = sorted(splices, key=lambda splice: (splice.start, splice.order))
    groups: list[tuple[int, int, list[Splice]]] = []
    for splice in ordered:
        first, last = _touched(text, splice)
        if groups and first <= groups[-1][1]:
            start, end, members = groups[-1]
            members.append(splice)
            groups[-1] = (start, max(end, last), members)
        else:
            groups.append((first, last, [splice]))
    return tuple(_segment(text, *group) for group in groups)


def _touched(text: Text, splice: Splice) -> tuple[int, int]:
    first = text.line_of(splice.start)
    marked = first == 0 and text.source.encoding == "utf-8-sig"  # the byte order mark stays before what is inserted
    if splice.start == splice.end == text.starts[first] and splice.text.endswith("\n") and not marked:
        return first, first
    return first, text.line_of(max(splice.end - 1, splice.start)) + 1


def _segment(text: Text, first: int, last: int, splices: Sequence[Splice]) -> Segment:
    whole = text.source.text
    position, pieces = text.starts[first], list[str]()
    for splice in splices:
        pieces += [whole[position : splice.start], splice.text]
        position = splice.end
    stop = min(text.starts[last], len(whole))
    pieces.append(whole[position:stop] if stop > position else "")
    encoding = text.source.encoding
    data = "".join(pieces).encode("utf-8" if encoding == "utf-8-sig" else encoding)
    mark = codecs.BOM_UTF8 if encoding == "utf-8-sig" and first == 0 else b""
    return Segment(first, last, tuple(split_lines(mark + data)))
