"""A benchmark as a page for people (HTML with plots, Markdown) and as a table for programs (CSV)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from patchforge.bench import statistics
from patchforge.bench.compare import BenchmarkComparison, against_upstream, compare
from patchforge.bench.model import (
    CPU,
    CUDA,
    DEVICES,
    NOT_MEASURED,
    PATCHED,
    TORCH,
    UPSTREAM,
    Benchmark,
    Case,
    shown,
    total,
)
from patchforge.bench.own_model import is_own
from patchforge.bench.plots import Bar, bars, ratios
from patchforge.bench.real_size import is_real
from patchforge.bench.statistics import CONFIDENCE, LARGE, LEAST, Interval, TimeRatio
from patchforge.bench.suites import OF_TORCH
from patchforge.bench.workflows import LEVELS
from patchforge.errors import NotChecked
from patchforge.templating import environment

HTML, MARKDOWN, CSV = "report.html", "report.md", "report.csv"
_MIB = 1 << 20
_CALLED = {CPU: "the CPU", CUDA: "CUDA"}


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """What was written, and its first line."""

    headline: str
    written: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One case on one side, as the tables have it."""

    case: Case
    time: Interval | None
    before: TimeRatio | None  #: by what it is measured against: an earlier benchmark, else upstream
    speed: float | None  #: how many times as fast as the other device; see other_device

    @property
    def is_exact(self) -> bool:
        """Whether it is what upstream and others before can be compared with: float32, at the default level."""
        return self.case.side in {PATCHED, TORCH}

    @property
    def is_baseline(self) -> bool:
        """Whether others are measured against it."""
        return self.case.side in {UPSTREAM, *DEVICES}

    @property
    def counts(self) -> Mapping[str, str]:
        """Exact totals, as texts."""
        if not self.case.counts:
            return {}
        counts = total(self.case.counts.values())
        peak = None if counts.peak_bytes is None else f"{counts.peak_bytes / _MIB:.1f} MiB"
        return {
            "operations": str(sum(counts.operations.values())),
            "copies": str(sum(count for count, _ in counts.copies.values())),
            "waits": shown(counts.waits),
            "allocations": shown(counts.allocations),
            "peak": peak or NOT_MEASURED,
        }

    @property
    def energy(self) -> list[str]:
        """What every meter told: joules for a run, a picture and a step, and mean watts."""
        told = []
        for use in self.case.energy:
            parts = [f"{use.joules_per_run:.3g} J a run"]
            if self.case.pictures:
                parts.append(f"{use.joules_per_run / self.case.pictures:.3g} J a picture")
            if self.case.steps:
                parts.append(f"{use.joules_per_run / self.case.steps:.3g} J a step")
            told.append(f"{use.meter}: {', '.join(parts)}, {use.watts:.3g} W")
        return told

    @property
    def memory(self) -> list[str]:
        return [f"{use.what}: {use.peak / _MIB:.0f} MiB" for use in self.case.memory]

    @property
    def quality(self) -> str:
        """Against the CPU in float32."""
        quality = self.case.quality
        if quality is None:
            return NOT_MEASURED
        if quality.equal:
            return "equal to the bit"
        ssim = NOT_MEASURED if quality.ssim is None else f"{quality.ssim:.4f}"
        psnr = NOT_MEASURED if quality.psnr is None else f"{quality.psnr:.1f} dB"
        near = f"PSNR {psnr}, SSIM {ssim}, FLIP {quality.flip:.4f}"
        return f"largest difference {quality.largest:g} of 255, {near}"


def seconds(value: float) -> str:
    """A time with a unit that fits it."""
    unit, factor = ("s", 1.0) if value >= 1 else ("ms", 1e3) if value >= 1e-3 else ("us", 1e6)
    return f"{value * factor:.3g} {unit}"


def rows(benchmark: Benchmark, before: Benchmark | None = None) -> list[Row]:
    """Every case. ``before`` is an earlier benchmark; without it, patched trees are measured against upstream's."""
    return [
        Row(
            case,
            statistics.interval(case.times.seconds) if case.times else None,
            _against(case, benchmark, before),
            _speed(case, benchmark),
        )
        for case in benchmark.cases
    ]


def _against(case: Case, benchmark: Benchmark, before: Benchmark | None) -> TimeRatio | None:
    if case.side in DEVICES:
        return None
    other = before.case(*case.place) if before else benchmark.case(case.suite, case.name, UPSTREAM)
    if other is None or other is case or not case.times or not other.times:
        return None
    ratio = statistics.unpaired if before else statistics.paired
    return ratio(other.times.seconds, case.times.seconds)


def other_device(benchmark: Benchmark) -> str:
    """The device that was timed beside, as ``cpu``; "" where none was."""
    return next((side for side in DEVICES if any(case.times for case in benchmark.side(side))), "")


