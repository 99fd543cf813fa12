"""Workflows measured on a release's own server: what each node asks of torch, and its time; of fresh runs alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from patchforge import documents
from patchforge.bench import energy, memory, statistics
from patchforge.bench.energy import MeterReading
from patchforge.bench.model import CPU, Case, Counts, Times
from patchforge.bench.quality import quality
from patchforge.bench.suites import WorkflowCase
from patchforge.errors import CheckFailed, Damaged, PatchforgeError
from patchforge.trial.model import Device, Ending, Execution, Judgement, TrialVerdict, Workflow
from patchforge.trial.server import devices
from patchforge.trial.server.comfyui import ComfyuiServer, flags
from patchforge.trial.server.environment import Environment
from patchforge.trial.verdicts import judge
from patchforge.trial.verdicts.checks import reseeded
from patchforge.trial.verdicts.plan import EMULATED_EXACT, EXACT, STEADY
from patchforge.trial.workflows.library import missing

FP32 = "fp32"
LEVEL, LEVELS = "--xpu-level", ("O0", "O1", "O2", "O3")
_ATTENTION = "--use-pytorch-cross-attention"
#: ComfyUI's flags for the types that it computes in.
PRECISIONS = {
    FP32: EXACT,
    "fp16": ("--force-fp16", "--fp16-vae", "--fp16-text-enc", _ATTENTION),
    "bf16": ("--bf16-unet", "--bf16-vae", "--bf16-text-enc", _ATTENTION),
}
_FREEING, _AGAIN = 60.0, 1.0  # seconds
_TIMED = 1000  # seeds of timed runs are above that, so that none is in the cache
_LAST_LINES = 3  # of a log, in a reason

Tell = Callable[..., None]  #: gets what comes now, and a detail


@dataclass
class WorkflowSide:
    """One tree on one device, and what its server is started with."""

    name: str
    tree: Path
    device: Device
    environment: Environment
    log: Path
    timeout: float  #: seconds that one prompt may take
    start_timeout: float
    remove: Sequence[Path] = ()
    timed: bool = True
    precision: str = FP32  #: what it computes in
    level: str = ""  #: of the patches' options, such as O2; "" is their default
    beside: Device | None = None  #: the CPU runs in the environment of this device, so that nothing else differs
    state: Mapping[str, Any] = field(default_factory=dict)  #: what the server says of itself, once it has run

    @property
    def arguments(self) -> tuple[str, ...]:
        """The server's flags, of those that the release has."""
        wanted = [*PRECISIONS[self.precision], *STEADY]
        if self.device.kind == "cuda":
            wanted.append("--disable-cuda-malloc")  # cudaMallocAsync does not count allocations
        if self.device.kind == CPU:
            wanted.append("--cpu")
        if self.device.emulated and self.exact:
            wanted += EMULATED_EXACT
        if self.level:
            wanted.append(f"{LEVEL}={self.level}")
        has = flags(self.tree)
        return tuple(flag for flag in wanted if flag.partition("=")[0] in has)

    @property
    def exact(self) -> bool:
        """Whether it computes as the reference did."""
        return self.precision == FP32 and not self.level

    def server(self) -> ComfyuiServer:
        return ComfyuiServer(
            self.tree,
            self.environment,
            arguments=self.arguments,
            variables=devices.variables(self.beside or self.device),
            log=self.log,
            timeout=self.start_timeout,
            remove=self.remove,
        )


