"""The tests of a session: workflows, API, memory and recovery. Each takes a bench and gives a judgement."""

from __future__ import annotations

import copy
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from patchforge.errors import PatchforgeError
from patchforge.trial.model import Device, Ending, Execution, Judgement, TrialVerdict, Workflow
from patchforge.trial.server.client import Client
from patchforge.trial.server.comfyui import ComfyuiServer
from patchforge.trial.verdicts import judge
from patchforge.trial.verdicts.plan import Session
from patchforge.trial.workflows.library import missing

MIB = 1 << 20
GIB = 1 << 30
_LOG_LINES = 12

Graph = dict[str, dict[str, Any]]


class Unmet(Exception):
    """Something that the test asks for does not hold."""


class NotTestable(Exception):
    """The test cannot be run on this device or release; the text says why."""


@dataclass
class ServerBench:
    """A running server and what its tests need."""

    server: ComfyuiServer
    session: Session
    device: Device  #: as the session has it
    workflows: Mapping[str, Workflow]
    reference: Mapping[str, Execution]  #: by workflow; empty where nothing can be compared
    timeout: float  #: seconds that one prompt may take
    executions: dict[str, Execution] = field(default_factory=dict)  #: by test; what the evidence keeps pictures of
    seeds: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def client(self) -> Client:
        return self.server.client

    def run(self, workflow: Workflow, shift: int = 0) -> Execution:
        """Runs a workflow to its end, with its seeds shifted."""
        return self.client.run(reseeded(workflow.graph, shift), self.timeout)

    def fresh(self, name: str = "txt2img") -> Execution:
        """A run with a new seed that must be computed on the device; Unmet otherwise."""
        execution = self.run(self.workflows[name], next(self.seeds))
        judged = self.judge(self.workflows[name], execution)
        if not judged.passed:
            raise Unmet(f"a following prompt: {judged.verdict}, {judged.reason}")
        return execution

    def warm(self) -> None:
        """Loads models, where none are."""
        if self.allocated() < MIB:
            self.fresh()

    def judge(
        self,
        workflow: Workflow,
        execution: Execution,
        reference: Execution | None = None,
        varied: Execution | None = None,
    ) -> Judgement:
        """The verdict on a run; compared with a reference, or with a run of other seeds, where there is one."""
        allowed = judge.tolerance(self.device, exact=self.session.exact, dtype=workflow.dtype)
        return judge.judge(
            workflow, execution, device=self.device, reference=reference, tolerance=allowed, varied=varied
        )

    def usable(self) -> bool:
        """Whether the server can take another test: it lives, and so does the thread that works through its queue."""
        return self.server.alive and _worker_lives(self)

    def can_fail(self) -> None:
        """NotTestable on real hardware."""
        if not self.device.emulated:
            raise NotTestable("faults on demand need the emulated XPU")

    def fault(self, name: str, **arguments: object) -> None:
        """Sets a fault of the emulated XPU; NotTestable on real hardware."""
        self.can_fail()
        self.client.fault(name, **arguments)

    def allocated(self) -> int:
        """Bytes that torch has allocated on all devices of this kind."""
        return sum(int(device["allocated"]) for device in self.client.state()["devices"])


Test = Callable[[ServerBench], str]
TESTS: dict[str, Test] = {}


def test(function: Test) -> Test:
    """Registers a test, named with hyphens. It returns what it saw, in a line, or raises Unmet or NotTestable."""
    TESTS[function.__name__.replace("_", "-")] = function
    return function


def run_test(bench: ServerBench, name: str) -> Judgement:
    """One test, a workflow's name among them; always a judgement."""
    started = time.monotonic()
    begin = bench.server.printed.end()
    try:
        if name in bench.workflows:
            return _workflow(bench, bench.workflows[name])
        verdict, reason = TrialVerdict.PASSED, TESTS[name](bench)
    except NotTestable as error:
        verdict, reason = TrialVerdict.SKIPPED, str(error)
    except Unmet as error:
        verdict, reason = TrialVerdict.FAILED, str(error)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, PatchforgeError) as error:
        verdict, reason = TrialVerdict.FAILED, f"{type(error).__name__}: {error}"
    log = () if verdict is not TrialVerdict.FAILED else bench.server.log_lines(begin)[-_LOG_LINES:]
    if bench.device.emulated and bench.server.alive:
        with suppress(OSError):  # it may just have ended
            bench.client.fault("clear")
    return Judgement(name, verdict, reason, time.monotonic() - started, log=log)


