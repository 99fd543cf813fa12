"""Every check on the miniature server: it passes on a healthy one, and fails on the one that misbehaves."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import emulator
from emulator import build
from patchforge.trial.model import Device, Judgement, Workflow
from patchforge.trial.server.client import HOST
from patchforge.trial.server.comfyui import ComfyuiServer, link_models
from patchforge.trial.server.environment import Environment
from patchforge.trial.verdicts import checks
from patchforge.trial.verdicts.checks import GIB, MIB, TESTS, ServerBench, run_test
from patchforge.trial.verdicts.plan import Session
from tests.trial import miniature_server
from tests.trial.support import TXT2IMG

MISSING = miniature_server.missing("torch")
EMULATED = pytest.mark.skipif(bool(MISSING or build.missing()), reason=MISSING or build.missing() or "")

SESSION = Session("miniature", "the miniature", tuple(TESTS))
DEVICE = Device("xpu", "b580", "rng=cpu")
ENVIRONMENT = Environment(Path(sys.executable), {}, {})


def server_of(folder: Path, *arguments: str) -> ComfyuiServer:
    made = miniature_server.tree(folder / "tree") if not (folder / "tree").exists() else folder / "tree"
    link_models(folder / "weights", made)
    variables = emulator.environment(DEVICE.emulated, DEVICE.options, base={})
    return ComfyuiServer(made, ENVIRONMENT, arguments=arguments, variables=variables, log=folder / "log", timeout=120)


class Benches:
    """One server for all tests, started again when one of them has ended it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with server_of(folder, "--cpu") as server:
            self.reference = {TXT2IMG.name: server.client.run(TXT2IMG, 60)}
        self.bench: ServerBench | None = None

    def __call__(self, *modes: str) -> ServerBench:
        if self.bench is None or not self.bench.usable():
            self.stop()
            server = server_of(self.folder).__enter__()
            self.bench = ServerBench(server, SESSION, DEVICE, {TXT2IMG.name: TXT2IMG}, self.reference, 60)
        misbehave(self.bench)
        self.bench.client.fault("clear")
        self.bench.client.free()
        checks._until(lambda: self.bench is not None and self.bench.allocated() == 0, 10, "nothing is given back")
        misbehave(self.bench, *modes)
        return self.bench

    def stop(self) -> None:
        if self.bench:
            self.bench.server.stop()


