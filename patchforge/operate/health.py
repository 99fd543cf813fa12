"""Whether a ComfyUI that runs is in order: that it answers, that it has its device, that it computes on it.

A server that answers proves nothing of the thread that works on jobs (ComfyUI#15323), and a picture nothing of where it
was computed. So the deep look samples a tiny model through the queue, and asks the pack patchforge-watch what the
device did meanwhile. While somebody else's job runs it does not wait for it: then that job must move.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypedDict

from patchforge import faults
from patchforge.errors import NotChecked
from patchforge.operate.asking import Unusable, document, name_of
from patchforge.operate.comfyui import Stats, Watch, WatchedComfyUI, own_name
from patchforge.operate.records import HealthRecord
from patchforge.trial.model import Device, Ending, Execution, Failure, JsonObject, NodeStep, Workflow
from patchforge.trial.server.client import Client, Rejected
from patchforge.trial.verdicts.judge import judge
from patchforge.trial.workflows import weights

_FIRST, _MOST = 0.02, 0.5  # seconds between looks at a job
_ROOM = 1 << 30  # bytes that must be left
_DIT = "patchforge-sd3.safetensors"
_SAMPLER, _SEEN = "2", "3"
_OPERATIONS = 140  #: that two steps of the model take on the emulated XPU; see trial/workflows/comfyui/index.toml


class HealthProbe(StrEnum):
    """How closely is looked."""

    LIVE = "live"
    READY = "ready"
    DEEP = "deep"


@dataclass(frozen=True, slots=True)
class Health:
    """What was seen. ``busy``: it was not sampled, as a job of somebody's runs and moves."""

    ok: bool
    reason: str
    seconds: float = 0.0
    busy: bool = False
    device: str = ""
    operations: int = 0  #: of the device, while it sampled
    sampled: float = 0.0  #: seconds that the sampler took
    full: bool = False  #: a disk has no room: to start the server again would help nobody


