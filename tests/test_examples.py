"""Every rule against its own examples: a pack's rule has the same to show as a release's."""

from __future__ import annotations

import ast

import pytest

from patchforge.rules import patterns, transforms
from tests.examples import CASES, EDITED, LEFT, Case, name

MARK = b"\xef\xbb\xbf"
every = pytest.mark.parametrize("case", CASES, ids=name)
edited = pytest.mark.parametrize("case", EDITED, ids=name)


@edited
def test_an_example_comes_out_as_shown(case: Case) -> None:
    outcomes = case.run(case.before.encode())
    assert case.shown(outcomes.result) == case.after
    assert case.expected(outcomes.decided)
    compile(outcomes.result, "example.py", "exec", dont_inherit=True)


@pytest.mark.parametrize("case", LEFT, ids=name)
def test_a_clean_example_is_left_alone(case: Case) -> None:
    data = case.before.encode()
    ast.parse(data)
    outcomes = case.run(data)
    assert outcomes.result == data
    assert case.expected(outcomes.decided)


@edited
def test_a_second_run_edits_nothing(case: Case) -> None:
    once = case.run(case.before.encode()).result
    again = case.run(once)
    assert again.result == once
    assert again.decided.isdisjoint({"applied", "converted", "drifted"})


@edited
def test_crlf_stays_crlf(case: Case) -> None:
    before = case.before.encode()
    wanted = case.run(before).result.replace(b"\n", b"\r\n")
    assert case.run(before.replace(b"\n", b"\r\n")).result == wanted


@edited
def test_a_byte_order_mark_stays_first(case: Case) -> None:
    before = case.before.encode()
    assert case.run(MARK + before).result == MARK + case.run(before).result


@edited
def test_a_missing_final_newline_stays_missing(case: Case) -> None:
    before = case.before.encode()
    assert case.run(before.removesuffix(b"\n")).result == case.run(before).result.removesuffix(b"\n")


@edited
def test_the_proof_holds(case: Case) -> None:
    before = case.before.encode()
    case.prove(before, case.run(before))


@edited
def test_a_line_that_no_rule_has_to_do_with_keeps_its_bytes(case: Case) -> None:
    odd = "odd = '\N{SNOWMAN}\t'   # \N{SNOWMAN}; \n"
    before = case.before + odd
    result = case.run(before.encode()).result.decode()
    assert result.endswith(odd)
    assert case.shown(result.removesuffix(odd).encode()) == case.after


@every
def test_all_rules_together_get_on(case: Case) -> None:
    """What one rule's example holds may concern others too; their edits must not clash."""
    once = case.together(case.before.encode())
    ast.parse(once)
    assert case.together(once) == once


def test_each_rule_shows_what_it_edits_and_what_it_leaves() -> None:
    rules = {rule.id for rule in (*transforms(), *patterns())}
    assert {case.rule.id for case in EDITED} == {case.rule.id for case in LEFT} == rules
    assert len({case.name for case in CASES}) == len(CASES)
