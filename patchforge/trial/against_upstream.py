"""Whether a patched tree gives upstream's bytes on a device, in the same time, with the same peak memory.

``python -m patchforge.trial.against_upstream UPSTREAM_TREE PATCHED_TREE --case sdxl --runs 5 --python PY``

Every run is a new process of PY (``gpu_probe.py``) with the same environment; the trees take turns, and so does which
of the two goes first. Ratios are patched to upstream, pair by pair. The noise is upstream's own spread: its slowest run
to its fastest, its largest peak to its smallest.

With ``--turns`` there is one process of each tree, both are alive at once, and they take turns sampling by sampling;
each turn counts as a run. That has less noise, and the device must hold both.

On an XPU, where the patches are there to change things, nothing is judged but whether the runs succeed.

Exit status: 0 when everything is the same, 1 when something is not or a run failed, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from patchforge import documents, processes
from patchforge.errors import Exit, PatchforgeError
from patchforge.outputs import mark, marked, place_of, write_document
from patchforge.trial import gpu_probe
from patchforge.trial.words import JsonObject, Side

PROBE = Path(gpu_probe.__file__).resolve()
DEVICES = ("cuda", "xpu", "cpu")
SIDES = (Side.UPSTREAM, Side.PATCHED)
STAGES = ("sampling", "step", "decode")
MEMORY = ("allocated", "reserved", "on_card")
#: What two runs must share for their figures to be comparable.
SURROUNDINGS = ("device", "versions", "allocator", "attention", "dynamic_vram", "vram_state", "model", "comfyui")
_NOT_UPSTREAMS = frozenset({".git", "user", "temp", "output"})
_LOG_LINES = 15

#: (side, number of the pair) -> the probe's record, or RunFailed.
Probe = Callable[[Side, int], JsonObject]
Tell = Callable[[str], None]


class RunFailed(PatchforgeError):
    """A run ended without a record; the text says how, with the end of its log."""


@dataclass(frozen=True)
class Run:
    """One process, or one turn of it: its side, its pair, and a record or the reason why there is none."""

    side: Side
    pair: int
    record: JsonObject | None = None
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
    """What the pairs say about one stage. Times are medians over a process's repeats, then over the processes.

    ``step`` is from one call of the network to the next while sampling; it has no outputs and no memory of its own.
    """

    identical: bool  #: every process gave the same digests, in the same order; True where there are none
    time: Ratio
    noise: float  #: upstream's slowest process to its fastest, less 1
    seconds: dict[Side, float]
    memory: dict[str, Ratio]
    peak_bytes: dict[str, dict[Side, list[int]]]  #: kind -> side -> every run, in order


@dataclass(frozen=True)
class Comparison:
    """The verdict on one case: ``same`` holds when ``problems`` is empty.

    ``judged`` is False where outputs, times and memory are only told (on an XPU). ``facts``: the driver, and ``files``,
    the blob ids before and after of every file that the patches change.
    """

    case: str
    runs: list[Run]
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


def alternate(probe: Probe, pairs: int, tell: Tell = lambda _line: None) -> list[Run]:
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


def take_turns(processes: Processes, turns: int, tell: Tell = lambda _line: None) -> list[Run]:
    """One process of each tree; upstream goes first in even turns. Every measured turn becomes a run.

    Both are set up and load their models side by side, and never compute at the same time after that.
    """
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(_Waiting(processes, side, turns)) for side in SIDES]
        going = {one.waits() for one in both} == {True}
        while going:
            going = {one.turn() for one in both} == {True}
            both.reverse()
        runs = [run for one in both for run in one.runs()]
    for run in sorted(runs, key=lambda run: run.pair):
        tell(_line(run))
    return runs


def compare(case: str, runs: Sequence[Run], *, tolerance: float = 0.01, judged: bool = True) -> Comparison:
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


def _pairs(runs: Sequence[Run]) -> list[tuple[JsonObject, JsonObject]]:
    """(upstream, patched) of every pair that has both."""
    by_side = {(run.side, run.pair): run.record for run in runs if run.record is not None}
    return [
        (record, by_side[Side.PATCHED, pair])
        for (side, pair), record in by_side.items()
        if side == Side.UPSTREAM and (Side.PATCHED, pair) in by_side
    ]


def _mixed_up(runs: Sequence[Run]) -> list[str]:
    """Runs that do not show what they should: the wrong tree, or other surroundings than the first run's."""
    found = []
    for run in runs:
        record = run.record or {}
        if record.get("hooks_imported") is not (run.side == Side.PATCHED):
            found.append(f"{run.side} run {run.pair}: comfy.patchforge_xpu imported: {record.get('hooks_imported')}")
        first = runs[0].record or {}
        found += [
            f"{run.side} run {run.pair}: {name} is {record.get(name)}, the first run's is {first.get(name)}"
            for name in SURROUNDINGS
            if record.get(name) != first.get(name)
        ]
    return found


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
                [after / before for before, after in zip(sides[Side.UPSTREAM], sides[Side.PATCHED], strict=True)]
            )
            for kind, sides in peaks.items()
        },
        peak_bytes=peaks,
    )


