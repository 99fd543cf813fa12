"""Whole releases: the same result whichever way the work is done."""

from __future__ import annotations

import random

import pytest

from patchforge.engine import convert
from patchforge.engine.convert import Conversion
from patchforge.engine.files import look_at
from patchforge.rules import transforms
from patchforge.transform import Transform
from patchforge.vocabulary import Outcome
from tests.support import ERAS, MemoryTree, engine_of, miniature, release

ALL = transforms()


def result(conversion: Conversion) -> tuple[object, ...]:
    return conversion.reports, conversion.records, conversion.sites, conversion.changes


@pytest.mark.parametrize("era", ERAS)
def test_processes_make_no_difference(era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = MemoryTree(miniature(era))
    alone = engine_of(ALL, jobs=1).convert(release(era), tree)
    monkeypatch.setattr(convert, "_WORTH_A_PROCESS", 0)
    assert result(engine_of(ALL, jobs=2).convert(release(era), tree)) == result(alone)


def test_the_order_of_files_makes_no_difference() -> None:
    files = list(miniature("v0.33.0").items())
    expected = result(engine_of(ALL).convert(release("v0.33.0"), MemoryTree(dict(files))))
    shuffled = MemoryTree({})
    random.Random(7).shuffle(files)
    shuffled.files = dict(files)
    assert result(engine_of(ALL).convert(release("v0.33.0"), shuffled)) == expected


@pytest.mark.parametrize("era", ERAS)
def test_lines_are_those_that_each_transform_reports_alone(era: str) -> None:
    """Alone a transform works on upstream's own file, so its lines are upstream's."""
    for path, data in miniature(era).items():
        if not path.endswith(".py"):
            continue
        together = look_at(path, data, ALL, {}).found
        for transform in ALL:
            alone = look_at(path, data, (transform,), {}).found
            assert [place for place in together if place.transform == transform.id] == list(alone)


@pytest.mark.parametrize("era", ERAS)
def test_sharing_what_was_found_in_statements_makes_no_difference(era: str) -> None:
    memo: dict[tuple[object, ...], object] = {}
    for path, data in miniature(era).items():
        moved = b"\n\n# moved\n" + data
        for text in (data, moved, data):
            assert look_at(path, text, ALL, memo) == look_at(path, text, ALL, {})  # type: ignore[arg-type]


def one_of(name: str) -> Transform:
    transform: Transform = next(rule for rule in ALL if rule.id == name)
    return transform


def outcome(name: str, version: str, files: dict[str, bytes]) -> Outcome:
    return engine_of((one_of(name),)).convert(release(version), MemoryTree(files)).reports[0].outcome


def test_absent_where_the_range_says_so_and_drifted_elsewhere() -> None:
    assert outcome("oom-level-zero", "v0.16.4", {}) is Outcome.ABSENT
    assert outcome("oom-level-zero", "v0.17.0", {}) is Outcome.DRIFTED


def test_an_unreadable_file_is_a_drift_of_those_who_want_it() -> None:
    broken = {"comfy/model_management.py": b"def is_oom(:\n  torch.cuda\n"}
    assert outcome("oom-level-zero", "v0.33.0", broken) is Outcome.DRIFTED
    assert (
        outcome("cuda-malloc", "v0.33.0", {**broken, "cuda_malloc.py": miniature("v0.33.0")["cuda_malloc.py"]})
        is Outcome.UPSTREAM
    )


def test_an_outcome_outside_the_range_is_surprising() -> None:
    data = miniature("v0.33.0")["comfy/model_management.py"]
    [report] = (
        engine_of((one_of("oom-level-zero"),))
        .convert(release("v0.1.0"), MemoryTree({"comfy/model_management.py": data}))
        .reports
    )
    assert (report.outcome, report.expected, report.surprising) == (Outcome.APPLIED, Outcome.ABSENT, True)


def test_what_names_no_device_is_not_read_twice() -> None:
    records = (
        engine_of(ALL).convert(release("v0.33.0"), MemoryTree({"plain.py": b"x = 1\n", "notes.txt": b"cuda"})).records
    )
    assert records == {}
