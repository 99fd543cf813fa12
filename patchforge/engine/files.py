"""One file through all transforms that want it: stage by stage, one parse and one walk per top-level statement.

A stage is a patch of the series. A stage's transforms see what the stages before it made, so that one transform's
output can be another's input; within a stage every transform sees the same text and their edits are composed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import libcst as cst
from libcst.metadata import CodeRange

from patchforge import effort
from patchforge.effort import spend
from patchforge.engine.blocks import REFUSED, Block, SourceFile, UnreadableSource, why_refused
from patchforge.engine.census import NEEDLES, device_sites
from patchforge.engine.edits import Splice, Text, check_conflicts, segments
from patchforge.engine.positions import Positions
from patchforge.engine.prefilter import may_say
from patchforge.engine.records import FileRecord, FoundPlace
from patchforge.engine.scope import unbound
from patchforge.structure import children, code
from patchforge.transform import (
    HOOKS,
    Already,
    At,
    Edit,
    Finding,
    Mismatch,
    NotOnItsOwnLine,
    Rewrite,
    Transform,
    imported_names,
)
from patchforge.vocabulary import EditKind, Outcome, Purpose, Segment

OWN_LINE = "a statement on a line of its own"
_HOOKED = "patchforge's hook is here already"
_PER_NODE = 20  #: steps for parsing, walking and placing one
IMPORT = f"from comfy import {HOOKS}"

_IMPORTS = (cst.Import, cst.ImportFrom)

Ranked = Sequence[tuple[int, Transform]]


Memo = dict[tuple[object, ...], "tuple[Placed, ...]"]  #: what was found in a top-level statement seen before


@dataclass(frozen=True, slots=True)
class EditPlace:
    """An edit with its position: 0-based lines relative to its block, columns in characters."""

    edit: EditKind
    where: str
    first: int
    column: int
    last: int
    end_column: int
    lines: tuple[str, ...]
    prefix: str
    suffix: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A finding and its edits, relative to the block they were found in; ``rank`` orders transforms.

    ``free``: variables of the edits that the module's top level must bind. ``fragment``: what stands there.
    """

    rank: int
    found: FoundPlace
    places: tuple[EditPlace, ...] = ()
    free: tuple[str, ...] = ()
    fragment: str = ""


def look_at(path: str, data: bytes, transforms: Sequence[Transform], memo: Memo, *, census: bool = True) -> FileRecord:
    """Runs every transform that wants the file, and the census. Never raises for what the file contains."""
    try:
        with effort.at_most(effort.FILE):
            return _look_at(path, data, transforms, memo, census=census)
    except REFUSED as error:
        return FileRecord(unreadable="line {}: {}".format(*why_refused(error)))


def _look_at(path: str, data: bytes, transforms: Sequence[Transform], memo: Memo, *, census: bool) -> FileRecord:
    wanting = [(rank, transform) for rank, transform in enumerate(transforms) if transform.wants(path)]
    if not wanting and not census:
        return FileRecord()
    findings: list[FoundPlace] = []
    stages: list[tuple[Purpose, tuple[Segment, ...]]] = []
    origin = _LineMap()
    source = SourceFile(data)
    sites = device_sites(source, memo) if census and NEEDLES.search(data) else ()
    hooked = [transform for _, transform in wanting if any(source.says(f"{HOOKS}.{hook}") for hook in transform.hooks)]
    wanting = [(rank, transform) for rank, transform in wanting if transform not in hooked]
    findings += [
        FoundPlace(transform.id, Outcome.UPSTREAM, 1, 1, "<module>", "patchforge's hook is here already")
        for transform in hooked
    ]
    for purpose in Purpose:
        active = [
            (rank, transform)
            for rank, transform in wanting
            if transform.purpose is purpose and may_say(source.data, transform.needles)
        ]
        if not active:
            continue
        stage = _Stage(path, source, active, memo)
        findings += [origin.found(item) for item in stage.run()]
        if stage.splices:
            parts = stage.segments()
            stages.append((purpose, parts))
            origin.add(parts)
            source = source.after(parts)
    return FileRecord(tuple(findings), tuple(stages), sites)


