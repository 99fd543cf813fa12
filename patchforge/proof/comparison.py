"""Two records of one scenario, compared: each difference has the name by which a transform declares it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from patchforge.proof.records import CommandLine, Question, Record
from patchforge.proof.scenarios import SCENARIOS, Group, Scenario

_ABSENT = "<absent>"


class DifferenceKind(StrEnum):
    """What of a record differs; the names that declarations use follow from it."""

    IMPORT = "import"  #: ``import``
    MAIN = "main"  #: ``main``: main's argument block fails, or imports torch
    ENVIRONMENT = "environment"  #: ``env:NAME``
    ARGUMENT = "argument"  #: ``argument:NAME``, a parsed argument of upstream's
    FLAG = "flag"  #: ``flag:--name``, known to one tree only
    NAME = "name"  #: ``name:NAME``, bound by model_management in one tree only
    CONSTANT = "constant"  #: ``constant:NAME``
    SWITCH = "switch"  #: ``switch:NAME``, a global setting of torch
    ANSWER = "answer"  #: the function's name
    CALL = "call"  #: ``call:torch.xpu.mem_get_info``


@dataclass(frozen=True, slots=True)
class RecordDifference:
    """One thing that the patched tree does otherwise. ``name`` is what a transform declares."""

    scenario: str
    group: Group
    kind: DifferenceKind
    name: str
    where: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.scenario}: {self.name} ({self.where}): {self.before} -> {self.after}"


def compare(before: Record, after: Record) -> tuple[RecordDifference, ...]:
    """Every difference between two records of one scenario, in the order of a start and then of the questions."""
    scenario = next(item for item in SCENARIOS if item.name == before.scenario)

    def say(kind: DifferenceKind, name: str, where: str, old: str, new: str) -> RecordDifference:
        return RecordDifference(scenario.name, scenario.group, kind, name, where, old, new)

    return tuple(say(*difference) for difference in _differences(before, after, scenario))


_Found = tuple[DifferenceKind, str, str, str, str]


def _differences(before: Record, after: Record, scenario: Scenario) -> Iterator[_Found]:
    for old, new in zip(before.main, after.main, strict=True):
        yield from _main_differences(old, new, scenario)
    if before.import_error or after.import_error:
        if before.import_error != after.import_error:
            yield (
                DifferenceKind.IMPORT,
                "import",
                "import",
                before.import_error or "starts",
                after.import_error or "starts",
            )
        return
    yield from _sequence("import", before.import_calls, after.import_calls)
    for name in sorted({*before.names} ^ {*after.names}):
        had = name in before.names
        yield DifferenceKind.NAME, f"name:{name}", "module", name if had else _ABSENT, _ABSENT if had else name
    shared = {*before.names} & {*after.names}
    yield from _mapping(DifferenceKind.CONSTANT, "constant:", "module", before.constants, after.constants, only=shared)
    yield from _mapping(DifferenceKind.SWITCH, "switch:", "torch", before.switches, after.switches)
    yield from _question_differences(before.questions, after.questions)


def _main_differences(old: CommandLine, new: CommandLine, scenario: Scenario) -> Iterator[_Found]:
    """A flag that only the patched tree knows matters with an Intel GPU only: without one nobody is asked it."""
    if old.lacking != new.lacking:
        if scenario.group in (Group.XPU, Group.MIXED, Group.DUAL) or not {*new.lacking} <= {*old.lacking}:
            for flag in sorted({*old.lacking} ^ {*new.lacking}):
                known = flag not in old.lacking
                yield DifferenceKind.FLAG, f"flag:{flag}", old.line, _known(known), _known(not known)
        return
    if old.error != new.error:
        yield DifferenceKind.MAIN, "main", old.line, old.error or "runs", new.error or "runs"
    if old.imported != new.imported:
        yield DifferenceKind.MAIN, "main:imports", old.line, str(old.imported), str(new.imported)
    yield from _mapping(DifferenceKind.ENVIRONMENT, "env:", old.line, old.environment, new.environment)
    yield from _mapping(
        DifferenceKind.ARGUMENT, "argument:", old.line, old.arguments, new.arguments, only={*old.arguments}
    )
    yield from _sequence(old.line, old.calls, new.calls)


def _known(known: bool) -> str:  # noqa: FBT001 - a word for a truth value
    return "known" if known else "unknown"


def _mapping(
    kind: DifferenceKind,
    prefix: str,
    where: str,
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    only: set[str] | None = None,
) -> Iterator[_Found]:
    for name in sorted({*before, *after} if only is None else {*before, *after} & only):
        old, new = before.get(name, _ABSENT), after.get(name, _ABSENT)
        if old != new:
            yield kind, prefix + name, where, old, new


def _question_differences(before: Sequence[Question], after: Sequence[Question]) -> Iterator[_Found]:
    old_by_text, new_by_text = ({item.text: item for item in items} for items in (before, after))
    for text in dict.fromkeys([*old_by_text, *new_by_text]):
        old, new = old_by_text.get(text), new_by_text.get(text)
        if old is None or new is None:
            if item := old or new:
                yield (
                    DifferenceKind.ANSWER,
                    item.function,
                    text,
                    old.answer if old else _ABSENT,
                    new.answer if new else _ABSENT,
                )
            continue
        if old.answer != new.answer:
            yield DifferenceKind.ANSWER, old.function, text, old.answer, new.answer
        yield from _sequence(text, old.calls, new.calls)


def _sequence(where: str, before: Sequence[str], after: Sequence[str]) -> Iterator[_Found]:
    """Calls removed, added or changed; order counts."""
    if before == after:
        return
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            yield from ((DifferenceKind.CALL, f"call:{called(call)}", where, call, _ABSENT) for call in before[i1:i2])
            yield from ((DifferenceKind.CALL, f"call:{called(call)}", where, _ABSENT, call) for call in after[j1:j2])


def called(call: str) -> str:
    """``torch.xpu.mem_get_info`` of a recorded call; ``stream.wait_stream`` of a call on an object."""
    return re.sub(r"^(\w+)\([^()]*\)\.", r"\1.", call).partition("(")[0]