def _workflow(bench: ServerBench, workflow: Workflow) -> Judgement:
    lacking = missing(workflow, bench.client.object_info())
    if lacking:
        return Judgement(workflow.name, TrialVerdict.SKIPPED, f"the release has no node {', '.join(sorted(lacking))}")
    execution = bench.executions[workflow.name] = bench.run(workflow)
    reference = bench.reference.get(workflow.name)
    shift = next(bench.seeds)
    # with nothing to compare, a fixed picture shows by being the same with other seeds
    varies = reference is None and reseeded(workflow.graph, shift) != workflow.graph
    return bench.judge(workflow, execution, reference, bench.run(workflow, shift) if varies else None)


def reseeded(graph: Mapping[str, Mapping[str, Any]], shift: int) -> Graph:
    """The graph with every seed shifted, so that nothing of it is cached."""
    changed: Graph = copy.deepcopy({key: dict(node) for key, node in graph.items()})
    for node in changed.values():
        for name in ("seed", "noise_seed"):
            if isinstance(node["inputs"].get(name), int):
                node["inputs"][name] += shift
    return changed


def node_of(graph: Mapping[str, Mapping[str, Any]], kind: str) -> str:
    """The id of the only node of a class."""
    (node,) = (name for name, entry in graph.items() if entry["class_type"] == kind)
    return node


def _ask(held: object, reason: str) -> None:
    if not held:
        raise Unmet(reason)


def _first_device(bench: ServerBench) -> dict[str, Any]:
    device: dict[str, Any] = bench.client.system_stats()["devices"][0]
    return device


@test
def api(bench: ServerBench) -> str:
    """The endpoints answer, the device is the one asked for, and a wrong prompt is refused."""
    device = _first_device(bench)
    _ask(device["type"] == bench.device.kind, f"/system_stats names {device['type']}, expected {bench.device.kind}")
    _ask("KSampler" in bench.client.object_info(), "/object_info has no KSampler")
    queue = bench.client.queue()
    _ask(queue == {"queue_running": [], "queue_pending": []}, f"the queue of a new server holds {queue}")
    refused = bench.client.run({"1": {"class_type": "KSampler", "inputs": {}}}, bench.timeout)
    _ask(refused.ending is Ending.REJECTED, f"a prompt without inputs was {refused.ending}, expected rejected")
    return f"device {device['name']}"


@test
def loads(bench: ServerBench) -> str:
    """The session's node pack is imported, and something is known of each of its nodes."""
    pack = bench.session.pack
    module = f"custom_nodes.{pack}"
    count = sum(node.get("python_module") == module for node in bench.client.object_info().values())
    log = "\n".join(bench.server.log_lines())
    errors = re.findall(rf"[/\\]{re.escape(pack)}(?: module for custom nodes)?: (.+)", log)
    unknown = re.findall(r"retrieving information for the '(.+)' node", log)
    wrong = [*errors, *([f"nothing is known of {', '.join(unknown)}"] if unknown else [])]
    _ask(count and not wrong, "; ".join([*wrong, f"{count} nodes"]))
    return f"{count} nodes"


@test
def cached(bench: ServerBench) -> str:
    """The same prompt again is told from a computed one."""
    workflow = bench.workflows["txt2img"]
    shift = next(bench.seeds)
    bench.run(workflow, shift)
    again = bench.judge(workflow, bench.run(workflow, shift))
    _ask(
        again.verdict is TrialVerdict.CACHED,
        f"the same prompt again is {again.verdict}, expected cached: {again.reason}",
    )
    return "the same prompt again is recognised as cached"


@test
def two_prompts(bench: ServerBench) -> str:
    """Two prompts that wait at once are both computed, each its own picture."""
    workflow = bench.workflows["txt2img"]
    graphs = [reseeded(workflow.graph, next(bench.seeds)) for _ in range(2)]
    names = [bench.client.submit(graph) for graph in graphs]
    runs = [bench.client.wait(name, bench.timeout) for name in names]
    for run in runs:
        judged = bench.judge(workflow, run)
        _ask(judged.passed, f"one of two prompts: {judged.verdict}, {judged.reason}")
    _ask(runs[0].outputs[0].data != runs[1].outputs[0].data, "both prompts gave the same picture")
    return "both computed, with different pictures"


