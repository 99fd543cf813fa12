"""Two benchmarks side by side: exact counts without any tolerance, times with their noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from patchforge.bench.model import DEVICES, PATCHED, UPSTREAM, Benchmark, Case, Counts
from patchforge.bench.statistics import CONFIDENCE, LARGE, LEAST, TimeRatio, paired, unpaired
from patchforge.errors import NotChecked
from patchforge.trial.model import Device, TrialVerdict


@dataclass(frozen=True, slots=True)
class CountDifference:
    """One exact figure that is not the same. None: it was not counted there, or the part was not run."""

    suite: str
    case: str
    part: str
    what: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class TimesCompared:
    """Times of one case: medians in seconds. ``verdict`` is ``slower`` or ``faster`` where that is an alarm."""

    suite: str
    case: str
    before: float
    after: float
    found: TimeRatio
    verdict: Literal["slower", "faster", "no change", "too few runs"]


@dataclass(frozen=True, slots=True)
class BenchmarkComparison:
    """Benchmarks compared. ``compared`` counts figures; ``notes`` say what could not be compared, and why.

    ``confidence`` and ``large`` say when a time is an alarm: at that confidence, and by more than that.
    """

    before: str
    after: str
    compared: int
    differences: tuple[CountDifference, ...]
    times: tuple[TimesCompared, ...]
    notes: tuple[str, ...]
    confidence: float = CONFIDENCE
    large: float = LARGE

    @property
    def same(self) -> bool:
        """Whether all exact figures are equal and nothing is slower."""
        return not self.differences and not any(one.verdict == "slower" for one in self.times)


def compare(before: Benchmark, after: Benchmark) -> BenchmarkComparison:
    """What was measured of two runs, case by case. NotChecked where their figures cannot be compared at all."""
    _check_alike(before, after)
    pairs = [(one, after.case(*one.place)) for one in before.cases if one.side not in DEVICES]
    left = [one for one in after.cases if one.side not in DEVICES and before.case(*one.place) is None]
    return _compared(_title(before), _title(after), pairs, left, unpaired)


def against_upstream(benchmark: Benchmark) -> BenchmarkComparison:
    """What the patches add to upstream's own tree, of a run that measured both."""
    pairs = [(one, benchmark.case(one.suite, one.name, PATCHED)) for one in benchmark.side(UPSTREAM)]
    title = _title(benchmark)
    return _compared(f"{title}, upstream", f"{title}, patched", pairs, (), paired)


def _title(benchmark: Benchmark) -> str:
    return f"{benchmark.release} on {benchmark.device}"


def check_device(before: Device, after: Device) -> None:
    """NotChecked where benchmarks of these cannot be compared."""
    _check_same("device", f"{before} {before.options}", f"{after} {after.options}")


def _check_alike(before: Benchmark, after: Benchmark) -> None:
    check_device(before.device, after.device)
    for what, one, other in (
        ("torch", before.versions.get("torch", ""), after.versions.get("torch", "")),
        ("flags", " ".join(before.flags), " ".join(after.flags)),
    ):
        _check_same(what, one, other)


def _check_same(what: str, one: str, other: str) -> None:
    if one != other:
        raise NotChecked(
            f"these benchmarks cannot be compared: they are of another {what}",
            expected=one.strip() or "none",
            found=other.strip() or "none",
            do=f"run both with the same {what}",
        )


def _compared(
    before: str,
    after: str,
    pairs: Sequence[tuple[Case, Case | None]],
    left: Sequence[Case],
    ratio: Callable[[Sequence[float], Sequence[float]], TimeRatio],
) -> BenchmarkComparison:
    notes = [f"{_name(one)}: only in {before}" for one, other in pairs if other is None]
    notes += [f"{_name(one)}: only in {after}" for one in left]
    both = [(one, other) for one, other in pairs if other is not None]
    notes += [
        f"{_name(one)}: {side.verdict} in {where}, so nothing of it was measured: {side.reason}"
        for one, other in both
        for side, where in ((one, before), (other, after))
        if side.verdict is not TrialVerdict.FRESH
    ]
    found = [
        figure
        for pair in both
        for figure in _figures(*pair)
        if all(side.verdict is TrialVerdict.FRESH for side in pair)
    ]
    if not found:
        raise NotChecked(
            f"nothing of {before} and {after} can be compared",
            expected="a case that is fresh in both, with its counts",
            found="; ".join(notes) or "no case",
            do="run both with the same suites",
        )
    differences = tuple(one for one in found if one.before != one.after)
    times = tuple(
        _times(one, one.times.seconds, other.times.seconds, ratio) for one, other in both if one.times and other.times
    )
    return BenchmarkComparison(before, after, len(found), differences, times, tuple(notes))


def _times(
    case: Case,
    before: Sequence[float],
    after: Sequence[float],
    ratio: Callable[[Sequence[float], Sequence[float]], TimeRatio],
) -> TimesCompared:
    found = ratio(before, after)
    verdict: Literal["slower", "faster", "no change", "too few runs"] = "no change"
    if found.runs < LEAST:
        verdict = "too few runs"
    elif found.slower or found.faster:
        verdict = "slower" if found.slower else "faster"
    return TimesCompared(case.suite, case.name, median(before), median(after), found, verdict)


def _figures(before: Case, after: Case) -> Iterator[CountDifference]:
    """Every figure of two cases. What one side did not do at all is 0 there, if it counts such things."""
    for part in dict.fromkeys([*before.counts, *after.counts]):
        one, other = before.counts.get(part), after.counts.get(part)
        ours, theirs = one.figures() if one else {}, other.figures() if other else {}
        for what in sorted({*ours, *theirs}):
            yield CountDifference(
                before.suite,
                before.name,
                part,
                what,
                ours.get(what, _where_absent(one, what)),
                theirs.get(what, _where_absent(other, what)),
            )


def _where_absent(counts: Counts | None, what: str) -> int | None:
    """What a figure that is not there stands for: none of a kind that is counted, or nothing known."""
    if counts is None or not what.startswith(("operation ", "copies ", "bytes ", "wait, ")):
        return None
    return None if what.startswith("wait, ") and counts.synchronisations is None else 0


def _name(case: Case) -> str:
    return f"{case.suite} {case.name}, {case.side}"
