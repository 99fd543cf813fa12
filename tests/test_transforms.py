"""Every transform against its own examples, and what must hold of all of them."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from textwrap import dedent

import pytest
from patchforge.transforms.runtime import patchforge_xpu

from patchforge.commands.explain import reference
from patchforge.engine.files import look_at
from patchforge.proof.differences import Replacement
from patchforge.proof.static import prove
from patchforge.rules import transforms
from patchforge.transform import HOOKS, Example, Span, Transform
from patchforge.vocabulary import Outcome, Version
from tests.support import ERAS, ROOT, MemoryTree, converted, engine_of, miniature, release, result_of

ALL = transforms()
CASES = [(one, example) for one in ALL for example in one.examples]
PUBLIC = set(patchforge_xpu.__all__)


def named(cases: list[tuple[Transform, Example]]) -> pytest.MarkDecorator:
    ids = [f"{one.id}-{example.name}" for one, example in cases]
    return pytest.mark.parametrize(("transform", "example"), cases, ids=ids)


rewrites = named([case for case in CASES if case[1].after is not None])
clean = named([case for case in CASES if case[1].after is None])
every_transform = pytest.mark.parametrize("transform", ALL, ids=[one.id for one in ALL])


def before_and_after(example: Example) -> tuple[bytes, bytes]:
    assert example.after is not None
    return dedent(example.before).encode(), dedent(example.after).encode()


def path_of(transform: Transform, example: Example) -> str:
    return example.path or transform.files[0]


def outcome(transform: Transform, example: Example) -> Outcome:
    tree = MemoryTree({path_of(transform, example): dedent(example.before).encode()})
    return engine_of((transform,)).convert(release(example.version), tree).reports[0].outcome


@rewrites
def test_a_rewrite_comes_out_as_shown(transform: Transform, example: Example) -> None:
    before, after = before_and_after(example)
    result = converted(path_of(transform, example), before, (transform,))
    assert result.decode() == after.decode()
    compile(result, "example.py", "exec", dont_inherit=True)
    assert outcome(transform, example) is example.outcome is Outcome.APPLIED


@rewrites
def test_a_second_run_edits_nothing(transform: Transform, example: Example) -> None:
    _, after = before_and_after(example)
    record = look_at(path_of(transform, example), after, (transform,), {})
    assert record.stages == ()
    assert Outcome.DRIFTED not in {one.outcome for one in record.found}


@rewrites
def test_crlf_stays_crlf(transform: Transform, example: Example) -> None:
    before, after = (text.replace(b"\n", b"\r\n") for text in before_and_after(example))
    assert converted(path_of(transform, example), before, (transform,)) == after


@rewrites
def test_a_byte_order_mark_stays_first(transform: Transform, example: Example) -> None:
    before, after = (b"\xef\xbb\xbf" + text for text in before_and_after(example))
    assert converted(path_of(transform, example), before, (transform,)) == after


@rewrites
def test_a_missing_final_newline_stays_missing(transform: Transform, example: Example) -> None:
    before, after = (text.removesuffix(b"\n") for text in before_and_after(example))
    assert converted(path_of(transform, example), before, (transform,)) == after


@rewrites
def test_the_static_proof_holds(transform: Transform, example: Example) -> None:
    before, after = before_and_after(example)
    path = path_of(transform, example)
    record = look_at(path, before, (transform,), {})
    replaced = [Replacement(path, *pair) for found in record.found for pair in found.replaced]
    prove(path, before, after, replaced)


@named(CASES)
def test_all_transforms_together_get_on(transform: Transform, example: Example) -> None:
    """What one transform's example holds may concern others too; their edits must not clash."""
    path, before = path_of(transform, example), dedent(example.before).encode()
    result = result_of(before, look_at(path, before, ALL, {}))
    ast.parse(result)
    assert look_at(path, result, ALL, {}).stages == ()


@clean
def test_a_clean_example_is_left_alone(transform: Transform, example: Example) -> None:
    data = dedent(example.before).encode()
    ast.parse(data)
    assert look_at(path_of(transform, example), data, (transform,), {}).stages == ()
    assert outcome(transform, example) is example.outcome is not Outcome.APPLIED


@pytest.mark.parametrize("era", ERAS)
def test_outcomes_of_the_miniatures_are_the_expected_ones(era: str) -> None:
    conversion = engine_of(ALL).convert(release(era), MemoryTree(miniature(era)))
    expected = {one.id: one.expected(Version.parse(era)) for one in ALL}
    assert {report.transform: report.outcome for report in conversion.reports} == expected
    assert conversion.unclaimed == ()


def test_the_miniatures_show_every_transform_at_work() -> None:
    worked: set[str] = set()
    for era in ERAS:
        reports = engine_of(ALL).convert(release(era), MemoryTree(miniature(era))).reports
        worked |= {report.transform for report in reports if report.outcome is Outcome.APPLIED}
    versions = [Version.parse(era) for era in ERAS]
    assert worked == {one.id for one in ALL if any(one.expected(version) is Outcome.APPLIED for version in versions)}


def test_ids_are_unique() -> None:
    assert [name for name, count in Counter(one.id for one in ALL).items() if count > 1] == []
    assert len({type(one).__module__ for one in ALL}) == len(ALL)


def test_example_names_are_unique_within_a_transform() -> None:
    assert [
        name for name, count in Counter((one.id, example.name) for one, example in CASES).items() if count > 1
    ] == []


def test_the_registry_lists_only_the_catalogue() -> None:
    class Stranger(Transform):
        """A transform of a test."""

        id = "X99"

    transforms.cache_clear()
    assert [one.id for one in transforms()] == [one.id for one in ALL]
    assert issubclass(Stranger, Transform)


@every_transform
def test_the_facts_are_stated(transform: Transform) -> None:
    module = sys.modules[type(transform).__module__]
    assert transform.id == module.__name__.rpartition(".")[2].replace("_", "-")
    assert module.__doc__
    assert type(transform).__doc__
    assert transform.title
    assert transform.retires
    assert transform.files
    assert transform.needles
    assert any(example.after is not None for example in transform.examples)
    assert any(example.after is None for example in transform.examples)


@every_transform
def test_ranges_are_in_order_and_do_not_contradict(transform: Transform) -> None:
    spans = (*transform.absent, *transform.upstream)
    for span in spans:
        assert not (span.first and span.last) or Version.parse(span.first) <= Version.parse(span.last)
    for one in transform.absent:
        for other in transform.upstream:
            assert not _overlap(one, other)


def _overlap(one: Span, other: Span) -> bool:
    edges = [Version.parse(edge) for span in (one, other) for edge in (span.first, span.last) if edge]
    return any(edge in one and edge in other for edge in edges)


@every_transform
def test_hooks_exist_and_are_declared(transform: Transform) -> None:
    assert set(transform.hooks) <= PUBLIC
    afters = "\n".join(example.after or "" for example in transform.examples)
    assert set(re.findall(rf"{HOOKS}\.(\w+)\(", afters)) <= set(transform.hooks)


def test_the_runtime_offers_what_transforms_call_and_nothing_else() -> None:
    assert {hook for one in ALL for hook in one.hooks} == PUBLIC


def test_the_reference_page_is_generated() -> None:
    assert (ROOT / "docs" / "transforms.md").read_text("utf-8") == reference(ALL)