@test
def interrupt(bench: ServerBench) -> str:
    """A running prompt ends when it is interrupted, and the next one is computed."""
    graph = reseeded(bench.workflows["txt2img"].graph, next(bench.seeds))
    sampler = node_of(graph, "KSampler")
    graph[sampler]["inputs"]["steps"] = 1000
    prompt = bench.client.submit(graph)
    _until(lambda: _has_started(bench, prompt, sampler), 60, "the sampler did not start")
    asked = time.monotonic()
    bench.client.interrupt()
    ended = bench.client.wait(prompt, 60)
    _ask(ended.ending is Ending.INTERRUPTED, f"the prompt ended as {ended.ending}, expected interrupted")
    took = time.monotonic() - asked
    bench.fresh()
    return f"ended {took:.1f} s after it was asked to"


def _has_started(bench: ServerBench, prompt: str, node: str) -> bool:
    return any(event["node"] == node for event in bench.client.journal(prompt))


def _until(holds: Callable[[], bool], seconds: float, reason: str) -> None:
    end = time.monotonic() + seconds
    while not holds():
        _ask(time.monotonic() < end, f"{reason} in {seconds:g} s")
        time.sleep(0.1)


@test
def free(bench: ServerBench) -> str:
    """After /free the device holds what it held before the first model was loaded."""
    bench.fresh()
    loaded = bench.allocated()
    bench.client.free()
    slack = MIB if bench.device.emulated else 128 * MIB
    if loaded <= slack:
        raise NotTestable(
            f"torch had {loaded >> 20} MiB allocated: too little to tell (dynamic VRAM keeps weights elsewhere)"
        )
    _until(lambda: bench.allocated() <= slack, 30, f"{bench.allocated() >> 20} MiB are still allocated, no end of it")
    bench.fresh()
    return f"{loaded >> 20} MiB given back"


@test
def other_process(bench: ServerBench) -> str:
    """Free memory is not over-estimated while another process holds most of the device."""
    device = _first_device(bench)
    taken = int(device["vram_total"] * 0.7)
    bench.fault("other_process", size=taken)
    state = bench.client.state()["devices"][0]
    honest = int(state["free"]) + int(state["reserved"]) - int(state["allocated"])
    told = int(_first_device(bench)["vram_free"])
    seen = f"told {told >> 20} MiB free, the driver and torch's cache have {honest >> 20}"
    _ask(told <= honest + MIB, f"{seen}: over-estimated")
    return seen


@test
def memory_info_raises(bench: ServerBench) -> str:
    """A driver that cannot tell its free memory (pytorch#157989) stops nothing."""
    bench.fault("memory_info", mode="raises")
    device = _first_device(bench)
    told = int(device["vram_free"])
    _ask(told <= int(device["vram_total"]), f"told {told >> 20} MiB free, more than there is")
    bench.fresh()
    return f"told {told >> 20} MiB free, a prompt computed"


@test
def memory_info_nonsense(bench: ServerBench) -> str:
    """A driver that tells more free memory than there is (pytorch#161381) is not believed."""
    bench.fault("memory_info", mode="nonsense")
    device = _first_device(bench)
    _ask(device["vram_free"] <= device["vram_total"], f"{device['vram_free']} free of {device['vram_total']} bytes")
    bench.fresh()
    return f"told {device['vram_free'] >> 20} MiB free of {device['vram_total'] >> 20}"


@test
def oom_sampling(bench: ServerBench) -> str:
    """Out of memory while sampling: the queue goes on."""
    bench.can_fail()
    bench.warm()
    bench.fault("fail_allocation", after=40)
    run = bench.run(bench.workflows["txt2img"], next(bench.seeds))
    judged = bench.judge(bench.workflows["txt2img"], run)
    _ask(judged.verdict is TrialVerdict.CAPACITY, f"the prompt: {judged.verdict}, {judged.reason}")
    bench.fault("clear")
    bench.fresh()
    return "recognised as such, and the next prompt was computed"