def _speed(case: Case, benchmark: Benchmark) -> float | None:
    other = benchmark.case(case.suite, case.name, other_device(benchmark))
    if other is None or other is case or not case.times or not other.times:
        return None
    return 1 / statistics.paired(other.times.seconds, case.times.seconds).ratio.median


def headline(benchmark: Benchmark, rows: Sequence[Row], before: Benchmark | None) -> str:
    """How fast is it, and is it faster than before: in one line."""
    timed = [row for row in rows if row.time]
    own = [row for row in timed if row.is_exact] or [row for row in timed if not row.is_baseline]
    if not own:
        return f"{benchmark.release} on {benchmark.device}: no time was measured."
    first = next((row for row in own if row.case.suite == "workflows"), own[0])
    time = first.time.median if first.time else 0.0
    fast = f"{first.case.name} takes {seconds(time)} with {benchmark.release} on {benchmark.device}"
    return f"{fast}; {_than_before(first, own, before)}{_than_the_device(first, own, benchmark)}."


def _than_before(first: Row, own: Sequence[Row], before: Benchmark | None) -> str:
    """Of the case that the line names; then in how many of all."""
    own = [row for row in own if row.case.suite not in OF_TORCH] or own  # a release changes nothing of torch alone
    measured = [row.before for row in own if row.before]
    if not measured:
        return "whether it is faster than before was not measured"
    than, time = "upstream", "upstream's time"
    if before:
        than, time = "before", f"the time of {before.release} ({before.date[:10]})"
    said = [_change(first.before, than, time)] if first.before else []
    if len(measured) > len(said) and max(compared.runs for compared in measured) >= LEAST:
        said.append(_changes(measured, than))
    return "; ".join(said)


def _change(compared: TimeRatio, than: str, time: str) -> str:
    ratio = f"{compared.ratio.median:.2f} times {time}"
    if compared.runs < LEAST:
        return f"{ratio}, of too few runs to say whether that is a change"
    if compared.uncertain:
        return f"too uncertain to say if it changed from {than}: {ratio}"
    return f"{f'{word} than' if (word := _verdict(compared)) else 'no change from'} {than}: {ratio}"


def _changes(measured: Sequence[TimeRatio], than: str) -> str:
    many = {
        f"slower than {than}": sum(compared.slower for compared in measured),
        f"faster than {than}": sum(compared.faster for compared in measured),
        "too uncertain to say": sum(compared.uncertain for compared in measured),
    }
    said = ", ".join(f"{count} {word}" for word, count in many.items() if count)
    return f"of {len(measured)} cases {said or 'none changed'}"


def _than_the_device(first: Row, own: Sequence[Row], benchmark: Benchmark) -> str:
    """Of the case that the line names, as the table has it; then of all."""
    known = [row.speed for row in own if row.speed]
    what = _CALLED.get(other_device(benchmark))
    if not known:
        return ""
    mean = f"{_mean(known):.2f} times as fast as {what}"
    if len(known) == 1 and first.speed:
        return f"; {mean}"
    own_speed = f"; {first.case.name} is {first.speed:.2f} times as fast as {what}" if first.speed else ""
    return f"{own_speed}; over {len(known)} cases it is {mean}"