class _LineMap:
    """From lines of a later stage back to upstream's."""

    def __init__(self) -> None:
        self.changes: list[tuple[Segment, ...]] = []

    def add(self, parts: tuple[Segment, ...]) -> None:
        self.changes.append(parts)

    def found(self, item: FoundPlace) -> FoundPlace:
        if not self.changes:
            return item
        return replace(item, line=self.back(item.line), last_line=self.back(item.last_line))

    def back(self, line: int) -> int:
        for change in reversed(self.changes):
            shift = 0
            for part in change:
                begin = part.start + shift
                if line - 1 < begin:
                    break
                grown = len(part.lines) - (part.end - part.start)
                if line - 1 < begin + len(part.lines):
                    shift = line - 1 - min(part.start + (line - 1 - begin), max(part.end - 1, part.start))
                    break
                shift += grown
            line -= shift
        return line


class _Stage:
    """One patch's transforms on one file."""

    def __init__(self, path: str, source: SourceFile, transforms: Ranked, memo: Memo) -> None:
        self.path, self.source, self.transforms, self.memo = path, source, transforms, memo
        self.facts = tuple(source.says(fact) for _, transform in transforms for fact in transform.facts)
        self.aliases = tuple(sorted(source.aliases.items()))
        self.text = Text(source)
        self.splices: list[Splice] = []

    def run(self) -> Iterable[FoundPlace]:
        """Findings in the order of the file; the edits gather in ``splices``."""
        for block, data, active in self.hit():
            base = block.start - block.header.count("\n")
            for placed in self.block(block.header, data, active):
                site = self.bound(placed)
                for place in placed.places if site is placed.found else ():
                    self.splices += self.splice(place, base, placed)
                yield replace(site, line=site.line + base, last_line=site.last_line + base)

    def hit(self) -> Iterable[tuple[Block, bytes, Ranked]]:
        """The blocks to look at: of a class only the methods with a needle, unless one stands outside of them."""
        todo = list(reversed(self.source.blocks))
        while todo:
            block = todo.pop()
            data = self.source.block_bytes(block)
            if not (active := self.wanted(data)):
                continue
            if not block.functions or self.wanted(self.source.rest(block)):
                yield block, data, active
            else:
                todo += reversed(block.functions)

    def wanted(self, data: bytes) -> Ranked:
        """The transforms with a needle in ``data``."""
        return [(rank, transform) for rank, transform in self.transforms if may_say(data, transform.needles)]

    def bound(self, placed: Placed) -> FoundPlace:
        """The finding; drifted where its edits use a name that nothing binds."""
        missing = [name for name in placed.free if name not in self.source.names]
        if not missing:
            return placed.found
        note = f"{', '.join(missing)} bound here, as the edit uses it"
        return replace(
            placed.found, outcome=Outcome.DRIFTED, note=note, fragment=placed.fragment, edits=(), replaced=()
        )

    def block(self, header: str, data: bytes, active: Ranked) -> tuple[Placed, ...]:
        """What the transforms find in one top-level statement, remembered by its bytes and what they may ask."""
        key = (self.path, tuple(rank for rank, _ in active), header, data, self.facts, self.aliases)
        if key not in self.memo:
            try:
                self.memo[key] = tuple(
                    _find(header + data.decode(self.source.encoding), active, self.path, self.source)
                )
            except RecursionError:
                raise UnreadableSource("nested too deeply to be parsed", 1) from None
        return self.memo[key]

    def splice(self, place: EditPlace, base: int, placed: Placed) -> list[Splice]:
        """Turns a placed edit into text at offsets of the file."""
        first, last, rank, owner = base + place.first, base + place.last, placed.rank, placed.found.transform
        if place.where == "before":
            return [self.text.before(first, place.lines, owner, rank)]
        if place.where in ("after", "arm"):
            return [self.text.behind(first, last, place.lines, owner, rank, arm=place.where == "arm")]
        span = self.text.offset(first, place.column), self.text.offset(last, place.end_column)
        if place.edit is EditKind.REPLACE:
            return [self.text.instead(span, place.prefix, owner, rank)]
        return [*self.text.around(span, place.prefix, place.suffix, owner, rank)]

    def segments(self) -> tuple[Segment, ...]:
        """The stage's edits as lines, with the import of the hooks' module where the file lacks it."""
        check_conflicts(self.splices, self.path)
        if HOOKS not in self.source.names and any(HOOKS in splice.text for splice in self.splices):
            self.splices.append(self.text.imported([IMPORT], "import"))
        return segments(self.text, self.splices)


