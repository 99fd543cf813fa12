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
    side: str
    part: str
    what: str
    before: int | None
    after: int | None


TOO_FEW: Literal["too few runs"] = "too few runs"
TimeVerdict = Literal["slower", "faster", "no change", "uncertain", "too few runs"]


@dataclass(frozen=True, slots=True)
class TimesCompared:
    """Times of one case: medians in seconds.

    ``verdict`` is ``slower`` or ``faster`` where that is an alarm, and ``uncertain`` where the runs scatter too much to
    tell no change from one that would be.
    """

    suite: str
    case: str
    side: str
    before: float
    after: float
    found: TimeRatio
    verdict: TimeVerdict


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
        return not self.differences and not any(times.verdict == "slower" for times in self.times)


def compare(before: Benchmark, after: Benchmark) -> BenchmarkComparison:
    """What was measured of two runs, case by case. NotChecked where their figures cannot be compared at all."""
    _check_alike(before, after)
    pairs = [(case, after.case(*case.place)) for case in before.cases if case.side not in DEVICES]
    left = [case for case in after.cases if case.side not in DEVICES and before.case(*case.place) is None]
    return _compared(_title(before), _title(after), pairs, left, unpaired)


def against_upstream(benchmark: Benchmark) -> BenchmarkComparison:
    """What the patches add to upstream's own tree, of a run that measured both."""
    pairs = [(case, benchmark.case(case.suite, case.name, PATCHED)) for case in benchmark.side(UPSTREAM)]
    title = _title(benchmark)
    return _compared(f"{title}, upstream", f"{title}, patched", pairs, (), paired)


def _title(benchmark: Benchmark) -> str:
    return f"{benchmark.release} on {benchmark.device}"


def check_device(before: Device, after: Device) -> None:
    """NotChecked where benchmarks of these cannot be compared."""
    _check_same("device", f"{before} {before.options}", f"{after} {after.options}")


def _check_alike(before: Benchmark, after: Benchmark) -> None:
    check_device(before.device, after.device)
    for what, ours, theirs in (
        ("torch", before.versions.get("torch", ""), after.versions.get("torch", "")),
        ("flags", " ".join(before.flags), " ".join(after.flags)),
    ):
        _check_same(what, ours, theirs)


def _check_same(what: str, before: str, after: str) -> None:
    if before != after:
        raise NotChecked(
            f"these benchmarks cannot be compared: they are of another {what}",
            expected=before.strip() or "none",
            found=after.strip() or "none",
            do=f"run both with the same {what}",
        )


def _compared(
    before: str,
    after: str,
    pairs: Sequence[tuple[Case, Case | None]],
    left: Sequence[Case],
    ratio: Callable[[Sequence[float], Sequence[float]], TimeRatio],
) -> BenchmarkComparison:
    notes = [f"{_name(case)}: only in {before}" for case, other in pairs if other is None]
    notes += [f"{_name(case)}: only in {after}" for case in left]
    both = [(case, other) for case, other in pairs if other is not None]
    notes += [
        f"{_name(case)}: {side.verdict} in {where}, so nothing of it was measured: {side.reason}"
        for case, other in both
        for side, where in ((case, before), (other, after))
        if side.verdict is not TrialVerdict.FRESH
    ]
    figures = [
        figure
        for pair in both
        for figure in _figures(*pair)
        if all(side.verdict is TrialVerdict.FRESH for side in pair)
    ]
    if not figures:
        raise NotChecked(
            f"nothing of {before} and {after} can be compared",
            expected="a case that is fresh in both, with its counts",
            found="; ".join(notes) or "no case",
            do="run both with the same suites",
        )
    differences = tuple(figure for figure in figures if figure.before != figure.after)
    times = tuple(
        _times(other, case.times.seconds, other.times.seconds, ratio)
        for case, other in both
        if case.times and other.times
    )
    return BenchmarkComparison(before, after, len(figures), differences, times, tuple(notes))


def _times(
    case: Case,
    before: Sequence[float],
    after: Sequence[float],
    ratio: Callable[[Sequence[float], Sequence[float]], TimeRatio],
) -> TimesCompared:
    compared = ratio(before, after)
    verdict: TimeVerdict = "uncertain" if compared.uncertain else "no change"
    if compared.runs < LEAST:
        verdict = TOO_FEW
    elif compared.slower or compared.faster:
        verdict = "slower" if compared.slower else "faster"
    return TimesCompared(*case.place, median(before), median(after), compared, verdict)


def _figures(before: Case, after: Case) -> Iterator[CountDifference]:
    """Every figure of two cases. What one side did not do at all is 0 there, if it counts such things."""
    for part in dict.fromkeys([*before.counts, *after.counts]):
        early, late = before.counts.get(part), after.counts.get(part)
        ours, theirs = early.figures() if early else {}, late.figures() if late else {}
        for what in sorted({*ours, *theirs}):
            yield CountDifference(
                *after.place,
                part,
                what,
                ours.get(what, _where_absent(early, what)),
                theirs.get(what, _where_absent(late, what)),
            )


def _where_absent(counts: Counts | None, what: str) -> int | None:
    """What a figure that is not there stands for: none of a kind that is counted, or nothing known."""
    if counts is None or not what.startswith(("operation ", "copies ", "bytes ", "wait, ")):
        return None
    return None if what.startswith("wait, ") and counts.synchronisations is None else 0


def _name(case: Case) -> str:
    return f"{case.suite} {case.name}, {case.side}"
