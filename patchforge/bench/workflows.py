"""Workflows measured on a release's own server: what each node asks of torch, of runs that are fresh alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchforge import documents
from patchforge.bench.model import CPU, Case, Counts
from patchforge.errors import CheckFailed, Damaged
from patchforge.trial.model import Device, Ending, Execution, Judgement, Verdict, Workflow
from patchforge.trial.server import devices
from patchforge.trial.server.comfyui import Server, flags
from patchforge.trial.server.environment import Environment
from patchforge.trial.verdicts import judge
from patchforge.trial.verdicts.checks import reseeded
from patchforge.trial.verdicts.plan import EXACT, STEADY
from patchforge.trial.workflows.library import missing

SUITE = "workflows"
#: Three that load every kind of model there is, in a few seconds.
QUICK = ("txt2img", "upscale", "interpolation")
_FREEING = 30.0  # seconds

Tell = Callable[[str], None]


@dataclass
class Side:
    """One tree on one device, and what its server is started with."""

    name: str
    tree: Path
    device: Device
    environment: Environment
    log: Path
    timeout: float  #: seconds that one prompt may take
    start_timeout: float
    remove: Sequence[Path] = ()
    beside: Device | None = None  #: the CPU runs in the environment of this device, so that nothing else differs
    state: Mapping[str, Any] = field(default_factory=dict)  #: what the server says of itself, once it has run

    @property
    def arguments(self) -> tuple[str, ...]:
        """The server's flags, of those that the release has."""
        wanted = [*EXACT, *STEADY]
        if self.device.kind == "cuda":
            wanted.append("--disable-cuda-malloc")  # cudaMallocAsync does not count allocations
        if self.device.kind == CPU:
            wanted.append("--cpu")
        has = flags(self.tree)
        return tuple(flag for flag in wanted if flag in has)

    def server(self) -> Server:
        return Server(
            self.tree,
            self.environment,
            arguments=self.arguments,
            variables=devices.variables(self.beside or self.device),
            log=self.log,
            timeout=self.start_timeout,
            remove=self.remove,
        )


@dataclass
class Found:
    """The cases of a side, and what its runs left: the reference of other sides."""

    cases: list[Case] = field(default_factory=list)
    executions: dict[str, Execution] = field(default_factory=dict)


def measure(side: Side, workflows: Sequence[Workflow], reference: Mapping[str, Execution], tell: Tell) -> Found:
    """Every workflow on one server, each from nothing loaded; always a case for each."""
    found = Found()
    left = list(workflows)
    while left:
        try:
            with side.server() as server:
                side.state = server.client.state()
                while left and server.alive:
                    workflow = left.pop(0)
                    tell(f"{side.name} {workflow.name}")
                    case, execution = _one(side, server, workflow, reference.get(workflow.name))
                    found.cases.append(case)
                    if execution is not None:
                        found.executions[workflow.name] = execution
        except (CheckFailed, OSError) as error:  # it did not start, or does not answer
            reason = error.problem if isinstance(error, CheckFailed) else f"the server does not answer: {error}"
            found.cases += [Case(SUITE, one.name, side.name, Verdict.FAILED, reason) for one in left]
            return found
    return found


def _one(side: Side, server: Server, workflow: Workflow, reference: Execution | None) -> tuple[Case, Execution | None]:
    client = server.client
    if lacking := missing(workflow, client.object_info()):
        reason = f"the release has no node {', '.join(lacking)}"
        return Case(SUITE, workflow.name, side.name, Verdict.SKIPPED, reason), None
    _free(server)
    client.count(wanted=True)
    execution = client.run(workflow, side.timeout)
    client.count(wanted=False)
    judged = _judged(side, server, workflow, execution, reference)
    case = Case(SUITE, workflow.name, side.name, judged.verdict, judged.reason)
    if judged.verdict is not Verdict.FRESH:
        return case, execution
    counts = read_counts(client.counters(execution.prompt), workflow)
    return Case(*case.place, judged.verdict, judged.reason, counts), execution


def _judged(
    side: Side, server: Server, workflow: Workflow, execution: Execution, reference: Execution | None
) -> Judgement:
    """As ``patchforge test`` judges. With nothing to compare, another seed must give another picture."""
    varied = None
    if reference is None and execution.ending is Ending.SUCCESS:
        other = reseeded(workflow.graph, 1)
        varied = server.client.run(other, side.timeout) if other != workflow.graph else None
    allowed = judge.tolerance(side.device, dtype=workflow.dtype)
    return judge.judge(workflow, execution, device=side.device, reference=reference, tolerance=allowed, varied=varied)


def _free(server: Server) -> None:
    """Nothing is loaded and nothing cached afterwards: the answer to /free comes before it is done."""
    server.client.free()
    deadline = time.monotonic() + _FREEING
    while server.alive and server.client.state().get("models"):
        if time.monotonic() > deadline:
            raise CheckFailed(
                "ComfyUI does not let its models go",
                expected="none loaded after /free",
                found=f"some, {_FREEING:g} s on",
            )
        time.sleep(0.05)


def read_counts(answer: Mapping[str, Any] | None, workflow: Workflow) -> dict[str, Counts]:
    """What a server says that it counted, checked; Damaged where it says something else. Parts have their class."""
    if not answer:
        raise Damaged(f"the server counted nothing of {workflow.name}", expected="counts of every node", found="none")
    found = documents.structured(dict(answer), dict[str, Counts], "what the server counted")
    kinds = {node: str(value.get("class_type")) for node, value in workflow.graph.items()}
    return {f"{node} {kinds[node]}": found[node] for node in _in_order(kinds) if node in found}


def _in_order(nodes: Mapping[str, str]) -> Iterator[str]:
    return iter(sorted(nodes, key=lambda node: (len(node), node)))
