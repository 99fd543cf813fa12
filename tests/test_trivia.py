"""How code is laid out changes no outcome of any rule, and edits stand at the same place.

A sample of the mutants is tried; with ``PATCHFORGE_TRIVIA=all`` every one.
"""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass

import pytest

from tests.examples import CASES, Case, OfPack, OfRelease, name
from tests.trivia import REMARK, Mutant, mutants, sample

EACH = 1_000_000 if os.environ.get("PATCHFORGE_TRIVIA") == "all" else 1  #: mutants of one kind and example


@dataclass(frozen=True)
class Seen:
    """What a conversion comes to, apart from how the file is laid out."""

    decided: frozenset[str]
    places: tuple[tuple[object, ...], ...]  #: decision, what is said of it, and statement of each place
    result: str


def chosen(case: Case) -> list[Mutant]:
    return sample(case.before, EACH)


def seen(case: Case, text: str) -> Seen:
    """Converts a file; what comes out must compile, be proven, keep its comments and be a fixed point."""
    outcomes, tree = case.run(text.encode()), ast.parse(text)
    result = outcomes.result
    if result != text.encode():
        case.prove(text.encode(), outcomes)
        replaces = outcomes.replaced or isinstance(case, OfPack)  # what is replaced may have held a remark
        assert replaces or result.decode().count(REMARK) == text.count(REMARK)
        assert case.run(result).result == result
    places = tuple((place.decided, place.said, statement(tree, place.line)) for place in outcomes.places)
    return Seen(outcomes.decided, places, ast.dump(ast.parse(result)))


def statement(tree: ast.Module, line: int) -> int:
    """Which statement of the file stands on a line, the innermost one; 0 for none."""
    innermost = 0
    for number, node in enumerate((node for node in ast.walk(tree) if isinstance(node, ast.stmt)), 1):
        if node.lineno <= line <= (node.end_lineno or node.lineno):
            innermost = number
    return innermost


@pytest.mark.parametrize("case", CASES, ids=name)
def test_layout_changes_no_outcome_and_no_place(case: Case) -> None:
    wanted = seen(case, case.before)
    assert case.expected(wanted.decided)
    wrong: list[str] = []
    for mutant in chosen(case):
        try:
            if seen(case, mutant.text) == wanted:
                continue
        except Exception as error:
            wrong.append(f"{mutant.kind}: {type(error).__name__}: {error}\n{mutant.text}")
        else:
            wrong.append(f"{mutant.kind}\n{mutant.text}")
    assert not wrong, f"{len(wrong)} of {len(chosen(case))}\n" + "\n".join(wrong[:3])


@pytest.mark.parametrize("kind", [OfRelease, OfPack])
def test_a_thousand_mutants_are_tried_of_either_kind_of_rule(kind: type[Case]) -> None:
    assert sum(len(chosen(case)) for case in CASES if isinstance(case, kind)) >= 1_000


def test_every_kind_of_trivia_is_tried() -> None:
    kinds = {mutant.kind for case in CASES for mutant in chosen(case)}
    assert kinds == {mutant.kind for case in CASES for mutant in mutants(case.before)}
    assert len(kinds) >= 20


def test_mutants_are_the_same_each_time() -> None:
    text = CASES[0].before
    first = mutants(text)
    mutants.cache_clear()
    assert mutants(text) == first
    assert len({mutant.text for mutant in first}) > len(first) * 0.9
