"""The same over a real ComfyUI, patched, on the emulated XPU: a minute or two. PATCHFORGE_UPSTREAM names a clone.

PATCHFORGE_COMFYUI_PYTHON names an interpreter with the release's requirements; else pip installs them.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator import build
from patchforge import caches
from patchforge.cli import main
from patchforge.operate.health import graph
from patchforge.trial.model import Device, Ending, JsonObject
from patchforge.trial.server import devices
from patchforge.trial.server.client import Client
from patchforge.trial.server.comfyui import ComfyuiServer
from patchforge.trial.server.environment import Environment, existing, prepare
from tests.operate import stack
from tests.operate.stack import Stack
from tests.operate.trees import Machine
from tests.support import ROOT

RELEASE = "v0.32.0"

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.xdist_group("upstream"),
    pytest.mark.skipif(not os.environ.get("PATCHFORGE_UPSTREAM"), reason="PATCHFORGE_UPSTREAM names no clone"),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="this interpreter has no torch"),
    pytest.mark.skipif(bool(build.missing()), reason=build.missing() or ""),
    pytest.mark.skipif(bool(stack.MISSING), reason=f"not installed: {', '.join(stack.MISSING)}"),
]

#: A pack that does everything wrong.
MISFIT = '''
import os
import time

import torch


class _Node:
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "run"
    CATEGORY = "misfit"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "samples": ("LATENT",), "seed": ("INT", {"default": 0})}}


class MisfitFail(_Node):
    def run(self, model, samples, seed):
        raise RuntimeError("it fails, as it should")


class MisfitOnCpu(_Node):
    """As a pack does that knows CUDA only."""

    def run(self, model, samples, seed):
        noise = torch.randn(samples["samples"].shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
        return ({"samples": noise},)


class MisfitHang(_Node):
    def run(self, model, samples, seed):
        while os.path.exists(os.environ["MISFIT_HANGS"]):
            time.sleep(0.1)
        return (samples,)


class MisfitLose(_Node):
    def run(self, model, samples, seed):
        from emulator import faults

        faults.fail("device-lost")
        return (samples,)


NODE_CLASS_MAPPINGS = {one.__name__: one for one in (MisfitFail, MisfitOnCpu, MisfitHang, MisfitLose)}
'''


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    if python := os.environ.get("PATCHFORGE_COMFYUI_PYTHON"):
        return existing(Path(python))
    requirements = (tmp_path / "ComfyUI" / "requirements.txt").read_bytes()
    return prepare(
        requirements, Path(sys.executable), caches.folder("trial"), tell=print, timeout=3600, lean=True,
        torch_companions=True, building=False,
    )  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The patched release, with the pack that watches, as a user makes them."""
    place = tmp_path / "ComfyUI"
    assert main(["apply", RELEASE, "--to", str(place)]) in (0, 69)  # 69: the clone lacks files that nothing here needs
    assert main(["health", "--write-pack", str(place / "custom_nodes")]) == 0
    misfit = place / "custom_nodes" / "misfit"
    misfit.mkdir()
    (misfit / "__init__.py").write_text(MISFIT)
    return place


@pytest.fixture
def server(tree: Path, tmp_path: Path, environment: Environment) -> Iterator[ComfyuiServer]:
    hangs = {"MISFIT_HANGS": str(tmp_path / "hangs")}
    variables = {**devices.variables(Device("xpu", "b580", devices.OPTIONS)), **hangs}
    with ComfyuiServer(tree, environment, variables=variables, log=tmp_path / "comfyui.log", timeout=300) as started:
        yield started


def job(seed: int, kind: str = "") -> dict[str, JsonObject]:
    """A sample, or a node of the misfit's in the sampler's place."""
    made = copy.deepcopy(dict(graph(seed).graph))
    if kind:
        made["2"] = {"class_type": kind, "inputs": {"model": ["1", 0], "samples": ["1", 2], "seed": seed}}
    return made


