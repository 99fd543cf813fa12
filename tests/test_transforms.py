"""What must hold of every transform; its examples are tried in test_examples.py."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from patchforge.transforms.runtime import patchforge_xpu

from patchforge.commands.explain import reference
from patchforge.rules import all_transforms, transforms
from patchforge.transform import HOOKS, Already, Mismatch, Span, Transform
from patchforge.vocabulary import Outcome, Version
from tests import examples
from tests.support import ERAS, ROOT, MemoryTree, engine_of, miniature, release

ALL = transforms()
PUBLIC = set(patchforge_xpu.__all__)


every_transform = pytest.mark.parametrize("transform", ALL, ids=[transform.id for transform in ALL])


@pytest.mark.parametrize("era", ERAS)
def test_outcomes_of_the_miniatures_are_the_expected_ones(era: str) -> None:
    conversion = engine_of(ALL).convert(release(era), MemoryTree(miniature(era)))
    expected = {transform.id: transform.expected(Version.parse(era)) for transform in ALL}
    assert {report.transform: report.outcome for report in conversion.reports} == expected
    assert conversion.unclaimed == ()


def test_the_miniatures_show_every_transform_at_work() -> None:
    worked: set[str] = set()
    for era in ERAS:
        reports = engine_of(ALL).convert(release(era), MemoryTree(miniature(era))).reports
        worked |= {report.transform for report in reports if report.outcome is Outcome.APPLIED}
    versions = [Version.parse(era) for era in ERAS]
    assert worked == {
        transform.id for transform in ALL if any(transform.expected(version) is Outcome.APPLIED for version in versions)
    }


def test_ids_are_unique() -> None:
    assert [name for name, count in Counter(transform.id for transform in ALL).items() if count > 1] == []
    assert len({type(transform).__module__ for transform in ALL}) == len(ALL)


def test_the_registry_lists_only_the_catalogue() -> None:
    class Stranger(Transform):
        """A transform of a test."""

        id = "X99"

    all_transforms.cache_clear()
    assert [transform.id for transform in transforms()] == [transform.id for transform in ALL]
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


@every_transform
def test_ranges_are_in_order_and_do_not_contradict(transform: Transform) -> None:
    spans = (*transform.absent, *transform.upstream)
    for span in spans:
        assert not (span.first and span.last) or Version.parse(span.first) <= Version.parse(span.last)
    for absent in transform.absent:
        for other in transform.upstream:
            assert not _overlap(absent, other)


def _overlap(first: Span, other: Span) -> bool:
    edges = [Version.parse(edge) for span in (first, other) for edge in (span.first, span.last) if edge]
    return any(edge in first and edge in other for edge in edges)


@every_transform
def test_hooks_exist_and_are_declared(transform: Transform) -> None:
    assert set(transform.hooks) <= PUBLIC
    afters = "\n".join(example.after or "" for example in transform.examples)
    assert set(re.findall(rf"{HOOKS}\.(\w+)\(", afters)) <= set(transform.hooks)


def test_the_runtime_offers_what_transforms_call_and_nothing_else() -> None:
    assert {hook for transform in ALL for hook in transform.hooks} == PUBLIC


def test_the_reference_page_is_generated() -> None:
    assert (ROOT / "docs" / "transforms.md").read_text("utf-8") == reference(ALL)


@pytest.mark.parametrize("kind", [Already, Mismatch])
def test_rewording_every_reason_changes_no_edit(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "_engine", engine_of)  # which has seen nothing yet
    cases = [case for case in examples.CASES if isinstance(case, examples.OfRelease)]
    before = [case.run(case.before.encode()) for case in cases]
    original = kind.__init__
    monkeypatch.setattr(kind, "__init__", lambda self, node, _: original(self, node, "in other words"))
    after = [case.run(case.before.encode()) for case in cases]
    assert "in other words" in {note for made in after for _, note, _ in notes(made)}
    assert [without_notes(made) for made in after] == [without_notes(made) for made in before]


def notes(outcomes: examples.Outcomes) -> Iterator[tuple[Any, ...]]:
    return (place.said for place in outcomes.places)


def without_notes(outcomes: examples.Outcomes) -> tuple[object, ...]:
    places = [(place.line, place.decided, place.said[0], place.said[2]) for place in outcomes.places]
    return outcomes.result, outcomes.decided, outcomes.replaced, places
