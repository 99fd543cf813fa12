"""Two benchmarks compared: one thing too many is found, always, and nothing where there is nothing."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchforge.bench.compare import against_upstream, compare
from patchforge.bench.model import FILE, FORMAT, UPSTREAM, Counts, read, total
from patchforge.cli import main
from patchforge.errors import Damaged, Exit, NotChecked, PatchforgeError
from patchforge.trial.model import Device, TrialVerdict
from tests.bench.examples import DECODER, SAMPLER, benchmark, case, counts

NUMBERS = st.integers(0, 1 << 40)
OPTIONAL = st.none() | NUMBERS
NAMES = st.sampled_from(["float16 linear", "float32 to", "none empty", "float32 conv2d"])
COUNTS = st.builds(
    Counts,
    operations=st.dictionaries(NAMES, NUMBERS),
    copies=st.dictionaries(st.sampled_from(["cpu to xpu", "xpu to cpu"]), st.tuples(NUMBERS, NUMBERS)),
    synchronisations=st.none() | st.dictionaries(st.sampled_from(["asked for", "blocking copy", "item"]), NUMBERS),
    **{
        field.name: OPTIONAL
        for field in fields(Counts)
        if field.name not in {"operations", "copies", "synchronisations"}
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(COUNTS)
def test_what_is_the_same_has_no_difference(same: Counts) -> None:
    measured = benchmark(case(parts={SAMPLER: same, DECODER: counts()}))
    assert compare(measured, measured).same


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(COUNTS, st.data())
def test_one_more_of_anything_is_found(found: Counts, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([field.name for field in fields(Counts)]))
    value: Any = getattr(found, name)
    if name == "operations":
        more: Any = {**value, "float32 add": 1}
    elif name == "copies":
        size = value.get("xpu to xpu", (0, 0))
        more = {**value, "xpu to xpu": (size[0] + 1, size[1])}
    elif name == "synchronisations":
        more = {**(value or {}), "item": (value or {}).get("item", 0) + 1}
    else:
        more = 1 if value is None else value + 1
    before, after = (
        benchmark(case(parts={SAMPLER: found})),
        benchmark(case(parts={SAMPLER: replace(found, **{name: more})})),
    )
    differences = compare(before, after).differences
    assert differences
    assert {difference.part for difference in differences} == {SAMPLER}
    assert not compare(after, before).same


def test_sides_of_one_run_are_compared() -> None:
    patched = case(parts={SAMPLER: counts(synchronisations={"asked for": 1, "blocking copy": 8}), DECODER: counts()})
    upstream = case(side=UPSTREAM, parts={SAMPLER: counts(), DECODER: counts()})
    (difference,) = against_upstream(benchmark(upstream, patched)).differences
    assert (difference.what, difference.before, difference.after) == ("wait, blocking copy", 7, 8)


def test_a_kind_of_copy_that_was_not_there_was_made_no_time() -> None:
    after = case(
        parts={SAMPLER: counts(copies={"cpu to xpu": (7, 4096), "xpu to cpu": (1, 1024), "xpu to xpu": (2, 64)})}
    )
    comparison = compare(benchmark(case(parts={SAMPLER: counts()})), benchmark(after)).differences
    assert [(difference.what, difference.before, difference.after) for difference in comparison] == [
        ("bytes xpu to xpu", 0, 64),
        ("copies xpu to xpu", 0, 2),
    ]


def test_what_was_not_counted_is_not_nothing() -> None:
    after = benchmark(case(parts={SAMPLER: counts(allocations=None)}))
    (difference,) = compare(benchmark(case(parts={SAMPLER: counts(allocations=0)})), after).differences
    assert (difference.before, difference.after) == (0, None)


def test_a_node_that_only_one_ran_differs() -> None:
    comparison = compare(benchmark(case()), benchmark(case(parts={SAMPLER: counts()})))
    assert {difference.part for difference in comparison.differences} == {DECODER}
    assert {difference.after for difference in comparison.differences} == {None}


def test_nothing_is_said_of_a_run_that_was_not_fresh() -> None:
    other = case("upscale", verdict=TrialVerdict.CPU_FALLBACK, reason="node 3 did nothing", parts={})
    comparison = compare(benchmark(case(), other), benchmark(case(), other))
    assert comparison.same
    assert any("cpu_fallback" in note and "node 3 did nothing" in note for note in comparison.notes)
    with pytest.raises(NotChecked, match="nothing of"):
        compare(benchmark(other), benchmark(other))


def test_cases_of_one_alone_are_named() -> None:
    comparison = compare(benchmark(case(), case("sdxl")), benchmark(case(), case("dit")))
    assert comparison.same
    assert [note.partition(":")[0] for note in comparison.notes] == [
        "workflows sdxl, patched",
        "workflows dit, patched",
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"device": Device("xpu", "a770", "rng=cpu")},
        {"device": Device("cuda")},
        {"versions": {"torch": "2.14.0"}},
        {"flags": ()},
    ],
    ids=lambda other: next(iter(other)),
)
def test_figures_of_different_conditions_are_not_compared(other: dict[str, Any]) -> None:
    with pytest.raises(NotChecked, match="cannot be compared"):
        compare(benchmark(), benchmark(**other))


def test_the_total_keeps_what_is_unknown_and_the_highest_peak() -> None:
    summed = total([counts(peak_bytes=5, allocations=None), counts(peak_bytes=3, allocations=None)])
    assert (summed.peak_bytes, summed.allocations, summed.waits) == (5, None, 16)
    assert summed.copies["cpu to xpu"] == (14, 8192)
    assert summed.operations["float32 linear"] == 192


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(FORMAT.dump(benchmark(**changes)))
    return folder


def test_the_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    assert read(folder) == read(folder / FILE) == benchmark()


def test_another_format_and_nothing_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / FILE).write_text(json.dumps({**FORMAT.data(benchmark()), "format": 99}))
    with pytest.raises(Damaged, match="of a newer patchforge"):
        read(folder)
    with pytest.raises(PatchforgeError, match="holds no benchmark"):
        read(tmp_path / "nowhere")


def test_the_command_says_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "one")
    assert main(["bench", "compare", str(folder)]) == Exit.OK
    assert capsys.readouterr().out.startswith("no difference in 29 exact figures of v0.33.0 on emulated:b580, upstream")
    changed = benchmark(case(side=UPSTREAM), case(parts={**case().counts, SAMPLER: counts(allocations=211)}))
    other = write(tmp_path / "other", cases=changed.cases)
    assert main(["bench", "compare", str(folder), str(other)]) == Exit.FAILED
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 58 exact figures differ"
    assert lines[2].split() == ["workflows", "txt2img", "patched", "5", "KSampler", "allocations", "210", "211", "+1"]
    assert main(["bench", "compare", str(folder), str(other), "--json"]) == Exit.FAILED
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "patchforge/bench-compare/1"
    assert document["differences"][0] == {
        "suite": "workflows",
        "case": "txt2img",
        "side": "patched",
        "part": SAMPLER,
        "what": "allocations",
        "before": 210,
        "after": 211,
    }