def health(url: str, state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchforge", "health", url, "--state", str(state), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def validate(url: str, state: Path) -> int:
    """Without doctor, which knows that this machine has no Intel GPU."""
    script = (
        "import sys\nfrom patchforge.commands import validate\nfrom patchforge.operate.validation import Check\n"
        "validate._doctor = lambda _: Check('doctor', True, '')\nfrom patchforge.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", script, "validate", url, "--state", str(state)], cwd=ROOT, check=False
    ).returncode


def test_a_real_comfyui(server: ComfyuiServer, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.b580()
    (state := tmp_path / "state").mkdir()
    client = Client(server.client.port, timeout=60)  # without the trial's own pack
    of = Stack(tmp_path)
    with of.running("--root", str(machine.root), "--comfyui", client.url, "--state", str(state)):
        _in_order(of, client, state)
        _out_of_order(of, client, state, tmp_path / "hangs")
        server.stop()
        of.fires("ComfyUIDown")
        assert health(client.url, state, "--live").returncode == 1
    with server:  # as systemd starts it again
        assert validate(server.client.url, state) == 0
        assert validate(server.client.url, state) == 0
    (good,) = state.glob("good-*.json")
    assert len(json.loads(good.read_text())["seconds"]) == 12
    wanted = {"ComfyUIFailureRate", "ComfyUICpuFallback", "ComfyUIStuck", "ComfyUIUnhealthy", "ComfyUIDeviceLost"}
    assert of.seen.keys() == wanted | {"ComfyUIDown"}


def _in_order(of: Stack, client: Client, state: Path) -> None:
    looked = health(client.url, state, "--deep", "--timeout", "120")
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert looked.stdout.startswith("ok  fresh: sampled on "), looked.stdout
    for seed in (1, 2, 3):
        assert client.run(job(seed), 120).ending is Ending.SUCCESS
    of.until(lambda: of.value('comfyui_jobs_total{status="completed"}') == 3, "three jobs are counted")
    of.until(lambda: (of.value('comfyui_node_runs_total{class_type="KSampler"}') or 0) == 4, "and the sample's node")
    assert (of.value('comfyui_node_operations_total{class_type="KSampler"}') or 0) >= 4 * 140
    assert of.value('comfyui_cpu_fallbacks_total{class_type="KSampler"}') == 0
    assert (of.value("comfyui_job_duration_seconds_sum") or 0) > 0
    assert of.value('comfyui_device_info{type="xpu"}') == 1
    of.until(lambda: of.value("comfyui_worker_alive") == 1, "the worker is seen")
    assert of.seen == {}


def _out_of_order(of: Stack, client: Client, state: Path, hangs: Path) -> None:
    for seed in (1, 2, 3, 4):
        assert client.run(job(seed, "MisfitFail"), 60).ending is Ending.ERROR
    of.fires("ComfyUIFailureRate")
    assert client.run(job(1, "MisfitOnCpu"), 60).ending is Ending.SUCCESS
    of.fires("ComfyUICpuFallback")
    assert of.value('comfyui_cpu_fallbacks_total{class_type="MisfitOnCpu"}') == 1
    hangs.touch()
    prompt = client.submit(job(1, "MisfitHang"))
    of.fires("ComfyUIStuck")
    assert health(client.url, state, "--ready").returncode == 0  # it answers as if nothing were wrong
    looked = health(client.url, state, "--deep", "--stalled", "3")
    assert looked.returncode == 1
    assert "has not moved for" in looked.stdout
    of.fires("ComfyUIUnhealthy")
    hangs.unlink()
    assert client.wait(prompt, 60).ending is Ending.SUCCESS
    client.run(job(9, "MisfitLose"), 60)
    assert client.run(job(10), 60).ending is Ending.ERROR
    of.fires("ComfyUIDeviceLost")
    assert "lost" in health(client.url, state).stdout