@dataclass(frozen=True)
class Look:
    """How a server is looked at. Times are in seconds.

    ``stalled``: how long a job may stand still. ``allow_cpu``: it is to compute on the CPU. ``disks``: folders that
    must have room.
    """

    url: str
    timeout: float = 60.0
    stalled: float = 600.0
    allow_cpu: bool = False
    disks: tuple[Path, ...] = ()
    clock: Callable[[], float] = time.monotonic
    seeds: Iterator[int] = field(default_factory=lambda: itertools.count(time.time_ns() % (1 << 40)))

    def look(self, probe: HealthProbe) -> Health:
        """What is found; NotChecked where the deep look lacks the pack."""
        begin = self.clock()
        try:
            health = self.seen(probe)
        except Unusable as error:
            health = self._bad(self.says(error))
        return replace(health, seconds=self.clock() - begin)

    def seen(self, probe: HealthProbe) -> Health:
        """As ``look``; Unusable where there is no answer, or none that can be read."""
        looks = {HealthProbe.LIVE: self._live, HealthProbe.READY: self._ready, HealthProbe.DEEP: self._deep}
        return self._full() or looks[probe]()

    def says(self, error: Unusable) -> str:
        """Why there is nothing to judge."""
        return " ".join(f"{self.url} cannot be used: {error}".split())

    def record(self, probe: HealthProbe, health: Health, when: float) -> HealthRecord:
        """For the exporter."""
        return HealthRecord(name_of(self.url), probe.value, health.ok, health.reason, health.seconds, when)

    def _full(self) -> Health | None:
        """A disk without room: jobs run and their pictures are lost."""
        for folder in self.disks:
            try:
                left = shutil.disk_usage(folder).free
            except OSError as error:
                return self._bad(f"{folder} cannot be looked at: {error.strerror}")
            if left < _ROOM:
                return replace(self._bad(f"the disk with {folder} is full: {left >> 20} MiB are left"), full=True)
        return None

    def _live(self) -> Health:
        stats = self._server().stats()
        return Health(ok=True, reason=f"it answers, version {stats['system'].get('comfyui_version', 'not told')}")

    def _ready(self) -> Health:
        server = self._server()
        return self._unfit(stats := server.stats(), server.watch()) or Health(
            ok=True, reason=f"it is ready, on {_device(stats)}", device=_device(stats)
        )

    def _unfit(self, stats: Stats, told: Watch | None) -> Health | None:
        if not stats["devices"]:
            return self._bad("it has no device")
        if any(device.get("lost") for device in stats["devices"]):
            return self._bad("its GPU is lost: every job fails until it is restarted")
        if stats["devices"][0]["type"] == "cpu" and not self.allow_cpu:
            return self._bad("it computes on the CPU: it has found no GPU")
        if told is not None and not told["worker"]:
            return self._bad("the thread that works on jobs has ended: jobs wait for ever")
        return None

    def _deep(self) -> Health:
        server = self._server()
        stats, told = server.stats(), server.watch()
        if told is None:
            raise NotChecked(
                "what the device does cannot be told",
                expected="the pack patchforge-watch in ComfyUI",
                found=f"none at {self.url}/patchforge/watch",
                do="patchforge health --write-pack COMFYUI/custom_nodes, and restart ComfyUI",
            )
        if unfit := self._unfit(stats, told):
            return unfit
        if told["running"] is not None:
            return self._others(told["running"]["seconds"], told["running"]["stalled"], stats)
        return self._sampled(server, stats)

    def _others(self, ran: float, stalled: float, stats: Stats) -> Health:
        """Somebody's job runs: ours would have to wait for it."""
        if stalled > self.stalled:
            return self._bad(f"a job runs for {ran:.0f} s and has not moved for {stalled:.0f}")
        reason = f"a job runs for {ran:.0f} s and moved {stalled:.0f} s ago"
        return Health(ok=True, reason=reason, busy=True, device=_device(stats))

    def _sampled(self, server: WatchedComfyUI, stats: Stats) -> Health:
        client = Client(0, url=self.url, timeout=self.timeout)
        workflow = graph(next(self.seeds))
        begin, pause = self.clock(), _FIRST
        try:
            prompt = client.submit(workflow.graph, own_name())
        except Rejected as error:
            return self._bad(f"it refuses the sample: {error.failure.message}")
        except OSError as error:
            return self._bad(f"it does not take a job: {faults.reason(error)}")
        while True:
            history = self._history(client, prompt)
            if history:
                break
            told = server.watch()
            running = told["running"] if told else None
            if running is not None and running["prompt"] != prompt:  # another one was first
                self._leave(client, prompt, ours=False)
                return self._others(running["seconds"], running["stalled"], stats)
            if self.clock() - begin > self.timeout:
                self._leave(client, prompt, ours=running is not None)
                what = "does not move" if running else "is not begun"
                return self._bad(f"a job that takes a moment {what}, after {self.timeout:g} s")
            time.sleep(pause)
            pause = min(2 * pause, _MOST)
        seconds = self.clock() - begin
        steps = self._steps(workflow, prompt)
        with suppress(OSError):
            client.erase(prompt)
        return self._judged(workflow, _execution(prompt, history, seconds, steps), _values(history), stats)

    def _judged(self, workflow: Workflow, execution: Execution, values: JsonObject, stats: Stats) -> Health:
        verdict = judge(workflow, execution, device=Device(stats["devices"][0]["type"]))
        if not verdict.passed:
            return self._bad(f"{verdict.verdict}: {verdict.reason}")
        if not values.get("finite") or not values.get("deviation"):
            return self._bad(f"what it sampled is not a picture: {values}")
        operations = sum(step.operations for step in execution.steps)
        (sampled,) = (step.seconds for step in execution.steps if step.node == _SAMPLER)
        reason = f"fresh: sampled on {_device(stats)} in {execution.seconds:.1f} s, {operations} operations"
        return Health(ok=True, reason=reason, device=_device(stats), operations=operations, sampled=sampled)

    def _steps(self, workflow: Workflow, prompt: str) -> tuple[NodeStep, ...]:
        told = document(f"{self.url}/patchforge/watch?prompt={prompt}", _Nodes, 10.0)
        ids = {str(node["class_type"]): name for name, node in workflow.graph.items()}
        return tuple(
            NodeStep(ids[node["class_type"]], node["class_type"], cached=False, operations=node["operations"] or 0,
                     seconds=node["seconds"])
            for node in told["nodes"]
            if node["class_type"] in ids
        )  # fmt: skip

    def _history(self, client: Client, prompt: str) -> JsonObject:
        try:
            return client.history(prompt)
        except OSError:  # it may be busy; the deadline decides
            return {}

    def _leave(self, client: Client, prompt: str, *, ours: bool) -> None:
        """Takes our job off the queue, and interrupts it where it is the one that runs."""
        if ours:
            client.give_up(prompt)
        else:
            client.forget(prompt)

    def _server(self) -> WatchedComfyUI:
        return WatchedComfyUI(self.url, min(self.timeout, 10.0))

    def _bad(self, reason: str) -> Health:
        return Health(ok=False, reason=" ".join(reason.split()))


