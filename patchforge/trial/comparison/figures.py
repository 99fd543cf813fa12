"""Records of runs, pair by pair: whether the bytes are the same, and how times and peaks of memory compare."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from patchforge.trial.model import JsonObject, TrialSide

SIDES = (TrialSide.UPSTREAM, TrialSide.PATCHED)
STAGES = ("sampling", "step", "decode")
MEMORY = ("allocated", "reserved", "on_card")
#: What two runs must share for their figures to be comparable.
SURROUNDINGS = ("device", "versions", "allocator", "attention", "dynamic_vram", "vram_state", "model", "comfyui")


@dataclass(frozen=True)
class MeasuredRun:
    """One process, or one turn of it: its side, its pair, and a record or the reason why there is none."""

    side: TrialSide
    pair: int
    record: JsonObject | None = None
    failure: str = ""

    def __str__(self) -> str:
        """In a line: seconds and digests."""
        if self.record is None:
            return f"pair {self.pair} {self.side:8} FAILED: {self.failure}"
        stages = self.record["stages"]
        figures = "  ".join(
            f"{name} {statistics.median(stages[name]['seconds']):.4f} s {''.join(stages[name]['sha256'][-1:])[:12]}"
            for name in stages
        )
        return f"pair {self.pair} {self.side:8} {figures}"


@dataclass(frozen=True)
class Ratio:
    """Patched to upstream, over the pairs."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.4f} ({self.least:.4f} to {self.most:.4f})"


@dataclass(frozen=True)
class Stage:
    """What the pairs say about one stage. Times are medians over a process's repeats, then over the processes.

    ``step`` is from one call of the network to the next while sampling; it has no outputs and no memory of its own.
    """

    identical: bool  #: every process gave the same digests, in the same order; True where there are none
    time: Ratio
    noise: float  #: upstream's slowest process to its fastest, less 1
    seconds: dict[TrialSide, float]
    memory: dict[str, Ratio]
    peak_bytes: dict[str, dict[TrialSide, list[int]]]  #: kind -> side -> every run, in order


@dataclass(frozen=True)
class Comparison:
    """The verdict on one case: ``same`` holds when ``problems`` is empty.

    ``judged`` is False where outputs, times and memory are only told (on an XPU). ``facts``: the driver, and ``files``,
    the blob ids before and after of every file that the patches change.
    """

    case: str
    runs: list[MeasuredRun]
    stages: dict[str, Stage] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    judged: bool = True
    facts: JsonObject = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """No run failed and, where it is judged, no digest differs and nothing is slower or larger."""
        return not self.problems

    @property
    def identical(self) -> bool:
        """All outputs of all runs are the same bytes, and there are some."""
        return bool(self.stages) and all(stage.identical for stage in self.stages.values())


def compare(case: str, runs: Sequence[MeasuredRun], *, tolerance: float = 0.01, judged: bool = True) -> Comparison:
    """Judges ``runs``. A time or a peak may be over upstream's by ``tolerance``, or by upstream's own spread."""
    problems = [f"{run.side} run {run.pair} failed: {run.failure}" for run in runs if run.record is None]
    good = [run for run in runs if run.record is not None]
    problems += _mixed_up(good)
    pairs = _pairs(good)
    if not pairs:
        problems.append("no pair of runs succeeded: there is nothing to compare")
        return Comparison(case, list(runs), {}, problems, judged)
    stages = {name: _stage(name, pairs) for name in STAGES if name in pairs[0][0]["stages"]}
    for name, stage in stages.items() if judged else ():
        problems += _complaints(name, stage, pairs, tolerance)
    return Comparison(case, list(runs), stages, problems, judged)


def _pairs(runs: Sequence[MeasuredRun]) -> list[tuple[JsonObject, JsonObject]]:
    """(upstream, patched) of every pair that has both."""
    by_side = {(run.side, run.pair): run.record for run in runs if run.record is not None}
    return [
        (record, by_side[TrialSide.PATCHED, pair])
        for (side, pair), record in by_side.items()
        if side == TrialSide.UPSTREAM and (TrialSide.PATCHED, pair) in by_side
    ]


def _mixed_up(runs: Sequence[MeasuredRun]) -> list[str]:
    """Runs that do not show what they should: the wrong tree, or other surroundings than the first run's."""
    problems = []
    for run in runs:
        record = run.record or {}
        if record.get("hooks_imported") is not (run.side == TrialSide.PATCHED):
            problems.append(f"{run.side} run {run.pair}: comfy.patchforge_xpu imported: {record.get('hooks_imported')}")
        first = runs[0].record or {}
        problems += [
            f"{run.side} run {run.pair}: {name} is {record.get(name)}, the first run's is {first.get(name)}"
            for name in SURROUNDINGS
            if record.get(name) != first.get(name)
        ]
    return problems


def _stage(name: str, pairs: Sequence[tuple[JsonObject, JsonObject]]) -> Stage:
    digests = {tuple(record["stages"][name]["sha256"]) for pair in pairs for record in pair}
    times = [tuple(statistics.median(record["stages"][name]["seconds"]) for record in pair) for pair in pairs]
    upstream = [pair[0] for pair in times]
    kinds = [kind for kind in MEMORY if kind in pairs[0][0]["stages"][name]["peak_bytes"]]
    peaks = {
        kind: {
            side: [pair[place]["stages"][name]["peak_bytes"][kind] for pair in pairs]
            for place, side in enumerate(SIDES)
        }
        for kind in kinds
    }
    return Stage(
        identical=len(digests) == 1,
        time=_ratio([patched / before for before, patched in times]),
        noise=max(upstream) / min(upstream) - 1,
        seconds={side: statistics.median(pair[place] for pair in times) for place, side in enumerate(SIDES)},
        memory={
            kind: _ratio(
                [
                    after / before
                    for before, after in zip(sides[TrialSide.UPSTREAM], sides[TrialSide.PATCHED], strict=True)
                ]
            )
            for kind, sides in peaks.items()
        },
        peak_bytes=peaks,
    )


def _ratio(values: list[float]) -> Ratio:
    return Ratio(statistics.median(values), min(values), max(values))


def _complaints(name: str, stage: Stage, pairs: Sequence[tuple[JsonObject, JsonObject]], tolerance: float) -> list[str]:
    complaints = []
    if not stage.identical:
        own = {tuple(record["stages"][name]["sha256"]) for record, _ in pairs}
        complaints.append(
            f"{name}: outputs differ"
            + (", also between upstream's own runs: this case cannot tell" if len(own) > 1 else " from upstream's")
        )
    allowed = max(tolerance, stage.noise)
    if stage.time.median > 1 + allowed:
        complaints.append(f"{name}: slower, time ratio {stage.time}; allowed is {1 + allowed:.4f}")
    for kind, ratio in stage.memory.items():
        peaks = stage.peak_bytes[kind][TrialSide.UPSTREAM]
        allowed = max(tolerance, max(peaks) / min(peaks) - 1)
        if ratio.median > 1 + allowed:
            complaints.append(f"{name}: more memory ({kind}), ratio {ratio}; allowed is {1 + allowed:.4f}")
    return complaints
