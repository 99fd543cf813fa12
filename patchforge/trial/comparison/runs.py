"""Runs the probe (``gpu_probe.py``) in processes of both trees, in turn, and reads the records that they leave."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from patchforge import bounded, documents, faults, processes
from patchforge.errors import PatchforgeError
from patchforge.trial.comparison import gpu_probe
from patchforge.trial.comparison.figures import SIDES, MeasuredRun
from patchforge.trial.model import JsonObject, TrialSide

PROBE = Path(gpu_probe.__file__).resolve()
_LOG_LINES = 15
_LOG_BYTES = 1 << 16
#: (side, number of the pair) -> the probe's record, or RunFailed.
Probe = Callable[[TrialSide, int], JsonObject]
Tell = Callable[[str], None]


class RunFailed(PatchforgeError):
    """A run ended without a record; the text says how, with the end of its log."""


@dataclass(frozen=True)
class Processes:
    """Runs the probe in processes of its own, one after the other, all with the same environment.

    ``folder`` takes the weights, and every run's record and log.
    """

    trees: Mapping[TrialSide, Path]
    case: str
    python: str
    folder: Path
    device: str = "cuda"
    repeats: int = 3
    timeout: float = 300.0
    probe: Path = PROBE

    def __call__(self, side: TrialSide, pair: int) -> JsonObject:
        """One measured run; RunFailed with the end of the log when it leaves no record."""
        return self._run(side, f"{side}-{pair}", "--repeats", str(self.repeats))

    def make_weights(self) -> None:
        """Writes the weights that all runs share, with upstream's own classes; RunFailed when it cannot."""
        if not list(self.folder.glob(f"{self.case}-*.safetensors")):
            self._run(TrialSide.UPSTREAM, "weights", "--make-weights")

    def command(self, side: TrialSide, out: Path) -> list[str]:
        """What is run, but for what is asked of it."""
        what = [str(self.trees[side].resolve()), self.case, str(out)]
        return [self.python, str(self.probe), *what, "--weights", str(self.folder), "--device", self.device]

    def files(self, name: str) -> tuple[Path, Path]:
        """Where a run's record is to appear, and its log; no earlier record is left."""
        out, log = (self.folder / f"{self.case}-{name}.{ending}" for ending in ("json", "log"))
        out.unlink(missing_ok=True)
        return out, log

    def _run(self, side: TrialSide, name: str, *more: str) -> JsonObject:
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
                raise RunFailed(f"no end after {self.timeout:g} s; {_tail(log)}", do="give it more time") from None
        return _record(done.returncode, out, log)

    def environment(self) -> dict[str, str]:
        """What drivers and torch read of this process's; bytecode goes to a folder of its own, never into a tree."""
        own = {"PYTHONPYCACHEPREFIX": str(self.folder.resolve() / "bytecode"), "PYTHONHASHSEED": "0"}
        return processes.environment(own, allow=processes.HARDWARE)


def alternate(probe: Probe, pairs: int, tell: Tell = lambda _line: None) -> list[MeasuredRun]:
    """Runs both sides ``pairs`` times in turn; upstream goes first in even pairs.

    A failed run does not end it, unless both of the first pair fail: then the rest would too.
    """
    runs: list[MeasuredRun] = []
    for pair in range(pairs):
        for side in SIDES if pair % 2 == 0 else SIDES[::-1]:
            try:
                run = MeasuredRun(side, pair, probe(side, pair))
            except RunFailed as error:
                run = MeasuredRun(side, pair, failure=str(error))
            runs.append(run)
            tell(str(run))
        if all(run.record is None for run in runs):
            break
    return runs


def take_turns(processes: Processes, turns: int, tell: Tell = lambda _line: None) -> list[MeasuredRun]:
    """One process of each tree, in turns of a step of sampling or a decoding. Every measured sampling becomes a run.

    Who is first alternates. Both are set up and load their models side by side, and never compute at the same time
    after that. What slows the machine down for longer than a step meets both.
    """
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(_WaitingRun(processes, side, turns)) for side in SIDES]
        going = {process.waits() for process in both} == {True}
        while going:
            going = {process.turn() for process in both} == {True}
            both.reverse()
        runs = [run for process in both for run in process.runs()]
    for run in sorted(runs, key=lambda run: run.pair):
        tell(str(run))
    return runs


class _WaitingRun:
    """A process that takes its turns when it is told to; it ends, at the latest, with the ``with`` block."""

    def __init__(self, runs: Processes, side: TrialSide, turns: int) -> None:
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
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

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
            said = bounded.lines(self.process.stdout) if self.process.stdout else ()
            return any(line.strip() == gpu_probe.READY for line in said)
        finally:
            timer.cancel()

    def _end(self) -> None:
        with self.log.open("a") as log:
            print(f"ended: it did not wait for a turn after {self.timeout:g} s", file=log)
        self.process.kill()

    def runs(self) -> list[MeasuredRun]:
        """A run for each turn, or one failure. A process that waits for another turn is told that none comes."""
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(self.timeout)
            record = _record(self.process.returncode, self.out, self.log)
        except (RunFailed, processes.TimeoutExpired) as error:
            return [MeasuredRun(self.side, 0, failure=faults.reason(error))]
        return [MeasuredRun(self.side, turn, _of_turn(record, turn, self.turns)) for turn in range(self.turns)]


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
        raise RunFailed(f"exit status {status}; {_tail(log)}", do=f"look at {log}")
    return documents.read_json(out, dict[str, Any], do="run this again")


def _tail(log: Path) -> str:
    lines = bounded.tail(log, _LOG_BYTES).strip().splitlines()[-_LOG_LINES:]
    return "the log ends:\n" + "\n".join(f"    {line}" for line in lines)