@test
def oom_vae(bench: ServerBench) -> str:
    """Level Zero's out-of-memory error while decoding: ComfyUI's own remedy, decoding in tiles, is used."""
    bench.can_fail()
    shift = next(bench.seeds)
    decode, usual = _decode_flipped(bench, shift, "y-axis: horizontally")
    _ask(usual.ending is Ending.SUCCESS, f"decoding undisturbed: {usual.ending}")
    operations = _operations(usual, decode)
    bench.fault("fail", error="out-of-device-memory", after=max(1, operations // 2))
    _, tiled = _decode_flipped(bench, shift, "x-axis: vertically")
    said = tiled.failure.message.strip().splitlines()[0] if tiled.failure else ""
    _ask(tiled.ending is Ending.SUCCESS, f"the prompt ended as {tiled.ending} {said}")
    _ask(
        _operations(tiled, decode) > operations,
        f"{_operations(tiled, decode)} operations for the disturbed decoding, {operations} undisturbed: no fault seen",
    )
    return "decoded again, in tiles"


def _decode_flipped(bench: ServerBench, shift: int, flip: str) -> tuple[str, Execution]:
    """txt2img whose latent is flipped before it is decoded: with the sampler cached, only decoding is left to do."""
    graph = reseeded(bench.workflows["txt2img"].graph, shift)
    decode = node_of(graph, "VAEDecode")
    graph["flip"] = {
        "class_type": "LatentFlip",
        "inputs": {"samples": graph[decode]["inputs"]["samples"], "flip_method": flip},
    }
    graph[decode]["inputs"]["samples"] = ["flip", 0]
    return decode, bench.client.run(graph, bench.timeout)


def _operations(execution: Execution, node: str) -> int:
    return sum(step.operations for step in execution.steps if step.node == node)


@test
def device_error(bench: ServerBench) -> str:
    """A device error, and then one while waiting for the device (pytorch#190972): the worker lives and goes on."""
    bench.can_fail()
    bench.warm()
    bench.fault("fail", error="out-of-resources", after=100)
    run = bench.run(bench.workflows["txt2img"], next(bench.seeds))
    _ask(run.ending is Ending.ERROR, f"the prompt ended as {run.ending}, expected error")
    bench.fault("fail_synchronize", error="out-of-resources")
    bench.client.free()
    time.sleep(2)
    bench.fault("clear")
    _ask(_worker_lives(bench), "the prompt worker has ended")
    bench.fresh()
    return "the worker lives, the next prompt was computed"


@test
def device_lost(bench: ServerBench) -> str:
    """A lost device ends the prompt, not the server; when it is back, prompts are computed."""
    bench.can_fail()
    bench.warm()
    bench.fault("fail", error="device-lost", after=100)
    lost = bench.run(bench.workflows["txt2img"], next(bench.seeds))
    _ask(lost.ending is Ending.ERROR, f"the prompt ended as {lost.ending}, expected error")
    time.sleep(1)
    bench.fault("clear")
    _ask(_worker_lives(bench), "the prompt worker has ended")
    bench.fresh()
    return "the worker lives, the next prompt was computed"


def _worker_lives(bench: ServerBench) -> bool:
    try:
        return any("prompt_worker" in name for name in bench.client.state()["threads"])
    except OSError:
        return False


@test
def partial_load(bench: ServerBench) -> str:
    """A model larger than the device is loaded in part, and gives the same result."""
    judged = _workflow(bench, bench.workflows["txt2img"])
    _ask(judged.passed, f"{judged.verdict}, {judged.reason}")
    told = [line for line in bench.server.log_lines() if "loaded partially" in line]
    _ask(told, "the log does not say that a model was loaded partially")
    return told[-1].strip()


@test
def integrated_memory(bench: ServerBench) -> str:
    """An integrated GPU has no more free memory than the machine."""
    stats = bench.client.system_stats()
    told, ram = int(stats["devices"][0]["vram_free"]), int(stats["system"]["ram_free"])
    seen = f"told {told >> 20} MiB free on the device, {ram >> 20} of RAM"
    _ask(told <= ram + 64 * MIB, f"{seen}: over-estimated")
    return seen


@test
def second_device(bench: ServerBench) -> str:
    """--cuda-device 1 takes the second Intel GPU."""
    state = bench.client.state()
    index = int(str(state["answers"]["get_torch_device"]).partition(":")[2] or 0)
    name = str(state["devices"][index]["name"])
    _ask("B580" in name, f"the device is {name}, expected the second one, a B580")
    return name


@test
def two_vendors(bench: ServerBench) -> str:
    """With CUDA and XPU in one torch every answer is about the GPU in use, and its memory is given back."""
    kinds = {device["type"] for device in bench.client.system_stats()["devices"]}
    _ask(kinds == {"xpu"}, f"/system_stats lists {', '.join(sorted(kinds))}, expected xpu alone")
    return free(bench)


def chosen(names: Sequence[str], workflows: Mapping[str, Workflow]) -> list[str]:
    """The names of single tests: ``workflows`` stands for each of them."""
    return [test for name in names for test in (workflows if name == "workflows" else [name])]
