"""The examples of every rule, of releases and of packs, in one form: a file goes in, what becomes of it comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent

from patchforge.engine.convert import Engine
from patchforge.nodes.code import Code
from patchforge.nodes.convert import convert_file
from patchforge.nodes.facts import facts, own_questions
from patchforge.nodes.pack import Pack
from patchforge.pattern import PackExample, Pattern
from patchforge.proof.differences import Replacement
from patchforge.proof.outside import bytes_outside_edits_equal
from patchforge.proof.packs.pairing import prove as prove_of_pack
from patchforge.proof.static import prove
from patchforge.rules import patterns, transforms
from patchforge.transform import Example, Transform
from patchforge.vocabulary import Decision, Outcome
from tests.support import MemoryTree, engine_of, release, result_of, without_helpers


@dataclass(frozen=True)
class Place:
    """One place that a rule has looked at: what was decided, and what is said of it."""

    line: int
    decided: str
    said: tuple[object, ...]


@dataclass(frozen=True)
class Outcomes:
    """What became of a file."""

    result: bytes
    decided: frozenset[str]
    places: tuple[Place, ...]
    replaced: tuple[tuple[str, str], ...] = ()  #: (the file's expression, ours), as a transform declares it


class Case(ABC):
    """An example of a rule."""

    rule: Transform | Pattern
    example: Example | PackExample

    @property
    def name(self) -> str:
        """How tests call it."""
        return f"{self.rule.id}-{self.example.name}"

    @property
    def before(self) -> str:
        """The file as it comes."""
        return dedent(self.example.before)

    @property
    def after(self) -> str:
        """The file as it should be."""
        return dedent(self.example.after or self.example.before)

    @property
    def edited(self) -> bool:
        """Whether the example shows an edit."""
        return self.example.after is not None

    @abstractmethod
    def run(self, data: bytes) -> Outcomes:
        """What its own rule makes of a file."""

    @abstractmethod
    def together(self, data: bytes) -> bytes:
        """What all rules of its kind make of a file."""

    @abstractmethod
    def prove(self, before: bytes, outcomes: Outcomes) -> None:
        """CheckFailed where other devices may see a difference."""

    @abstractmethod
    def shown(self, result: bytes) -> str:
        """A result as examples show it."""

    @abstractmethod
    def expected(self, decided: frozenset[str]) -> bool:
        """Whether the file's outcome, or the decisions in it, are the example's."""


@dataclass(frozen=True, eq=False)
class OfRelease(Case):
    """An example of a transform."""

    rule: Transform
    example: Example

    @property
    def path(self) -> str:
        return self.example.path or self.rule.files[0]

    def run(self, data: bytes) -> Outcomes:
        return self._converted(data, (self.rule,))

    def together(self, data: bytes) -> bytes:
        return self._converted(data, transforms()).result

    def _converted(self, data: bytes, rules: Sequence[Transform]) -> Outcomes:
        conversion = _engine(tuple(rules)).convert(release(self.example.version), MemoryTree({self.path: data}))
        record = conversion.records.get(self.path)
        result = result_of(data, record) if record else data
        replaced = (pair for at in record.found for pair in at.replaced) if record else ()
        report = next(report for report in conversion.reports if report.transform == self.rule.id)
        places = (Place(at.line, at.outcome, (at.function, at.note, at.edits)) for _, at in report.found)
        return Outcomes(result, frozenset({report.outcome}), tuple(places), tuple(replaced))

    def prove(self, before: bytes, outcomes: Outcomes) -> None:
        prove(self.path, before, outcomes.result, [Replacement(self.path, *pair) for pair in outcomes.replaced])

    def shown(self, result: bytes) -> str:
        return result.decode()

    def expected(self, decided: frozenset[str]) -> bool:
        return decided == {self.example.outcome} and (self.example.outcome is Outcome.APPLIED) is self.edited


@cache
def _engine(rules: tuple[Transform, ...]) -> Engine:
    return engine_of(rules)


@dataclass(frozen=True, eq=False)
class OfPack(Case):
    """An example of a pattern. Patterns see a file together: the one that speaks first decides."""

    rule: Pattern
    example: PackExample

    def run(self, data: bytes) -> Outcomes:
        code = Code("nodes.py", data)
        pack = Pack("p", Path("p"), {"nodes.py": data})
        around = facts(pack, {"nodes.py": code}, self.example.options, frozenset(own_questions(code)))
        rows, change = convert_file(code, around)
        if change:
            bytes_outside_edits_equal(change)
        places = [Place(row.line, row.decision, (row.function, row.kind, row.text, row.rule)) for row in rows]
        places.sort(key=lambda place: repr(place.said))
        decided = frozenset(row.decision for row in rows)
        return Outcomes(change.after if change else data, decided, tuple(places))

    def together(self, data: bytes) -> bytes:
        return self.run(data).result

    def prove(self, before: bytes, outcomes: Outcomes) -> None:
        prove_of_pack("nodes.py", before, outcomes.result)

    def shown(self, result: bytes) -> str:
        return without_helpers(result, self.before).removeprefix("import comfy.model_management\n")

    def expected(self, decided: frozenset[str]) -> bool:
        if (Decision.CONVERTED in decided) is not self.edited:
            return False
        return Decision.PERSON in decided if self.example.person else self.edited or decided <= {Decision.LEFT}


CASES: tuple[Case, ...] = (
    *(OfRelease(rule, example) for rule in transforms() for example in rule.examples),
    *(OfPack(rule, example) for rule in patterns() for example in rule.examples),
)
EDITED = tuple(case for case in CASES if case.edited)
LEFT = tuple(case for case in CASES if not case.edited)


def name(case: Case) -> str:
    """The id of a parameter."""
    return case.name