def _find(text: str, active: Ranked, path: str, source: SourceFile) -> Iterable[Placed]:
    """Parses a block, walks it once and places what the transforms found."""
    module = _parsed(text)
    findings = list(_walk(module, active, At(path, dict(source.aliases), source)))
    if not findings:
        return
    positions = Positions(module, text)
    lines = text.split("\n")
    for rank, transform, finding, function, free in findings:
        edits = finding.edits if isinstance(finding, Rewrite) else ()
        places = tuple(_place(edit, positions) for edit in edits)
        if not all(_has_room(place, lines) for place in places):
            finding, places, free = Mismatch(finding.node, OWN_LINE), (), ()  # noqa: PLW2901
        site = _found(transform, finding, positions[finding.node], function)
        yield Placed(rank, site, places, free, code(finding.node) if free else "")


def _parsed(text: str) -> cst.Module:
    try:
        return cst.parse_module(text)
    except cst.ParserSyntaxError as error:
        raise UnreadableSource(error.message, error.raw_line) from None
    except (AttributeError, TypeError, ValueError) as error:  # libcst's own, as over "async" and "for" on two lines
        raise UnreadableSource(f"libcst fails to read it: {error}", 1) from None


def _has_room(place: EditPlace, lines: Sequence[str]) -> bool:
    """Whether whole lines can stand where the edit wants them: nothing else shares the statement's line there."""
    if place.where not in ("before", "after", "arm"):
        return True
    before, start = lines[place.first][: place.column], lines[place.first][place.column :]
    rest = lines[place.last][place.end_column :].lstrip(" \t\r\f;")
    if place.where == "before":
        return not before.strip() and not re.match(r"elif\b", start)
    return not before.strip() and (not rest or rest.startswith("#"))


def _place(edit: Edit, positions: Positions) -> EditPlace:
    span = positions[edit.node]
    if edit.place == "before" and isinstance(edit.node, (cst.FunctionDef, cst.ClassDef)) and edit.node.decorators:
        span = CodeRange(positions[edit.node.decorators[0]].start, span.end)
    end = span.end
    if edit.place == "arm":
        if not isinstance(edit.node, cst.If):
            raise TypeError("an arm is added to an if statement")
        end = positions[edit.node.body.body[-1]].end
    return EditPlace(
        edit.kind,
        edit.place,
        span.start.line - 1,
        span.start.column,
        end.line - 1,
        end.column,
        edit.lines,
        edit.prefix,
        edit.suffix,
    )


def _walk(module: cst.Module, active: Ranked, at: At) -> Iterable[tuple[int, Transform, Finding, str, tuple[str, ...]]]:
    """One traversal for all transforms: each node is shown to those that have a method for its type."""
    handlers: dict[type[cst.CSTNode], list[tuple[int, Transform, str]]] = {}
    for rank, transform in active:
        for kind, method in transform.visitors().items():
            handlers.setdefault(kind, []).append((rank, transform, method))
    stack: list[tuple[cst.CSTNode, int]] = [(module, 0)]
    while stack:
        node, depth = stack.pop()
        del at.ancestors[depth:]
        spend(_PER_NODE)
        if type(node) in _IMPORTS and isinstance(node, _IMPORTS):
            at.aliases.update(imported_names(node))
        for rank, transform, method in handlers.get(type(node), ()):
            try:
                for finding in getattr(transform, method)(node, at):
                    free = unbound(finding, node, at) if isinstance(finding, Rewrite) else []
                    yield rank, transform, finding, at.function, tuple(free)
            except NotOnItsOwnLine:
                yield rank, transform, Mismatch(node, OWN_LINE), at.function, ()
        at.ancestors.append(node)
        stack.extend((child, depth + 1) for child in reversed(list(children(node))))


def _found(transform: Transform, finding: Finding, place: CodeRange, function: str) -> FoundPlace:
    first, last = place.start.line, place.end.line
    if isinstance(finding, Already):
        return FoundPlace(transform.id, Outcome.UPSTREAM, first, last, function, finding.how)
    if isinstance(finding, Mismatch):
        return FoundPlace(transform.id, Outcome.DRIFTED, first, last, function, finding.expected, code(finding.node))
    kinds = tuple(sorted(Counter(edit.kind.value for edit in finding.edits).items()))
    replaced = tuple((code(edit.node), edit.prefix) for edit in finding.edits if edit.kind is EditKind.REPLACE)
    return FoundPlace(transform.id, Outcome.APPLIED, first, last, function, edits=kinds, replaced=replaced)