def misbehave(bench: ServerBench, *modes: str) -> None:
    connection = http.client.HTTPConnection(HOST, bench.client.port, timeout=10)
    connection.request("POST", "/misbehave", json.dumps(modes), {"Content-Type": "application/json"})
    assert connection.getresponse().status == http.client.OK
    connection.close()


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Benches]:
    benches = Benches(tmp_path_factory.mktemp("checks"))
    yield benches
    benches.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come in a second does not come."""
    patient = checks._until
    monkeypatch.setattr(checks, "_until", lambda holds, _, reason: patient(holds, 1, reason))


def shown(judged: Judgement) -> tuple[str, str]:
    return judged.verdict.value, judged.reason


ON_A_SERVER = sorted(TESTS.keys() - {"partial-load", "integrated-memory", "second-device", "loads"})


@EMULATED
@pytest.mark.parametrize("name", ON_A_SERVER)
def test_it_passes_on_a_healthy_server(benches: Benches, name: str) -> None:
    judged = run_test(benches(), name)
    assert judged.verdict == "passed", judged.reason
    assert judged.reason
    assert not judged.log


@EMULATED
def test_a_workflow_is_fresh_and_the_second_time_cached(benches: Benches) -> None:
    bench = benches()
    first = run_test(bench, "txt2img")
    assert first.verdict == "fresh", first.reason
    assert "equal to the reference" in first.reason
    assert bench.executions["txt2img"].outputs[0].data.startswith(b"\x89PNG")
    assert shown(run_test(bench, "txt2img")) == (
        "cached",
        "node 2 (KSampler), node 3 (VAEDecode) came out of the cache",
    )


def nearly_full(bench: ServerBench) -> None:
    total = bench.client.state()["devices"][0]["total"]
    bench.fault("other_process", size=total - 20 * MIB)


@EMULATED
def test_a_model_is_loaded_in_part_on_a_full_device(benches: Benches) -> None:
    bench = benches()
    nearly_full(bench)
    judged = run_test(bench, "partial-load")
    assert judged.verdict == "passed", judged.reason
    assert judged.reason.startswith("loaded partially")


@EMULATED
@pytest.mark.parametrize(
    ("name", "mode", "verdict", "reason"),
    [
        ("txt2img", "blind", "cpu_fallback", "node 2 (KSampler) did 0 operations on emulated:b580"),
        ("txt2img", "stub", "failed", "a single colour: a stub result"),
        ("txt2img", "fixed-picture", "failed", "differs from the reference"),
        ("api", "blind", "failed", "/system_stats names cpu, expected xpu"),
        ("api", "accepts-anything", "failed", "a prompt without inputs was error, expected rejected"),
        ("cached", "no-cache", "failed", "is fresh, expected cached"),
        ("two-prompts", "fixed-picture", "failed", "the same picture"),
        ("two-prompts", "stale-cache", "failed", "one of two prompts: cached"),
        ("interrupt", "deaf", "failed", "the prompt ended as success, expected interrupted"),
        ("free", "leaks", "failed", "still allocated"),
        ("two-vendors", "two-kinds", "failed", "/system_stats lists cuda, xpu, expected xpu alone"),
        ("two-vendors", "leaks", "failed", "still allocated"),
        ("other-process", "over-estimates", "failed", "over-estimated"),
        ("memory-info-raises", "trusts-driver", "failed", "/system_stats: status 500"),
        ("memory-info-nonsense", "trusts-driver", "failed", "bytes"),
        ("oom-vae", "no-tiles", "failed", "the prompt ended as error"),
        ("oom-sampling", "blind", "failed", "cpu_fallback"),
        ("oom-sampling", "oom-kills", "failed", "the server or its worker ended"),
        ("device-error", "fragile", "failed", "the prompt worker has ended"),
        ("device-lost", "blind", "failed", "cpu_fallback"),
        ("device-lost", "fragile", "failed", "the prompt worker has ended"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_what_misbehaves_is_caught(benches: Benches, name: str, mode: str, verdict: str, reason: str) -> None:
    assert mode in miniature_server.MODES
    bench = benches(mode)
    judged = run_test(bench, name)
    assert judged.verdict == verdict, judged.reason
    assert reason in judged.reason
    if bench.usable():
        assert benches().fresh()  # neither the fault nor the mode outlasts the test


@EMULATED
def test_a_model_that_is_only_loaded_whole_is_caught(benches: Benches) -> None:
    bench = benches("whole-models")
    nearly_full(bench)
    assert "capacity" in run_test(bench, "partial-load").reason
    bench = benches("whole-models")
    begin = bench.server.printed.end()
    bench.server.log_lines = lambda since=begin: ComfyuiServer.log_lines(bench.server, since)  # type: ignore[method-assign]
    assert "does not say that a model was loaded partially" in run_test(bench, "partial-load").reason
    del bench.server.log_lines


@EMULATED
def test_a_prompt_that_does_not_end(benches: Benches) -> None:
    bench = benches("stuck")
    bench.timeout = 2
    try:
        judged = run_test(bench, "txt2img")
    finally:
        bench.timeout = 60
    assert shown(judged) == ("failed", "the prompt did not end in time")
    assert benches().fresh()


@EMULATED
def test_a_workflow_with_a_node_that_the_release_lacks_is_skipped(benches: Benches) -> None:
    bench = benches()
    graph = {**TXT2IMG.graph, "9": {"class_type": "LaterNode", "inputs": {}}}
    bench.workflows = {"later": Workflow("later", "Later", graph, {"2": 1}, ("4",))}
    try:
        assert shown(run_test(bench, "later")) == ("skipped", "the release has no node LaterNode")
    finally:
        bench.workflows = {TXT2IMG.name: TXT2IMG}


def told(says: dict[str, Any], device: Device = DEVICE) -> ServerBench:
    """A bench whose server says this of itself, and nothing else."""
    client = SimpleNamespace(system_stats=lambda: says, state=lambda: says, fault=lambda *_, **__: None)
    printed = SimpleNamespace(end=lambda: 0)
    server = SimpleNamespace(
        client=client, printed=printed, log_lines=lambda since=0: ("a line", "the last")[since:], alive=False
    )
    return ServerBench(cast("ComfyuiServer", server), SESSION, device, {}, {}, 1)


@pytest.mark.parametrize(("free", "verdict"), [(8 * GIB, "passed"), (9 * GIB, "failed")])
def test_memory_of_an_integrated_gpu(free: int, verdict: str) -> None:
    judged = run_test(told({"system": {"ram_free": 8 * GIB}, "devices": [{"vram_free": free}]}), "integrated-memory")
    assert judged.verdict == verdict
    assert f"told {free >> 20} MiB free on the device, 8192 of RAM" in judged.reason


@pytest.mark.parametrize(
    ("answer", "verdict", "name"),
    [("xpu:1", "passed", "Arc B580"), ("xpu:0", "failed", "Arc A770"), ("xpu", "failed", "Arc A770")],
)
def test_the_second_device(answer: str, verdict: str, name: str) -> None:
    devices = [{"name": "Arc A770"}, {"name": "Arc B580"}]
    judged = run_test(told({"answers": {"get_torch_device": answer}, "devices": devices}), "second-device")
    assert judged.verdict == verdict
    assert name in judged.reason


def test_what_is_missing_in_an_answer_is_told() -> None:
    assert shown(run_test(told({"system": {}, "devices": [{}]}), "integrated-memory")) == (
        "failed",
        "KeyError: 'vram_free'",
    )


@pytest.mark.parametrize("devices", [[], [{"vram_free": None}]])
def test_an_answer_of_another_shape_is_a_failure(devices: list[Any]) -> None:
    judged = run_test(told({"system": {"ram_free": GIB}, "devices": devices}), "integrated-memory")
    assert judged.verdict == "failed"


def test_no_answer_before_a_workflow_is_a_failure() -> None:
    def nobody() -> None:
        raise TimeoutError("timed out")

    bench = told({})
    bench.workflows = {TXT2IMG.name: TXT2IMG}
    bench.client.object_info = nobody  # type: ignore[method-assign,assignment]
    assert run_test(bench, "txt2img").verdict == "failed"


@pytest.mark.parametrize("name", ["other-process", "memory-info-raises"])
def test_faults_on_demand_are_skipped_on_real_hardware(name: str) -> None:
    bench = told({"devices": [{"vram_total": GIB, "vram_free": GIB}]}, Device("xpu"))
    assert shown(run_test(bench, name)) == ("skipped", "faults on demand need the emulated XPU")


def test_seeds_are_shifted_in_a_copy() -> None:
    graph: miniature_server.Graph = {
        "1": {"class_type": "A", "inputs": {"seed": 7, "steps": 7, "of": ["2", 0]}},
        "2": {"class_type": "B", "inputs": {"noise_seed": 1, "other": {"seed": 1}}},
    }
    shifted = checks.reseeded(graph, 3)
    assert shifted["1"]["inputs"] == {"seed": 10, "steps": 7, "of": ["2", 0]}
    assert shifted["2"]["inputs"] == {"noise_seed": 4, "other": {"seed": 1}}
    assert graph["1"]["inputs"]["seed"] == 7


def test_the_node_of_a_class() -> None:
    assert checks.node_of(TXT2IMG.graph, "VAEDecode") == "3"
    with pytest.raises(ValueError, match="unpack"):
        checks.node_of(TXT2IMG.graph, "LoadImage")


def test_workflows_stands_for_each_of_them() -> None:
    known = {"a": TXT2IMG, "b": TXT2IMG}
    assert checks.chosen(("api", "workflows", "free"), known) == ["api", "a", "b", "free"]
