"""Many benchmarks in the order of their dates: where times changed for good, and where exact counts did.

Change points are found by ruptures: PELT on the logarithms of medians, with absolute distances, which single outliers
do not sway. It needs numpy and scipy only; apache-otava wants exactly one numpy, and clients of BigQuery and Slack.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from patchforge.bench import statistics
from patchforge.bench.model import FILE, FORMAT, Benchmark, Case, read, total
from patchforge.bench.submission import anonymous
from patchforge.errors import NotChecked, PatchforgeError
from patchforge.paths import all_below

LEAST = 6  #: points of a series; of fewer no change is told
_MOST = 10_000  # benchmarks of a folder
_SEGMENT = 3  # points
_PENALTY = 3.0  # times the noise and the logarithm of the number of points
_NOISE = 0.005  # at least that much is taken for noise
_SPREAD = 1.4826 / math.sqrt(2)  # from the median of absolute differences of neighbours to a standard deviation
_EXACT = ("operations", "copies", "waits", "allocations", "models", "files", "graphs", "recompilations")


@dataclass(frozen=True, slots=True)
class Point:
    date: str
    release: str
    seconds: float  #: median


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """From ``release`` on it took ``ratio`` of the time before."""

    date: str
    release: str
    ratio: float


@dataclass(frozen=True, slots=True)
class ExactChange:
    """A total that is another from ``release`` on; None is not measured."""

    date: str
    release: str
    what: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Series:
    """One case on one side, device and machine. ``enough`` says whether there are points enough for ``changes``."""

    machine: str
    device: str
    suite: str
    case: str
    side: str
    points: tuple[Point, ...]
    enough: bool
    changes: tuple[ChangePoint, ...]
    exact: tuple[ExactChange, ...]


@dataclass(frozen=True, slots=True)
class BenchmarkHistory:
    benchmarks: int
    series: tuple[Series, ...]

    @property
    def slower(self) -> list[tuple[Series, ChangePoint]]:
        """What the newest change of a series made slower."""
        return [
            (series, series.changes[-1]) for series in self.series if series.changes and series.changes[-1].ratio > 1
        ]


def benchmarks(folder: Path) -> list[Benchmark]:
    """All that lie in a folder, at any depth, oldest first, each once: copies are no further runs.

    Submissions count as well, and are copies of the benchmarks that they were made of.
    """
    if not folder.is_dir():
        raise PatchforgeError(
            f"{folder} is not a folder", expected=f"a folder with {FILE} in it, at any depth", do="name another"
        )
    files = sorted({*all_below(folder, FILE, deep=True), *all_below(folder, "*.benchmark.json", deep=True)})[:_MOST]
    if not files:
        raise PatchforgeError(
            f"{folder} holds no benchmark", expected=f"{FILE}, at any depth", do="make one: patchforge bench v0.33.0"
        )
    found = {FORMAT.dump(benchmark): benchmark for benchmark in map(read, files)}
    for benchmark in [*found.values()]:
        with suppress(NotChecked):  # nothing of it was fresh
            if (told := anonymous(benchmark)) != benchmark:
                found.pop(FORMAT.dump(told), None)
    return sorted(found.values(), key=lambda benchmark: benchmark.date)


def history(measured: Sequence[Benchmark]) -> BenchmarkHistory:
    """The series of benchmarks that are in the order of their dates."""
    series: dict[tuple[str, str, str, str, str], list[tuple[Benchmark, Case]]] = {}
    for benchmark in measured:
        where = ", ".join((benchmark.machine.cpu, *benchmark.machine.gpus))
        for case in benchmark.cases:
            series.setdefault((where, str(benchmark.device), *case.place), []).append((benchmark, case))
    return BenchmarkHistory(len(measured), tuple(_series(place, cases) for place, cases in series.items()))


def _series(place: tuple[str, str, str, str, str], cases: Sequence[tuple[Benchmark, Case]]) -> Series:
    points = tuple(
        Point(benchmark.date, benchmark.release, median(case.times.seconds))
        for benchmark, case in cases
        if case.times is not None
    )
    changes = tuple(
        ChangePoint(points[at].date, points[at].release, ratio)
        for at, ratio in change_points([point.seconds for point in points])
    )
    return Series(*place, points, len(points) >= LEAST, changes, tuple(_exact(cases)))


def change_points(seconds: Sequence[float]) -> list[tuple[int, float]]:
    """Where times changed for good: the index of the first that is of the new kind, and the new by the old.

    Only what is large is told (``statistics.LARGE``), and nothing of a series that is too short.
    """
    if len(seconds) < LEAST:
        return []
    import numpy as np  # noqa: PLC0415 - the extra ``benchmark``
    import ruptures  # noqa: PLC0415

    logarithms = np.log(seconds)
    noise = max(_NOISE, float(np.median(np.abs(np.diff(logarithms)))) * _SPREAD)
    penalty = _PENALTY * noise * math.log(len(seconds))
    ends = ruptures.Pelt(model="l1", min_size=_SEGMENT, jump=1).fit(logarithms[:, None]).predict(pen=penalty)
    starts = [0, *ends[:-1]]
    levels = [float(np.median(logarithms[begin:end])) for begin, end in zip(starts, ends, strict=True)]
    changes = [(starts[at], math.exp(levels[at] - levels[at - 1])) for at in range(1, len(starts))]
    return [(at, ratio) for at, ratio in changes if abs(ratio - 1) > statistics.LARGE]


def _exact(cases: Iterable[tuple[Benchmark, Case]]) -> list[ExactChange]:
    """Every change of a total between neighbours that were both counted, on one torch or not."""
    counted = [(benchmark, _totals(case)) for benchmark, case in cases if case.counts]
    return [
        ExactChange(benchmark.date, benchmark.release, what, before[what], now[what])
        for (_, before), (benchmark, now) in pairwise(counted)
        for what in _EXACT
        if before[what] != now[what]
    ]


def _totals(case: Case) -> Mapping[str, int | None]:
    counts = total(case.counts.values())
    summed = {
        "operations": sum(counts.operations.values()),
        "copies": sum(number for number, _ in counts.copies.values()),
    }
    return summed | {name: getattr(counts, name) for name in _EXACT if name not in summed}