class Running:
    """A side whose server runs from when it is first asked for until the block ends; one that ended is started again.

    CheckFailed or OSError where it does not start, or does not answer.
    """

    def __init__(self, side: WorkflowSide) -> None:
        self.side = side
        self.executions: dict[str, Execution] = {}  #: of counted runs, by workflow
        self._server: ComfyuiServer | None = None
        self._seed = 0
        self.reading = MeterReading(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    @property
    def server(self) -> ComfyuiServer:
        if self._server is None or not self._server.alive:
            self.stop()
            self._server = self.side.server().__enter__()
            self.side.state = self._server.client.state()
        return self._server

    def refer(self, measured: WorkflowCase) -> None:
        """Runs what is compared as a reference for others; where it cannot be run there is none."""
        workflow = measured.compared or measured.workflow
        with suppress(CheckFailed, OSError):
            client = self.server.client
            if not missing(workflow, client.object_info()):
                self.executions[workflow.name] = client.run(workflow, self.side.timeout)

    def counted(self, measured: WorkflowCase, reference: Execution | None) -> Case:
        """The workflow once, from nothing loaded and nothing cached, with everything counted."""
        client, workflow = self.server.client, measured.workflow
        if lacking := missing(workflow, client.object_info()):
            return self.case(measured, TrialVerdict.SKIPPED, f"the release has no node {', '.join(lacking)}")
        less = self._compared(measured, reference) if measured.compared else None
        if less and less.verdict is not TrialVerdict.FRESH:
            return less
        _free(self.server)
        client.count(wanted=True)
        execution = client.run(workflow, self.side.timeout)
        client.count(wanted=False)
        judged = self._judged(workflow, execution, None if less else reference)
        case = self.case(measured, judged.verdict, judged.reason)
        if judged.verdict is not TrialVerdict.FRESH:
            return case
        counts = read_counts(client.counters(execution.prompt), workflow)
        if less:
            case = less
        else:
            self.executions[workflow.name] = execution
            case = with_quality(case, execution, reference)
        return replace(case, counts=counts, pictures=len(execution.outputs), steps=_steps(workflow))

    def _compared(self, measured: WorkflowCase, reference: Execution | None) -> Case:
        """What is less than the workflow, judged in its place against the CPU's, with how near the pictures are."""
        workflow = measured.compared or measured.workflow
        execution = self.executions[workflow.name] = self.server.client.run(workflow, self.side.timeout)
        judged = self._judged(workflow, execution, reference)
        case = self.case(measured, judged.verdict, f"in {_steps(workflow)} of its steps: {judged.reason}")
        return with_quality(case, execution, reference) if judged.verdict is TrialVerdict.FRESH else case

    def begin(self) -> None:
        """From here on energy and memory are those of the next case."""
        pid = self.server.pid
        kind = self.side.device.kind if not self.side.device.emulated else CPU
        meters = energy.meters(kind, pci=memory.addresses(pid))
        self.reading = MeterReading(meters, memory.gauges(pid, kind))

    def timed(self, measured: WorkflowCase) -> dict[str, float]:
        """Seconds by node of a run with new seeds, as the server tells them; CheckFailed where it was not fresh.

        What no seed decides stays in the cache, as for whoever wants one more picture, unless nothing else is computed.
        """
        self._seed += 1
        workflow = measured.workflow
        graph = reseeded(workflow.graph, _TIMED + self._seed)
        computed = {node: least for node, least in workflow.computes.items() if node in _changed(workflow.graph, graph)}
        if measured.cold or not computed:
            computed = dict(workflow.computes)
            _free(self.server)
        with self.reading:
            execution = self.server.client.run(graph, self.side.timeout)
        judged = judge.judge(replace(workflow, computes=computed), execution, device=self.side.device)
        if judged.verdict is not TrialVerdict.FRESH:
            raise CheckFailed(f"{self.side.name} {workflow.name}: {judged.verdict}, {judged.reason}")
        names = _names(workflow)
        return {names[step.node]: step.seconds for step in execution.steps if not step.cached and step.node in names}

    def case(self, measured: WorkflowCase, verdict: TrialVerdict, reason: str) -> Case:
        return Case(measured.suite, measured.name, self.side.name, verdict, reason)

    def _judged(self, workflow: Workflow, execution: Execution, reference: Execution | None) -> Judgement:
        """As ``patchforge test`` judges. With nothing to compare, another seed must give another picture."""
        varied = None
        if reference is None and execution.ending is Ending.SUCCESS:
            other = reseeded(workflow.graph, 1)
            varied = self.server.client.run(other, self.side.timeout) if other != workflow.graph else None
        dtype = workflow.dtype or ("" if self.side.exact else self.side.precision)
        allowed = judge.tolerance(self.side.device, exact=self.side.exact, dtype=dtype)
        return judge.judge(
            workflow, execution, device=self.side.device, reference=reference, tolerance=allowed, varied=varied
        )


def measure(sides: Sequence[WorkflowSide], cases: Sequence[WorkflowCase], pairs: int, tell: Tell) -> Iterator[Case]:
    """Every case on every side: counted, then timed in turns, ``pairs`` times.

    The CPU's side comes first where there is one: its results are the reference of the others. One that is not timed
    has no cases.
    """
    with ExitStack() as stack:
        running = [stack.enter_context(Running(side)) for side in sides]
        first = running[0]
        reference = first.executions if first.side.name == CPU and len(running) > 1 else {}
        if not first.side.timed:
            for case in cases:
                tell(f"the reference, {case.name}")
                first.refer(case)
            first.stop()
            running = running[1:]
        for case in cases:
            counted = []
            for runner in running:
                tell(f"counting {runner.side.name} {case.name}")
                counted.append(_counted(runner, case, None if runner is first else reference.get(case.name)))
            yield from _timed(running, counted, case, pairs, tell)


def _counted(runner: Running, case: WorkflowCase, reference: Execution | None) -> Case:
    try:
        return runner.counted(case, reference)
    except (CheckFailed, OSError) as error:  # it did not start, or does not answer
        return runner.case(case, TrialVerdict.FAILED, _said(error))


def _said(error: Exception) -> str:
    """In one line, with the end of the server's log where the error has it: the log itself goes with the server."""
    if not isinstance(error, PatchforgeError):
        return f"the server does not answer: {error}"
    end = [line.strip() for line in error.found.splitlines() if line.strip()][-_LAST_LINES:]
    return ": ".join([error.problem, *([" / ".join(end)[-500:]] if end else [])])


def _timed(
    running: Sequence[Running], counted: Sequence[Case], measured: WorkflowCase, pairs: int, tell: Tell
) -> Iterator[Case]:
    """The cases with their times; one that is not fresh, or whose runs fail, stays without."""
    turns = [
        (runner, case) for runner, case in zip(running, counted, strict=True) if case.verdict is TrialVerdict.FRESH
    ]
    yield from (case for case in counted if case.verdict is not TrialVerdict.FRESH)
    if not turns or not pairs:
        yield from (
            replace(case, not_measured={**case.not_measured, "times": "no runs were asked for"}) for _, case in turns
        )
        return
    tell(f"timing {measured.name}")
    try:
        warm = [_warmed(runner, measured) for runner, _ in turns]
        for runner, _ in turns:
            runner.begin()
        runs: list[list[dict[str, float]]] = [[] for _ in turns]
        for pair in range(pairs):
            tell(f"timing {measured.name}", f"{pair + 1} of {pairs}")
            order = list(enumerate(turns))
            for index, (runner, _) in order if pair % 2 == 0 else order[::-1]:
                runs[index].append(runner.timed(measured))
    except (CheckFailed, OSError) as error:
        yield from (replace(case, not_measured={**case.not_measured, "times": _said(error)}) for _, case in turns)
        return
    for (runner, case), warm_up, seen in zip(turns, warm, runs, strict=True):
        yield with_readings(replace(case, times=_times(warm_up, seen)), runner.reading)


def with_quality(case: Case, execution: Execution, reference: Execution | None) -> Case:
    """The case with how near its pictures are to the reference's, or why that is not known."""
    if reference is None or reference.ending is not Ending.SUCCESS:
        return replace(
            case, not_measured={**case.not_measured, "quality": "there is no reference of the CPU in float32"}
        )
    try:
        return replace(case, quality=quality(execution.outputs, reference.outputs))
    except CheckFailed as error:
        return replace(case, not_measured={**case.not_measured, "quality": error.problem})


def with_readings(case: Case, reading: MeterReading) -> Case:
    """The case with its energy and memory, or why there is none."""
    lacking = {}
    if not (used := reading.found()):
        lacking["energy"] = "no counter of this device can be read"
    if not (peaks := reading.peaks()):
        lacking["memory"] = "the system does not say what the process holds"
    return replace(case, energy=used, memory=peaks, not_measured={**case.not_measured, **lacking})


def _warmed(runner: Running, measured: WorkflowCase) -> list[float]:
    """Seconds of runs until they are steady, or have been enough."""
    seconds: list[float] = []
    while len(seconds) < statistics.WARM_UP and not statistics.steady(seconds):
        seconds.append(sum(runner.timed(measured).values()))
    return seconds


def _times(warm_up: Sequence[float], runs: Sequence[Mapping[str, float]]) -> Times:
    parts = {part: tuple(run.get(part, 0.0) for run in runs) for part in runs[0]}
    total = tuple(sum(run.values()) for run in runs)
    return Times(total, parts, tuple(warm_up), statistics.steady(warm_up))


def _free(server: ComfyuiServer) -> None:
    """Nothing is loaded and nothing cached afterwards: the answer to /free comes before it is done.

    It is asked for again and again: a worker that just looked whether it is sleeps on, for 1000 seconds.
    """
    deadline = time.monotonic() + _FREEING
    while True:
        server.client.free()
        again = time.monotonic() + _AGAIN
        while time.monotonic() < again:
            if not server.client.state().get("models"):
                return
            time.sleep(0.05)
        if time.monotonic() > deadline:
            raise CheckFailed(
                "ComfyUI does not let its models go",
                expected="none loaded after /free",
                found=f"some, {_FREEING:g} s on",
            )


def read_counts(answer: Mapping[str, Any] | None, workflow: Workflow) -> dict[str, Counts]:
    """What a server says that it counted, checked; Damaged where it says something else. Parts have their class."""
    if not answer:
        raise Damaged(
            f"the server counted nothing of {workflow.name}",
            expected="counts of every node",
            found="none",
            do="look at the log of the server; please report this",
        )
    counts = documents.structured(dict(answer), dict[str, Counts], "what the server counted")
    return {name: counts[node] for node, name in _names(workflow).items() if node in counts}


def _changed(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The nodes of a graph that are others than before, or follow from one."""
    changed = {node for node in after if after[node] != before[node]}
    while more := {node for node in after.keys() - changed if _sources(after[node]) & changed}:
        changed |= more
    return changed


def _sources(node: Mapping[str, Any]) -> set[str]:
    """The nodes whose results a node takes."""
    return {str(value[0]) for value in node["inputs"].values() if isinstance(value, list) and value}


def _steps(workflow: Workflow) -> int:
    """Of all samplers of a graph."""
    return sum(int(node["inputs"].get("steps", 0)) for node in workflow.graph.values())


def _names(workflow: Workflow) -> dict[str, str]:
    """What nodes are called as parts, in their order."""
    nodes = sorted(workflow.graph, key=lambda node: (len(node), node))
    return {node: f"{node} {workflow.graph[node]['class_type']}" for node in nodes}
