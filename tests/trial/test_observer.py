"""The trial pack's observer in the miniature server, on the emulated XPU and without a device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import emulator
from emulator import build
from patchforge.errors import PatchforgeError
from patchforge.trial.model import Ending
from patchforge.trial.server.comfyui import PACK, ComfyuiServer
from patchforge.trial.server.environment import Environment
from tests.trial.miniature_server import graph, missing, tree

pytestmark = pytest.mark.skipif(bool(missing("torch")), reason=f"needs {missing('torch')}")

ENVIRONMENT = Environment(Path(sys.executable), {}, {})
EMULATED = pytest.mark.skipif(bool(build.missing()), reason=build.missing() or "")


def server_of(folder: Path, *arguments: str, preset: str = "") -> ComfyuiServer:
    """With the observer alone: the pack's nodes need a real ComfyUI."""
    made = tree(folder / "tree")
    pack = made / "custom_nodes" / "observer"
    pack.mkdir()
    for name in ("observer.py", "counting.py", "device.py"):
        (pack / name).write_bytes((PACK / name).read_bytes())
    (pack / "__init__.py").write_text("from . import observer\nobserver.install()\n")
    variables = emulator.environment(preset, base={}) if preset else {"CUDA_VISIBLE_DEVICES": ""}
    return ComfyuiServer(made, ENVIRONMENT, arguments=arguments, variables=variables, log=folder / "log", timeout=120)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyuiServer]:
    with server_of(tmp_path_factory.mktemp("observer"), preset="two") as started:
        yield started


@EMULATED
def test_operations_are_counted_per_node(server: ComfyuiServer) -> None:
    run = server.client.run(graph(operations=50), 60)
    assert run.ending is Ending.SUCCESS
    counted = {step.kind: step.operations for step in run.steps}
    assert 50 <= counted.pop("Compute") <= 60
    assert counted == {"Source": 0, "Save": 0}
    again = server.client.run(graph(operations=50), 60)
    assert all(step.cached and step.operations == 0 for step in again.steps)
    events = [event["event"] for event in server.client.journal(run.prompt)]
    assert events == ["execution_start", "execution_cached", *["executing"] * 3, "execution_success", "executing"]


@EMULATED
def test_a_submitted_prompt_has_its_steps_too(server: ComfyuiServer) -> None:
    run = server.client.wait(server.client.submit(graph(operations=20, value=2)), 60)
    assert {step.kind: step.operations > 10 for step in run.steps} == {"Source": False, "Compute": True, "Save": False}


@EMULATED
def test_the_state(server: ComfyuiServer) -> None:
    state = server.client.state()
    assert (state["emulated"], state["counter"]) == ("two", "operations of the emulated XPU")
    names = [device["name"] for device in state["devices"]]
    assert ["A770" in names[0], "B580" in names[1]] == [True, True]
    first = state["devices"][0]
    assert (first["type"], first["allocated"]) == ("xpu", 0)
    assert 0 < first["free"] <= first["total"]
    assert state["answers"] == {"get_torch_device": "xpu"}
    assert any("prompt_worker" in name for name in state["threads"])
    assert state["runtime"] is False
    assert state["packages"]["torch"] == state["torch"]


@EMULATED
def test_faults(server: ComfyuiServer) -> None:
    client = server.client
    client.fault("fail", error="out-of-device-memory", after=5)
    run = client.run(graph(operations=50, value=3), 60)
    assert run.ending is Ending.ERROR
    assert run.failure
    assert "UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY" in run.failure.message
    client.fault("fail_allocation")
    assert client.run(graph(operations=50, value=4), 60).failure
    client.fault("other_process", size=1 << 30)
    client.fault("memory_info", mode="raises", device=1)
    first, second = client.state()["devices"]
    assert 1 << 30 <= first["total"] - first["free"] < (1 << 30) + (64 << 20)
    assert second["free"] is None
    client.fault("fail_synchronize", error="out-of-resources")
    client.fault("fail_empty_cache", error="out-of-resources")
    client.fault("clear")
    assert client.run(graph(operations=50, value=5), 60).ending is Ending.SUCCESS
    with pytest.raises(PatchforgeError, match="expected one of fail"):
        client.fault("apply")
    with pytest.raises(PatchforgeError, match="out-of-device-memory"):
        client.fault("fail", error="no such error")


@EMULATED
@pytest.mark.parametrize("flag", ["--blind", "--stub"])
def test_work_that_is_not_done_on_the_device_is_not_counted(tmp_path: Path, flag: str) -> None:
    with server_of(tmp_path, flag, preset="b580") as server:
        run = server.client.run(graph(operations=50), 60)
        assert run.ending is Ending.SUCCESS
        assert [step.operations for step in run.steps] == [0, 0, 0]


@EMULATED
def test_a_worker_that_has_ended(tmp_path: Path) -> None:
    with server_of(tmp_path, preset="b580") as server:
        assert server.client.run(graph("worker"), 60).ending is Ending.GONE
        assert server.alive
        assert not any("prompt_worker" in name for name in server.client.state()["threads"])


def test_without_a_device_nothing_is_counted_and_nothing_fails_on_demand(tmp_path: Path) -> None:
    with server_of(tmp_path) as server:
        run = server.client.run(graph(operations=50), 60)
        assert run.ending is Ending.SUCCESS
        assert [step.operations for step in run.steps] == [0, 0, 0]
        state = server.client.state()
        assert (state["devices"], state["counter"], state["operations"], state["emulated"]) == ([], "", None, "")
        with pytest.raises(PatchforgeError, match="no emulated XPU"):
            server.client.fault("clear")


def test_an_error_of_memory(tmp_path: Path) -> None:
    with server_of(tmp_path, "--out-of-memory") as server:
        run = server.client.run(graph(), 60)
        assert run.failure
        assert (run.failure.kind, run.failure.error) == ("Compute", "MemoryError")
