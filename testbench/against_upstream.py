"""Whether a patched tree gives upstream's bytes on a device, in the same time, with the same peak memory.

``python -m testbench.against_upstream UPSTREAM_TREE PATCHED_TREE --case sdxl --runs 5 --python PY``

Every run is a new process of PY (``gpu_probe.py``) with the same environment; the trees take turns, and so does which
of the two goes first. Ratios are patched to upstream, pair by pair. The noise of the time is upstream's own spread:
its slowest run to its fastest.

Exit status: 0 when everything is the same, 1 when something is not or a run failed, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from patchforge.atomic import write_file
from patchforge.errors import Exit, PatchforgeError

PROBE = Path(__file__).resolve().with_name("gpu_probe.py")
UPSTREAM, PATCHED = SIDES = ("upstream", "patched")
STAGES = ("sampling", "decode")
MEMORY = ("allocated", "reserved", "in_use")
#: What two runs must share for their figures to be comparable.
SURROUNDINGS = ("device", "versions", "allocator", "attention", "dynamic_vram", "vram_state", "model", "comfyui")
_NOT_UPSTREAMS = frozenset({".git", "user", "temp", "output"})
_LOG_LINES = 15

Record = dict[str, Any]
#: (side, number of the pair) -> the probe's record, or RunFailed.
Probe = Callable[[str, int], Record]


class RunFailed(Exception):
    """A run ended without a record; the text says how, with the end of its log."""


@dataclass(frozen=True)
class Run:
    """One process: its side, its pair, and a record or the reason why there is none."""

    side: str
    pair: int
    record: Record | None = None
    failure: str = ""


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
    """What the pairs say about one stage. Times are medians over a process's repeats, then over the processes."""

    identical: bool  #: every process gave the same digests, in the same order
    time: Ratio
    noise: float  #: upstream's slowest process to its fastest, less 1
    seconds: dict[str, float]
    memory: dict[str, Ratio]
    peak_bytes: dict[str, dict[str, list[int]]]  #: kind -> side -> every run, in order


@dataclass(frozen=True)
class Comparison:
    """The verdict: ``same`` holds when ``problems`` is empty."""

    runs: list[Run]
    stages: dict[str, Stage] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """No digest differs, nothing is slower or larger, no run failed."""
        return not self.problems

    @property
    def identical(self) -> bool:
        """All outputs of all runs are the same bytes, and there are some."""
        return bool(self.stages) and all(stage.identical for stage in self.stages.values())


def alternate(probe: Probe, pairs: int, tell: Callable[[str], None] = lambda _line: None) -> list[Run]:
    """Runs both sides ``pairs`` times in turn; upstream goes first in even pairs.

    A failed run does not end it, unless both of the first pair fail: then the rest would too.
    """
    runs: list[Run] = []
    for pair in range(pairs):
        for side in SIDES if pair % 2 == 0 else SIDES[::-1]:
            try:
                run = Run(side, pair, probe(side, pair))
            except RunFailed as error:
                run = Run(side, pair, failure=str(error))
            runs.append(run)
            tell(_line(run))
        if all(run.record is None for run in runs):
            break
    return runs


def compare(runs: Sequence[Run], *, tolerance: float = 0.01) -> Comparison:
    """Judges ``runs``. A time or a peak may be over upstream's by ``tolerance``, a time also by upstream's noise."""
    problems = [f"{run.side} run {run.pair} failed: {run.failure}" for run in runs if run.record is None]
    good = [run for run in runs if run.record is not None]
    problems += _mixed_up(good)
    pairs = _pairs(good)
    if not pairs:
        return Comparison(list(runs), {}, [*problems, "no pair of runs succeeded: there is nothing to compare"])
    stages = {name: _stage(name, pairs) for name in STAGES if name in pairs[0][0]["stages"]}
    for name, stage in stages.items():
        problems += _complaints(name, stage, pairs, tolerance)
    return Comparison(list(runs), stages, problems)


def _pairs(runs: Sequence[Run]) -> list[tuple[Record, Record]]:
    """(upstream, patched) of every pair that has both."""
    by_side = {(run.side, run.pair): run.record for run in runs if run.record is not None}
    return [
        (record, by_side[PATCHED, pair])
        for (side, pair), record in by_side.items()
        if side == UPSTREAM and (PATCHED, pair) in by_side
    ]


def _mixed_up(runs: Sequence[Run]) -> list[str]:
    """Runs that do not show what they should: the wrong tree, or other surroundings than the first run's."""
    found = []
    for run in runs:
        record = run.record or {}
        if record.get("hooks_imported") is not (run.side == PATCHED):
            found.append(f"{run.side} run {run.pair}: comfy.patchforge_xpu imported: {record.get('hooks_imported')}")
        first = runs[0].record or {}
        found += [
            f"{run.side} run {run.pair}: {name} is {record.get(name)}, the first run's is {first.get(name)}"
            for name in SURROUNDINGS
            if record.get(name) != first.get(name)
        ]
    return found


