"""When a time is an alarm, and where a history changed for good."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ruptures", reason="needs the extra benchmark")

from patchforge.bench.compare import against_upstream, compare
from patchforge.bench.history import change_points, history
from patchforge.bench.model import FILE, FORMAT, PATCHED, UPSTREAM, Benchmark, Times
from patchforge.bench.statistics import LEAST, interval, paired, steady, unpaired
from patchforge.cli import main
from patchforge.errors import Exit
from tests.bench.examples import SAMPLER, benchmark, case, counts


def runs(seed: int, count: int = 20, *, factor: float = 1.0, noise: float = 0.01) -> list[float]:
    """Seconds of runs around ``factor``; some take half as long again."""
    chance = random.Random(seed)
    return [factor * chance.lognormvariate(0, noise) * (1.5 if chance.random() < 0.05 else 1) for _ in range(count)]


def test_a_median_and_its_interval() -> None:
    bounds = interval(runs(1, 200))
    assert bounds.low <= bounds.median <= bounds.high
    assert bounds.low == pytest.approx(1, abs=0.01)
    assert interval(runs(1, 200)) == bounds
    assert (interval([2.0]).low, interval([2.0, 2.0]).high) == (2.0, 2.0)


@pytest.mark.parametrize("ratio", [paired, unpaired])
def test_an_alarm_is_significant_and_large(ratio: object) -> None:
    assert callable(ratio)
    slower, small, noisy = (
        ratio(runs(1), runs(2, factor=1.08)),
        ratio(runs(1, 200), runs(2, 200, factor=1.02)),
        ratio(runs(1, noise=0.4), runs(2, factor=1.1, noise=0.4)),
    )
    assert (slower.slower, slower.faster) == (True, False)
    assert (small.significant, small.large, small.slower) == (True, False, False)
    assert (noisy.significant, noisy.slower) == (False, False)
    faster = ratio(runs(1, factor=1.08), runs(2))
    assert (faster.slower, faster.faster) == (False, True)


def test_few_runs_are_never_an_alarm() -> None:
    assert not paired(runs(1, LEAST - 1), runs(2, LEAST - 1, factor=2)).slower
    assert paired(runs(1, LEAST), runs(2, LEAST, factor=2)).slower


def test_the_same_is_hardly_ever_an_alarm_and_a_slowdown_nearly_always() -> None:
    same = [paired(runs(2 * seed), runs(2 * seed + 1)) for seed in range(50)]
    assert sum(ratio.slower or ratio.faster for ratio in same) <= 1
    slowed = [paired(runs(2 * seed), runs(2 * seed + 1, factor=1.05)) for seed in range(50)]
    assert sum(ratio.slower for ratio in slowed) >= 48


def test_a_drift_meets_both_sides() -> None:
    """Each pair is made at one time, so that a machine that gets slower is no alarm."""
    drift = [1 + index / 10 for index in range(20)]
    before, after = ([second * factor for second, factor in zip(runs(seed), drift, strict=True)] for seed in (1, 2))
    assert not paired(before, after).slower
    assert abs(paired(before, after).ratio.median - 1) < 0.01


def test_when_a_warm_up_may_end() -> None:
    assert [steady(seconds) for seconds in ([], [1.0], [3.0, 1.0], [3.0, 1.0, 1.04], [1.0, 1.06])] == [
        False,
        False,
        False,
        True,
        False,
    ]


def medians(seed: int, count: int, *, factor: float = 1.0) -> list[float]:
    return [interval(runs(1000 * seed + point, factor=factor)).median for point in range(count)]


def test_where_times_changed_for_good() -> None:
    before, after = medians(1, 8), medians(2, 6, factor=1.2)
    ((at, ratio),) = change_points([*before, *after])
    assert at == len(before)
    assert ratio == pytest.approx(1.2, rel=0.03)
    assert change_points(medians(3, 30)) == []
    assert change_points([1.0, 1.0, 2.0, 2.0, 2.0]) == []
    one_outlier = [*[1.0] * 6, 3.0, *[1.0] * 6]
    assert change_points(one_outlier) == []


def times(seconds: list[float]) -> Times:
    return Times(tuple(seconds), {SAMPLER: tuple(seconds)}, (2.0, 1.0, 1.0), steady=True)


def test_sides_are_compared_pair_by_pair() -> None:
    upstream = case(side=UPSTREAM, times=times(runs(1)))
    slow = case(side=PATCHED, times=times(runs(2, factor=1.2)))
    (use,) = against_upstream(benchmark(upstream, slow)).times
    assert (use.verdict, use.found.pairs) == ("slower", 20)
    assert not against_upstream(benchmark(upstream, slow)).same
    (other,) = compare(benchmark(slow), benchmark(replace(slow, times=times(runs(3))))).times
    assert (other.verdict, other.found.pairs) == ("faster", 0)
    (few,) = compare(benchmark(slow), benchmark(replace(slow, times=times([1.0, 1.0])))).times
    assert few.verdict == "too few runs"


def dated(day: int, factor: float, allocations: int = 210) -> Benchmark:
    measured = case(times=times(runs(day, factor=factor)), parts={SAMPLER: counts(allocations=allocations)})
    return benchmark(measured, date=f"2026-11-{day:02}T10:00:00+00:00", release=f"v0.{day}.0")


def test_a_history_tells_what_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for day in range(1, 13):
        folder = tmp_path / str(40 - day)  # the order is that of the dates
        folder.mkdir()
        measured = dated(day, 1.0 if day < 7 else 1.3, 210 if day < 10 else 211)
        (folder / FILE).write_bytes(FORMAT.dump(measured))
    assert main(["bench", "history", str(tmp_path)]) == Exit.FAILED
    said = capsys.readouterr().out
    assert "1.30 times as long from v0.7.0 (2026-11-07)" in said or "1.29 times as long from v0.7.0" in said
    assert "allocations 210 → 211 in v0.10.0" in said
    assert main(["bench", "history", str(tmp_path), "--json"]) == Exit.FAILED
    (series,) = json.loads(capsys.readouterr().out)["series"]
    assert [point["release"] for point in series["points"]] == [f"v0.{day}.0" for day in range(1, 13)]
    assert [change["release"] for change in series["changes"]] == ["v0.7.0"]


def test_machines_and_devices_are_kept_apart() -> None:
    other = replace(dated(2, 2.0), machine=replace(benchmark().machine, cpu="another"))
    told = history([dated(1, 1.0), other])
    assert [(series.machine.partition(",")[0], len(series.points), series.enough) for series in told.series] == [
        ("a processor", 1, False),
        ("another", 1, False),
    ]


def test_a_folder_without_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "history", str(tmp_path)]) == Exit.USAGE
    assert "holds no benchmark" in capsys.readouterr().err