def _ratio(values: list[float]) -> Ratio:
    return Ratio(statistics.median(values), min(values), max(values))


def _complaints(name: str, stage: Stage, pairs: Sequence[tuple[JsonObject, JsonObject]], tolerance: float) -> list[str]:
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
    for kind, ratio in stage.memory.items():
        peaks = stage.peak_bytes[kind][Side.UPSTREAM]
        allowed = max(tolerance, max(peaks) / min(peaks) - 1)
        if ratio.median > 1 + allowed:
            found.append(f"{name}: more memory ({kind}), ratio {ratio}; allowed is {1 + allowed:.4f}")
    return found


def report(comparison: Comparison, title: str = "") -> str:
    """The comparison as Markdown, under a heading (default: the case)."""
    first = next((run.record for run in comparison.runs if run.record is not None), {})
    versions = ", ".join(f"{name} {value}" for name, value in first.get("versions", {}).items() if value)
    device = first.get("device", {}).get("name", "unknown")
    settings = ", ".join(f"{name} {first.get(name)}" for name in ("dynamic_vram", "allocator", "attention"))
    lines = [
        f"## {title or comparison.case}",
        "",
        _verdict(comparison),
        "",
        *(f"- PROBLEM: {problem}" for problem in comparison.problems),
        *([""] if comparison.problems else []),
        f"Device: {device}; driver {comparison.facts.get('driver', 'unknown')}; {versions}.",
        f"Model: {first.get('model', {})}; {settings}.",
        "",
        "| stage | outputs | upstream | patched | time ratio | upstream's noise | allocated | reserved | on card |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, stage in comparison.stages.items():
        memory = " | ".join(_memory(stage, kind) for kind in MEMORY)
        outputs = "-" if name == "step" else "identical" if stage.identical else "**differ**"
        lines.append(
            f"| {name} | {outputs} | {stage.seconds[Side.UPSTREAM]:.4f} s | {stage.seconds[Side.PATCHED]:.4f} s "
            f"| {stage.time} | {stage.noise:.2%} | {memory} |"
        )
    return "\n".join([*lines, ""])


def as_json(comparison: Comparison) -> JsonObject:
    """Everything: the verdict, the figures, and the record of each run."""
    return {"same": comparison.same, "identical": comparison.identical, **asdict(comparison)}


def _verdict(comparison: Comparison) -> str:
    counted = sum(run.record is not None for run in comparison.runs)
    runs = f"in {counted} of {len(comparison.runs)} runs."
    if not comparison.judged:
        outputs = "are bit-identical" if comparison.identical else "differ, as they may on this device,"
        return f"**{'Compared' if comparison.same else 'FAILED'}**, not judged: outputs {outputs} {runs}"
    outputs = "bit-identical" if comparison.identical else "NOT bit-identical"
    return f"**{'Same' if comparison.same else 'NOT the same'}**: outputs {outputs} {runs}"


def _memory(stage: Stage, kind: str) -> str:
    """A ratio with upstream's median in GiB, or that all runs agree to the byte."""
    if kind not in stage.memory:
        return "-"
    sides = stage.peak_bytes[kind]
    size = f"{statistics.median(sides[Side.UPSTREAM]) / 2**30:.3f} GiB"
    if len({*sides[Side.UPSTREAM], *sides[Side.PATCHED]}) == 1:
        return f"equal to the byte, {size}"
    return f"{stage.memory[kind]}, {size}"


def _line(run: Run) -> str:
    if run.record is None:
        return f"pair {run.pair} {run.side:8} FAILED: {run.failure}"
    stages = run.record["stages"]
    told = "  ".join(
        f"{name} {statistics.median(stages[name]['seconds']):.4f} s {''.join(stages[name]['sha256'][-1:])[:12]}"
        for name in stages
    )
    return f"pair {run.pair} {run.side:8} {told}"


@dataclass(frozen=True)
class Processes:
    """Runs the probe in processes of its own, one after the other, all with the same environment.

    ``folder`` takes the weights, and every run's record and log.
    """

    trees: Mapping[Side, Path]
    case: str
    python: str
    folder: Path
    device: str = "cuda"
    repeats: int = 3
    timeout: float = 300.0
    probe: Path = PROBE

    def __call__(self, side: Side, pair: int) -> JsonObject:
        """One measured run; RunFailed with the end of the log when it leaves no record."""
        return self._run(side, f"{side}-{pair}", "--repeats", str(self.repeats))

    def make_weights(self) -> None:
        """Writes the weights that all runs share, with upstream's own classes; RunFailed when it cannot."""
        if not list(self.folder.glob(f"{self.case}-*.safetensors")):
            self._run(Side.UPSTREAM, "weights", "--make-weights")

    def command(self, side: Side, out: Path) -> list[str]:
        """What is run, but for what is asked of it."""
        what = [str(self.trees[side].resolve()), self.case, str(out)]
        return [self.python, str(self.probe), *what, "--weights", str(self.folder), "--device", self.device]

    def files(self, name: str) -> tuple[Path, Path]:
        """Where a run's record is to appear, and its log; no earlier record is left."""
        out, log = (self.folder / f"{self.case}-{name}.{ending}" for ending in ("json", "log"))
        out.unlink(missing_ok=True)
        return out, log

    def _run(self, side: Side, name: str, *more: str) -> JsonObject:
        out, log = self.files(name)
        with log.open("wb") as stream:
            try:
                done = processes.run(
                    [*self.command(side, out), *more],
                    stdout=stream,
                    stderr=stream,
                    env=self.environment(),
                    timeout=self.timeout,
                )
            except processes.TimeoutExpired:
                raise RunFailed(f"no end after {self.timeout:g} s; {_tail(log)}") from None
        return _record(done.returncode, out, log)

    def environment(self) -> dict[str, str]:
        """What drivers and torch read of this process's; bytecode goes to a folder of its own, never into a tree."""
        own = {"PYTHONPYCACHEPREFIX": str(self.folder.resolve() / "bytecode"), "PYTHONHASHSEED": "0"}
        return processes.environment(own, allow=processes.HARDWARE)


class _Waiting:
    """A process that takes its turns when it is told to; it ends, at the latest, with the ``with`` block."""

    def __init__(self, runs: Processes, side: Side, turns: int) -> None:
        self.side, self.turns, self.timeout = side, turns, runs.timeout
        self.out, self.log = runs.files(f"{side}-turns")
        with self.log.open("wb") as stream:
            self.process = processes.start(
                [*runs.command(side, self.out), "--wait", "--repeats", str(turns)],
                stdin=processes.PIPE,
                stdout=processes.PIPE,
                stderr=stream,
                text=True,
                env=runs.environment(),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def turn(self) -> bool:
        """Lets it take a turn, and tells whether it waits for the next one."""
        with contextlib.suppress(BrokenPipeError):
            print(file=self.process.stdin, flush=True)
        return self.waits()

    def waits(self) -> bool:
        """Returns when it waits for a turn, or with False when it has ended; it is ended where that takes too long."""
        timer = threading.Timer(self.timeout, self._end)
        timer.start()
        try:
            return any(line.strip() == gpu_probe.READY for line in self.process.stdout or ())
        finally:
            timer.cancel()

    def _end(self) -> None:
        with self.log.open("a") as log:
            print(f"ended: it did not wait for a turn after {self.timeout:g} s", file=log)
        self.process.kill()

    def runs(self) -> list[Run]:
        """A run for each turn, or one failure."""
        try:
            self.process.communicate(timeout=self.timeout)
            record = _record(self.process.returncode, self.out, self.log)
        except (RunFailed, processes.TimeoutExpired) as error:
            return [Run(self.side, 0, failure=str(error))]
        return [Run(self.side, turn, _of_turn(record, turn, self.turns)) for turn in range(self.turns)]


def _of_turn(record: JsonObject, turn: int, turns: int) -> JsonObject:
    """The record with the seconds of one turn, and the digests of all.

    Of the peaks it has torch's own: how far the others scatter cannot be seen in one process.
    """

    def part(stage: JsonObject) -> JsonObject:
        each = len(stage["seconds"]) // turns
        peaks = {kind: value for kind, value in stage["peak_bytes"].items() if kind == "allocated"}
        return {**stage, "seconds": stage["seconds"][turn * each : (turn + 1) * each], "peak_bytes": peaks}

    return {**record, "stages": {name: part(stage) for name, stage in record["stages"].items()}}


def _record(status: int, out: Path, log: Path) -> JsonObject:
    if status != 0 or not out.is_file():
        raise RunFailed(f"exit status {status}; {_tail(log)}")
    return documents.read_json(out, dict[str, Any], do="run this again")


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
    done = processes.run(query, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else "unknown"


def measure(
    trees: Mapping[Side, Path],
    cases: Sequence[str],
    *,
    python: str,
    device: str = "cuda",
    runs: int = 5,
    repeats: int = 3,
    turns: int = 0,
    tolerance: float = 0.01,
    timeout: float = 300.0,
    folder: Path | None = None,
    tell: Tell = lambda _line: None,
    probe: Path = PROBE,
) -> list[Comparison]:
    """Compares both trees on each case; ``tell`` gets a line for each run.

    With ``turns`` the trees take that many turns, whatever ``runs`` and ``repeats`` say (:func:`take_turns`).
    ``folder`` keeps the weights (3 to 10 GB for a case), records and logs; weights that lie there already are used.
    Without it they go to a temporary folder. PatchforgeError when nothing can be measured, RunFailed among them.
    """
    _check(trees, cases, runs=runs, repeats=repeats, turns=turns or 1)
    facts = {"driver": _driver(), "tolerance": tolerance, "files": differing(*(trees[side] for side in SIDES))}
    found = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="patchforge-against-") as scratch:
            place = folder or Path(scratch)
            place.mkdir(parents=True, exist_ok=True)
            processes = Processes(trees, case, python, place.resolve(), device, repeats, timeout, probe)
            processes.make_weights()
            done = take_turns(processes, turns, tell) if turns else alternate(processes, runs, tell)
        comparison = compare(case, done, tolerance=tolerance, judged=device != "xpu")
        found.append(replace(comparison, facts=facts))
    return found


def _check(trees: Mapping[Side, Path], cases: Sequence[str], **counts: int) -> None:
    for tree in trees.values():
        if not (tree / "main.py").is_file():
            raise PatchforgeError(f"{tree} is no ComfyUI tree", expected="a folder with main.py", do="name one")
    for case in cases:
        if case not in gpu_probe.CASES:
            raise PatchforgeError("no such case", expected=", ".join(gpu_probe.CASES), found=case)
    for name, count in counts.items():
        if count < 1:
            raise PatchforgeError("nothing would be measured", expected=f"{name} of at least 1", found=str(count))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="patchforge.trial.against_upstream", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("upstream", type=Path, help="upstream's tree")
    parser.add_argument("patched", type=Path, help="the same release, patched")
    parser.add_argument("--case", choices=gpu_probe.CASES, default="sdxl", help="what is run (default: sdxl)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each tree (default: 5)")
    parser.add_argument("--repeats", type=int, default=3, help="measured samplings in each run (default: 3)")
    parser.add_argument("--turns", type=int, default=0, help="instead: samplings of each tree, in turn, side by side")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with the release's requirements")
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="cpu shows nothing about a GPU")
    parser.add_argument("--folder", type=Path, help="keep weights, records and logs here; use weights already there")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--markdown", type=Path, help="write the report here; it is printed too")
    parser.add_argument("--title", default="", help="the report's heading")
    parser.add_argument("--tolerance", type=float, default=0.01, help="accepted excess of time and memory (0.01)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that one run may take (300)")
    return parser


def main(arguments: Sequence[str] | None = None, *, probe: Path = PROBE) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(arguments)
    read = [options.upstream, options.patched]
    try:
        for one in (options.json, options.markdown):
            if one:
                place_of(one, read)
        (comparison,) = measure(
            {Side.UPSTREAM: options.upstream, Side.PATCHED: options.patched},
            [options.case],
            python=options.python,
            device=options.device,
            runs=options.runs,
            repeats=options.repeats,
            turns=options.turns,
            tolerance=options.tolerance,
            timeout=options.timeout,
            folder=options.folder,
            tell=lambda line: print(line, flush=True),
            probe=probe,
        )
    except PatchforgeError as error:
        print(f"against_upstream: {error}", file=sys.stderr)
        return int(error.status)
    text = report(comparison, options.title)
    if options.json:
        document = {**as_json(comparison), "patchforge": mark()}
        write_document(options.json, marked(json.dumps(document, indent=1, sort_keys=True) + "\n"), inputs=read)
    if options.markdown:
        write_document(options.markdown, marked(f"{text.rstrip()}\n\n<!-- {mark()} -->\n"), inputs=read)
    print(text)
    return int(Exit.OK if comparison.same else Exit.FAILED)


if __name__ == "__main__":
    sys.exit(main())