def _stage(name: str, pairs: Sequence[tuple[Record, Record]]) -> Stage:
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
            kind: _ratio([after / before for before, after in zip(sides[UPSTREAM], sides[PATCHED], strict=True)])
            for kind, sides in peaks.items()
        },
        peak_bytes=peaks,
    )


def _ratio(values: list[float]) -> Ratio:
    return Ratio(statistics.median(values), min(values), max(values))


def _complaints(name: str, stage: Stage, pairs: Sequence[tuple[Record, Record]], tolerance: float) -> list[str]:
    found = []
    if not stage.identical:
        own = {tuple(record["stages"][name]["sha256"]) for record, _ in pairs}
        found.append(
            f"{name}: outputs differ"
            + (", also between upstream's own runs: this case cannot tell" if len(own) > 1 else " from upstream's")
        )
    allowed = max(tolerance, stage.noise)
    if stage.time.median > 1 + allowed:
        found.append(f"{name}: slower, time ratio {stage.time}; allowed is {1 + allowed:.4f}")
    found += [
        f"{name}: more memory ({kind}), ratio {ratio}; allowed is {1 + tolerance:.4f}"
        for kind, ratio in stage.memory.items()
        if ratio.median > 1 + tolerance
    ]
    return found


def report(comparison: Comparison, title: str, facts: Record) -> str:
    """The comparison as Markdown."""
    first = next((run.record for run in comparison.runs if run.record is not None), {})
    versions = ", ".join(f"{name} {value}" for name, value in first.get("versions", {}).items() if value)
    counted = sum(run.record is not None for run in comparison.runs)
    verdict = "Same" if comparison.same else "NOT the same"
    outputs = "bit-identical" if comparison.identical else "NOT bit-identical"
    device = first.get("device", {}).get("name", "unknown")
    settings = ", ".join(f"{name} {first.get(name)}" for name in ("dynamic_vram", "allocator", "attention"))
    lines = [
        f"## {title}",
        "",
        f"**{verdict}**: outputs {outputs} in {counted} of {len(comparison.runs)} runs.",
        "",
        *(f"- PROBLEM: {problem}" for problem in comparison.problems),
        *([""] if comparison.problems else []),
        f"Device: {device}; driver {facts.get('driver', 'unknown')}; {versions}.",
        f"Model: {first.get('model', {})}; {settings}.",
        "",
        "| stage | outputs | upstream | patched | time ratio | upstream's noise | peak allocated | reserved | in use |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, stage in comparison.stages.items():
        memory = " | ".join(_memory(stage, kind) for kind in MEMORY)
        lines.append(
            f"| {name} | {'identical' if stage.identical else '**differ**'} | {stage.seconds[UPSTREAM]:.4f} s "
            f"| {stage.seconds[PATCHED]:.4f} s | {stage.time} | {stage.noise:.2%} | {memory} |"
        )
    return "\n".join([*lines, ""])


def _memory(stage: Stage, kind: str) -> str:
    """A ratio with upstream's median in GiB, or that all runs agree to the byte."""
    if kind not in stage.memory:
        return "-"
    sides = stage.peak_bytes[kind]
    size = f"{statistics.median(sides[UPSTREAM]) / 2**30:.3f} GiB"
    if len({*sides[UPSTREAM], *sides[PATCHED]}) == 1:
        return f"equal to the byte, {size}"
    return f"{stage.memory[kind]}, {size}"


def _line(run: Run) -> str:
    if run.record is None:
        return f"pair {run.pair} {run.side:8} FAILED: {run.failure}"
    stages = run.record["stages"]
    told = "  ".join(
        f"{name} {statistics.median(stages[name]['seconds']):.4f} s {stages[name]['sha256'][-1][:12]}"
        for name in stages
    )
    return f"pair {run.pair} {run.side:8} {told}"


@dataclass(frozen=True)
class Processes:
    """Runs the probe in processes of its own, one after the other, all with the same environment."""

    trees: dict[str, Path]
    case: str
    python: str
    weights: Path
    records: Path
    repeats: int = 3
    timeout: float = 300.0
    allow_cpu: bool = False
    probe: Path = PROBE

    def __call__(self, side: str, pair: int) -> Record:
        """One measured run; RunFailed with the end of the log when it leaves no record."""
        return self._run(side, f"{side}-{pair}", "--repeats", str(self.repeats))

    def make_weights(self) -> None:
        """Writes the weights that all runs share, with upstream's own classes; RunFailed when it cannot."""
        self._run(UPSTREAM, "weights", "--make-weights")

    def _run(self, side: str, name: str, *more: str) -> Record:
        out, log = self.records / f"{name}.json", self.records / f"{name}.log"
        out.unlink(missing_ok=True)
        command = [self.python, str(self.probe), str(self.trees[side]), self.case, str(out)]
        command += ["--weights", str(self.weights), *more, *(["--allow-cpu"] if self.allow_cpu else [])]
        with log.open("wb") as stream:
            try:
                done = subprocess.run(
                    command, check=False, stdout=stream, stderr=stream, env=self.environment(), timeout=self.timeout
                )
            except subprocess.TimeoutExpired:
                raise RunFailed(f"no end after {self.timeout:g} s; {_tail(log)}") from None
        if done.returncode != 0 or not out.is_file():
            raise RunFailed(f"exit status {done.returncode}; {_tail(log)}")
        record: Record = json.loads(out.read_text())
        return record

    def environment(self) -> dict[str, str]:
        """This process's, less patchforge's own variables; bytecode goes to a folder of its own, never into a tree."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PATCHFORGE_")}
        return {"PYTHONPYCACHEPREFIX": str(self.records.resolve() / "bytecode"), **kept, "PYTHONHASHSEED": "0"}


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
    return "the log ends:\n" + "\n".join(f"    {line}" for line in lines)


def differing(upstream: Path, patched: Path) -> dict[str, dict[str, str | None]]:
    """Files that the trees do not share, with the git blob ids that the manifest names too."""
    ids = [_blob_ids(tree) for tree in (upstream, patched)]
    names = sorted(name for name in {*ids[0], *ids[1]} if ids[0].get(name) != ids[1].get(name))
    return {name: {"before": ids[0].get(name), "after": ids[1].get(name)} for name in names}


def _blob_ids(tree: Path) -> dict[str, str]:
    found = {}
    for path in sorted(tree.rglob("*")):
        relative = path.relative_to(tree)
        if path.is_file() and "__pycache__" not in relative.parts and relative.parts[0] not in _NOT_UPSTREAMS:
            data = path.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
            found[relative.as_posix()] = blob.hexdigest()
    return found


def _driver() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, check=False, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbench.against_upstream", description=__doc__.splitlines()[0])
    parser.add_argument("upstream", type=Path, help="upstream's tree")
    parser.add_argument("patched", type=Path, help="the same release, patched")
    parser.add_argument("--case", default="sdxl", help="a case of gpu_probe.py (default: sdxl)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each tree (default: 5)")
    parser.add_argument("--repeats", type=int, default=3, help="measured samplings in each run (default: 3)")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with the release's requirements")
    parser.add_argument("--weights", type=Path, help="keep the weights in this folder, and use those already there")
    parser.add_argument("--records", type=Path, help="keep every run's record and log in this folder")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--markdown", type=Path, help="write the report here; it is printed too")
    parser.add_argument("--title", default="", help="the report's heading")
    parser.add_argument("--tolerance", type=float, default=0.01, help="accepted excess of time and memory (0.01)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that one run may take (300)")
    parser.add_argument("--allow-cpu", action="store_true", help="go on without a CUDA device; shows nothing about one")
    return parser


def main(arguments: Sequence[str] | None = None, *, probe: Path = PROBE) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _check(options)
        return _measure(options, probe)
    except (PatchforgeError, RunFailed) as error:
        print(f"against_upstream: {error}", file=sys.stderr)
        return int(error.status) if isinstance(error, PatchforgeError) else int(Exit.USAGE)


def _check(options: argparse.Namespace) -> None:
    for tree in (options.upstream, options.patched):
        if not (tree / "main.py").is_file():
            raise PatchforgeError(f"{tree} is no ComfyUI tree", expected="a folder with main.py", do="name one")
    for name in ("runs", "repeats"):
        if getattr(options, name) < 1:
            raise PatchforgeError("nothing would be measured", expected=f"--{name} of at least 1")


def _measure(options: argparse.Namespace, probe: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="patchforge-gpu-") as scratch:
        records, weights = options.records or Path(scratch, "records"), options.weights or Path(scratch, "weights")
        for folder in (records, weights):
            folder.mkdir(parents=True, exist_ok=True)
        processes = Processes(
            {UPSTREAM: options.upstream, PATCHED: options.patched},
            options.case,
            options.python,
            weights,
            records,
            options.repeats,
            options.timeout,
            options.allow_cpu,
            probe,
        )
        files = differing(options.upstream, options.patched)
        if not list(weights.glob(f"{options.case}-*.safetensors")):
            processes.make_weights()
        runs = alternate(processes, options.runs, lambda line: print(line, flush=True))
    comparison = compare(runs, tolerance=options.tolerance)
    facts = {"driver": _driver(), "case": options.case, "files": files, "tolerance": options.tolerance}
    result = {"facts": facts, "same": comparison.same, "identical": comparison.identical, **asdict(comparison)}
    text = report(comparison, options.title or f"{options.case}", facts)
    if options.json:
        write_file(options.json, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    if options.markdown:
        write_file(options.markdown, text.encode())
    print(text)
    return int(Exit.OK if comparison.same else Exit.FAILED)


if __name__ == "__main__":
    sys.exit(main())
