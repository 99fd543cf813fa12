"""The suites of torch alone, measured in processes of their own: on the device, and on the CPU where it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from patchforge import bounded, documents, processes, web
from patchforge.bench import memory, probe, statistics
from patchforge.bench.energy import MeterReading
from patchforge.bench.model import Case, Counts, Times
from patchforge.errors import CheckFailed, Damaged
from patchforge.trial.model import Device, TrialVerdict
from patchforge.trial.server import devices
from patchforge.trial.server.comfyui import PACK

Tell = Callable[[str], None]
_PART = "case"
_NO_ENERGY = {"energy": "its runs are too short for the counters"}


@dataclass(frozen=True)
class TorchSide:
    """A device on which cases run; ``beside`` is the one whose environment the process has.

    ``program`` takes the arguments of ``probe.py``, and does what that does.
    """

    name: str
    device: Device
    beside: Device
    python: Path
    log: Path
    timeout: float  #: seconds that one order may take
    program: Path = Path(probe.__file__)
    about: dict[str, Any] = field(default_factory=dict)  #: what the device calls itself, once it has run


class TorchProbe:
    """The process of a side, which does one order after another; CheckFailed where it ends, or takes too long."""

    def __init__(self, side: TorchSide) -> None:
        self.side = side
        with side.log.open("wb") as log:
            self._process = processes.start(
                [side.python, side.program, PACK / "counting.py", side.device.kind],
                stdin=processes.PIPE,
                stdout=processes.PIPE,
                stderr=log,
                text=True,
                env=devices.variables(side.beside) | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
                cwd=side.log.parent,
            )
        self._lines = bounded.lines(self._process.stdout) if self._process.stdout else iter(())

    def __enter__(self) -> Self:
        try:
            about = self._answer().get(probe.READY)
        except BaseException:
            self.__exit__()
            raise
        self.side.about.update(about if isinstance(about, dict) else {})
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):  # an order that nobody reads any more
                    pipe.close()

    def reading(self) -> MeterReading:
        """Of the process's memory."""
        kind = self.side.device.kind if not self.side.device.emulated else "cpu"
        return MeterReading((), memory.gauges(self._process.pid, kind))

    def ask(self, what: str, case: str) -> dict[str, Any]:
        """The answer to an order; CheckFailed where the case cannot be run."""
        if self._process.stdin is None:
            raise CheckFailed("the probe takes no orders")
        try:
            print(json.dumps({"do": what, "case": case}), file=self._process.stdin, flush=True)
        except OSError:
            raise self._ended() from None
        answer = self._answer()
        if "failed" in answer:
            raise CheckFailed(str(answer["failed"])[:500])
        return answer

    def _answer(self) -> dict[str, Any]:
        timer = threading.Timer(self.side.timeout, self._process.kill)
        timer.start()
        try:
            line = next(self._lines, "")
        finally:
            timer.cancel()
        if not line:
            raise self._ended()
        answer = web.parsed(line.encode(), "the probe")
        if not isinstance(answer, dict):
            raise Damaged(
                "the probe answers with something else than an object",
                found=line[:200],
                do="look at its log; please report this",
            )
        return answer

    def _ended(self) -> CheckFailed:
        lines = bounded.head(self.side.log, 1 << 20).strip().splitlines()
        return CheckFailed(f"the process of {self.side.name} ended: {lines[-1][:300] if lines else 'without a word'}")


def measure(sides: Sequence[TorchSide], cases: Sequence[tuple[str, str]], pairs: int, tell: Tell) -> Iterator[Case]:
    """Every case on every side: compared with the CPU in float32, counted, then timed in turns."""
    with ExitStack() as stack:
        tell("starting torch")
        try:
            running = [stack.enter_context(TorchProbe(side)) for side in sides]
        except CheckFailed as error:
            failed = TrialVerdict.FAILED, error.problem
            yield from (Case(suite, name, side.name, *failed) for suite, name in cases for side in sides)
            return
        for suite, name in cases:
            tell(f"measuring {suite} {name}")
            counted = [_counted(probe, suite, name) for probe in running]
            fresh = [pair for pair in zip(running, counted, strict=True) if pair[1].verdict is TrialVerdict.FRESH]
            yield from (case for case in counted if case.verdict is not TrialVerdict.FRESH)
            yield from timed(fresh, name, pairs)


def _counted(probe: TorchProbe, suite: str, name: str) -> Case:
    try:
        seen = probe.ask("check", name)
        verdict, reason = _judged(seen, probe.side)
        counts = {}
        if verdict is TrialVerdict.FRESH:
            answer = probe.ask("count", name).get("counts")
            counts = {_PART: documents.structured(answer, Counts, "what the probe counted")}
    except CheckFailed as error:
        return Case(suite, name, probe.side.name, TrialVerdict.FAILED, error.problem)
    return Case(suite, name, probe.side.name, verdict, reason, counts)


def _judged(seen: Mapping[str, Any], side: TorchSide) -> tuple[TrialVerdict, str]:
    if seen.get("device") != side.device.kind:
        return TrialVerdict.CPU_FALLBACK, f"its result lies on {seen.get('device')}"
    error, allowed = float(seen.get("error", "nan")), float(seen.get("allowed", 0))
    said = f"at most {error:.2g} of the largest value from the CPU's in float32"
    return (TrialVerdict.FRESH, said) if error <= allowed else (TrialVerdict.FAILED, f"{said}; allowed is {allowed:g}")


def timed(turns: Sequence[tuple[TorchProbe, Case]], name: str, pairs: int) -> Iterator[Case]:
    """The cases with their times, in their order: one that cannot be timed is without."""
    if not pairs:
        yield from (replace(case, not_measured={"times": "no runs were asked for"}) for _, case in turns)
        return
    try:
        warm = [_warmed(probe, name) for probe, _ in turns]
        readings = [probe.reading() for probe, _ in turns]
        runs: list[list[float]] = [[] for _ in turns]
        for pair in range(pairs):
            order = list(enumerate(turns))
            for index, (probe, _) in order if pair % 2 == 0 else order[::-1]:
                with readings[index]:
                    runs[index].append(float(probe.ask("time", name)["seconds"]))
    except CheckFailed as error:
        yield from (replace(case, not_measured={"times": error.problem}) for _, case in turns)
        return
    for (_, case), warm_up, seen, reading in zip(turns, warm, runs, readings, strict=True):
        times = Times(tuple(seen), {_PART: tuple(seen)}, tuple(warm_up), statistics.steady(warm_up))
        yield replace(case, times=times, memory=reading.peaks(), not_measured=_NO_ENERGY)


def _warmed(probe: TorchProbe, name: str) -> list[float]:
    seconds: list[float] = []
    while len(seconds) < statistics.WARM_UP and not statistics.steady(seconds):
        seconds.append(float(probe.ask("time", name)["seconds"]))
    return seconds
