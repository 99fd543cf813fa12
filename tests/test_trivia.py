"""How code is laid out changes no outcome, and edits stand at the same place.

A sample of the mutants is tried; with ``PATCHFORGE_TRIVIA=all`` every one.
"""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from functools import cache
from textwrap import dedent

import pytest

from patchforge.engine.convert import Engine
from patchforge.proof.differences import Replacement
from patchforge.proof.static import prove
from patchforge.rules import transforms
from patchforge.transform import Example, Transform
from patchforge.vocabulary import Outcome
from tests.support import MemoryTree, engine_of, release, result_of
from tests.trivia import REMARK, Mutant, mutants, sample

ALL = transforms()
CASES = [(one, example) for one in ALL for example in one.examples]
EACH = 1_000_000 if os.environ.get("PATCHFORGE_TRIVIA") == "all" else 1  #: mutants of one kind and example
every_example = pytest.mark.parametrize(
    ("transform", "example"), CASES, ids=[f"{one.id}-{example.name}" for one, example in CASES]
)


@dataclass(frozen=True)
class Seen:
    """What a conversion comes to, apart from how the file is laid out."""

    outcome: Outcome
    places: tuple[tuple[object, ...], ...]  #: outcome, function, note and statement of each finding
    result: str


@cache
def engine(transform: Transform) -> Engine:
    return engine_of((transform,))


def chosen(example: Example) -> list[Mutant]:
    return sample(dedent(example.before), EACH)


def seen(transform: Transform, example: Example, text: str) -> Seen:
    """Converts a file; what comes out must compile, be proven, keep its comments and be a fixed point."""
    path, data = example.path or transform.files[0], text.encode()
    conversion = engine(transform).convert(release(example.version), MemoryTree({path: data}))
    record = conversion.records.get(path)
    report, tree = conversion.reports[0], ast.parse(text)
    result = result_of(data, record) if record else data
    if record and record.stages:
        replaced = [Replacement(path, *pair) for found in record.found for pair in found.replaced]
        prove(path, data, result, replaced)
        assert replaced or result.decode().count(REMARK) == text.count(REMARK)
        again = engine(transform).convert(release(example.version), MemoryTree({path: result}))
        assert again.changes == {}
    places = [(one.outcome, one.function, one.note, one.edits, statement(tree, one.line)) for _, one in report.found]
    return Seen(report.outcome, tuple(places), ast.dump(ast.parse(result)))


def statement(tree: ast.Module, line: int) -> int:
    """Which statement of the file stands on a line, the innermost one; 0 for none."""
    found = 0
    for number, node in enumerate((node for node in ast.walk(tree) if isinstance(node, ast.stmt)), 1):
        if node.lineno <= line <= (node.end_lineno or node.lineno):
            found = number
    return found


@every_example
def test_layout_changes_no_outcome_and_no_place(transform: Transform, example: Example) -> None:
    wanted = seen(transform, example, dedent(example.before))
    assert wanted.outcome is example.outcome
    wrong: list[str] = []
    for mutant in chosen(example):
        try:
            if seen(transform, example, mutant.text) == wanted:
                continue
        except Exception as error:
            wrong.append(f"{mutant.kind}: {type(error).__name__}: {error}\n{mutant.text}")
        else:
            wrong.append(f"{mutant.kind}\n{mutant.text}")
    assert not wrong, f"{len(wrong)} of {len(chosen(example))}\n" + "\n".join(wrong[:3])


def test_a_thousand_mutants_are_tried() -> None:
    assert sum(len(chosen(example)) for _, example in CASES) >= 1_000


def test_every_kind_of_trivia_is_tried() -> None:
    kinds = {mutant.kind for _, example in CASES for mutant in chosen(example)}
    assert kinds == {mutant.kind for _, example in CASES for mutant in mutants(dedent(example.before))}
    assert len(kinds) >= 20


def test_mutants_are_the_same_each_time() -> None:
    text = dedent(CASES[0][1].before)
    first = mutants(text)
    mutants.cache_clear()
    assert mutants(text) == first
    assert len({mutant.text for mutant in first}) > len(first) * 0.9