def _mean(ratios: Sequence[float]) -> float:
    """Geometric."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def context(benchmark: Benchmark, before: Benchmark | None) -> dict[str, Any]:
    """What both pages are made of."""
    listed = rows(benchmark, before)
    differences: BenchmarkComparison | None = None
    why = "only one side was measured"
    try:
        if before or benchmark.side(UPSTREAM):
            differences = compare(before, benchmark) if before else against_upstream(benchmark)
    except NotChecked as error:
        why = error.problem
    return {
        "benchmark": benchmark,
        "before": before,
        "headline": headline(benchmark, listed, before),
        "rows": listed,
        "differences": differences,
        "not_compared": why,
        "limits": limits(benchmark),
        "repeat": repeat(benchmark),
        "confidence": f"{CONFIDENCE:.0%}",
        "large": f"{LARGE:.0%}",
        "least": LEAST,
        "NOT_MEASURED": NOT_MEASURED,
        "shown": shown,
        "seconds": seconds,
        "has_before": any(row.before for row in listed),
        "has_other": any(row.speed for row in listed),
        "other_device": _CALLED.get(other_device(benchmark), "another device"),
    }


def repeat(benchmark: Benchmark) -> str:
    """The command that makes such a benchmark."""
    suites = list(dict.fromkeys(case.suite for case in benchmark.cases))
    sides = {case.side for case in benchmark.cases}
    baseline = next((side for side in (UPSTREAM, *DEVICES) if side in sides), "")
    words = ["patchforge bench", benchmark.release, "--device", str(benchmark.device), "--suite", ",".join(suites)]
    words += ["--baseline", baseline] if baseline else []
    words += ["--model", "CHECKPOINT"] if any(is_own(case.name) for case in benchmark.cases) else []
    words += ["--size", "real"] if any(is_real(case.name) for case in benchmark.cases) else []
    variants = {word for side in sides for word in side.split(", ")[1:]}
    for option, named in (("--precision", variants - set(LEVELS)), ("--level", variants & set(LEVELS))):
        words += [option, ",".join(sorted(named))] if named else []
    return " ".join([*words, *(["--quick"] if benchmark.quick else [])])


def limits(benchmark: Benchmark) -> list[str]:
    """What it does not show."""
    said = []
    if any(is_real(case.name) for case in benchmark.cases):
        said.append(
            "The models are as large as published ones, with random weights: their times are real, their pictures are "
            "noise."
        )
    elif not any(is_own(case.name) for case in benchmark.cases):
        said.append(
            "The models have the right shapes, and are tiny, with random weights: "
            "it says how devices and releases compare."
        )
    if benchmark.device.emulated:
        said.append("Nothing ran on Intel hardware: the CPU computed everything. Its times are the CPU's.")
    if any("energy" in case.not_measured for case in benchmark.cases):
        said.append("Energy is not measured where no counter can be read, or where runs are too short.")
    return said


def markdown(benchmark: Benchmark, before: Benchmark | None = None) -> str:
    """One page."""
    return environment("bench").get_template("report.md.j2").render(context(benchmark, before))


def html(benchmark: Benchmark, before: Benchmark | None = None) -> str:
    """One page that needs nothing else, with its plots."""
    values = context(benchmark, before)
    made = {**values, "plots": plots(values["rows"], before)}
    return environment("bench", autoescape=True).get_template("report.html.j2").render(made)


def plots(rows: Sequence[Row], before: Benchmark | None) -> list[tuple[str, str]]:
    """Titles and SVG: how times compare, then how long each suite's cases take."""
    drawn = []
    rows = sorted(rows, key=lambda row: row.case.suite in OF_TORCH)  # what people run, then what it is made of
    about = common_remark([row.case.name for row in rows])
    compared = [
        Bar(row.case.name.removesuffix(about), row.case.side, row.before.ratio, _verdict(row.before))
        for row in rows
        if row.before is not None and (row.is_exact or before)
    ]
    if compared:
        what = before.release if before else "upstream"
        drawn.append((f"Times in ratio to {what}'s{about}: left of the line is faster", ratios(compared, LARGE)))
    for suite in dict.fromkeys(row.case.suite for row in rows):
        timed = [
            Bar(row.case.name.removesuffix(about), row.case.side, row.time, "")
            for row in rows
            if row.case.suite == suite and row.time
        ]
        if timed:
            drawn.append((f"Time of {suite}{about}: medians and {CONFIDENCE:.0%} intervals", bars(timed)))
    return drawn


def common_remark(names: Sequence[str]) -> str:
    """What all names of cases end with, in parentheses, such as `` (real size)``; "" where they differ."""
    remarks = {name[name.find(" (") :] if " (" in name else "" for name in names}
    return remarks.pop() if len(remarks) == 1 else ""


def _verdict(ratio: TimeRatio) -> Literal["slower", "faster", ""]:
    return "slower" if ratio.slower else "faster" if ratio.faster else ""


def table(benchmark: Benchmark) -> str:
    """CSV, one figure in a line: suite, case, side, part, figure, value and unit. What was not measured has no line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["suite", "case", "side", "part", "figure", "value", "unit"])
    for case in benchmark.cases:
        writer.writerows([*case.place, *figure] for figure in _figures(case))
    return out.getvalue()


def _figures(case: Case) -> Iterator[tuple[str, str, object, str]]:
    yield "", "verdict", case.verdict.value, ""
    for part, counts in case.counts.items():
        for name, value in counts.figures().items():
            yield part, name, value, "bytes" if "bytes" in name else ""
    for run, taken in enumerate(case.times.seconds if case.times else ()):
        yield "", f"run {run}", taken, "s"
    for use in case.energy:
        yield use.meter, "energy", use.joules, "J"
        yield use.meter, "time", use.seconds, "s"
        yield use.meter, "runs", use.runs, ""
    for held in case.memory:
        yield held.what, "peak", held.peak, "bytes"
    if case.quality:
        yield "", "equal", int(case.quality.equal), ""
        yield "", "largest difference", case.quality.largest, "levels"
        measures = {"psnr": case.quality.psnr, "ssim": case.quality.ssim, "flip": case.quality.flip}
        for measure, figure in measures.items():
            if figure is not None:
                yield "", measure, figure, "dB" if measure == "psnr" else ""