class _Node(TypedDict):
    class_type: str
    seconds: float
    operations: int | None


class _Nodes(TypedDict):
    nodes: list[_Node]


def graph(seed: int) -> Workflow:
    """Two steps with the trial's diffusion transformer, 128 pixels a side, whose weights the pack makes."""
    (model,) = (model for model in weights.WEIGHTS if model.name == _DIT)
    shapes = json.dumps({key: list(shape) for key, shape in model.table().items()})
    probe = {"shapes": shapes, "latent": "[1, 16, 16, 16]", "width": 4096, "pooled": 2048, "seed": 1}
    sampler = {
        "model": ["1", 0],
        "positive": ["1", 1],
        "negative": ["1", 1],
        "latent_image": ["1", 2],
        "seed": seed,
        "steps": 2,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
    }
    nodes: Mapping[str, JsonObject] = {
        "1": {"class_type": "PatchforgeProbe", "inputs": probe},
        _SAMPLER: {"class_type": "KSampler", "inputs": sampler},
        _SEEN: {"class_type": "PatchforgeSeen", "inputs": {"samples": [_SAMPLER, 0]}},
    }
    return Workflow("health", "A tiny model is sampled", nodes, {_SAMPLER: _OPERATIONS}, ())


def _execution(prompt: str, history: JsonObject, seconds: float, steps: tuple[NodeStep, ...]) -> Execution:
    status = history.get("status")
    status = status if isinstance(status, dict) else {}
    failure = next(
        (
            Failure(
                str(data.get("node_id", "")),
                str(data.get("node_type", "")),
                str(data.get("exception_type", "")),
                str(data.get("exception_message", "")),
            )
            for name, data in _messages(status)
            if name == "execution_error"
        ),
        None,
    )
    interrupted = any(name == "execution_interrupted" for name, _ in _messages(status))
    ending = Ending.SUCCESS if status.get("status_str") == "success" else Ending.ERROR
    return Execution(prompt, Ending.INTERRUPTED if interrupted else ending, seconds, steps=steps, failure=failure)


def _messages(status: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    for message in status.get("messages") or ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict):
            yield str(message[0]), message[1]


def _values(history: JsonObject) -> dict[str, Any]:
    """What PatchforgeSeen told; nothing where it did not."""
    value: Any = history.get("outputs")
    for key in (_SEEN, "patchforge"):
        value = value.get(key) if isinstance(value, dict) else None
    return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}


def _device(stats: Stats) -> str:
    return " ".join(stats["devices"][0]["name"].split())[:200] if stats["devices"] else "no device"
