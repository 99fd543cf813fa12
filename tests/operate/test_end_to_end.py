"""Real Prometheus, real Alertmanager and the exporter, over a small ComfyUI, a small Ollama and a tree of two GPUs."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from patchforge.operate import records
from patchforge.operate.metrics import METRICS, MetricKind
from patchforge.operate.panels import PANELS
from patchforge.operate.records import MaintenanceRecord, ValidationRecord
from tests.operate import stack, trees
from tests.operate.servers import GIB, FakeComfyUI, FakeOllama
from tests.operate.stack import Stack
from tests.operate.trees import A770, B580, Machine
from tests.support import ROOT

pytestmark = pytest.mark.skipif(bool(stack.MISSING), reason=f"not installed: {', '.join(stack.MISSING)}")


@contextmanager
def time_passes(machine: Machine) -> Iterator[None]:
    """Energy is used, and engines work, as long as the block runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.3):
            machine.pass_time(0.3)
            ticks = int(machine.now * 1000)
            machine.process(40, trees.COMFYUI, trees.xe(B580, 1, ticks // 2, ticks))
            machine.process(41, trees.OLLAMA, trees.i915(A770, 1, int(machine.now * 3e8), vram_kib=4 << 20))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def certificate(path: Path, days: int, key: Path | None = None) -> Path:
    """One that signs itself; ``key``: where its key goes."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    made_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "comfyui.example")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(made_key.public_key())
    made = made.serial_number(1).not_valid_before(now - dt.timedelta(days=80))
    made = made.not_valid_after(now + dt.timedelta(days=days))
    path.write_bytes(made.sign(made_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    if key:
        plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
        key.write_bytes(made_key.private_bytes(serialization.Encoding.PEM, form, plain))
    return path


def health(comfyui: FakeComfyUI, state: Path) -> int:
    words = ["health", comfyui.url, "--deep", "--timeout", "3", "--stalled", "2", "--state", str(state)]
    return subprocess.run([sys.executable, "-m", "patchforge", *words], cwd=ROOT, check=False).returncode


def test_what_should_fire_does_and_nothing_else(comfyui: FakeComfyUI, ollama: FakeOllama, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.a770()
    for reason in (machine.root / "sys").rglob("throttle_reason_*"):
        trees.put(reason, 0)
    b580 = machine.b580()
    machine.held(trees.COMFYUI, B580, 6 * GIB)
    state = tmp_path / "state"
    state.mkdir()
    records.write(state, "maintenance", "", MaintenanceRecord(ok=True, freed=5, when=time.time()))
    validation = ValidationRecord(comfyui.name, ok=True, reason="", ratio=1.01, regressed=False, when=time.time())
    records.write(state, "validation", comfyui.name, validation)
    ollama.models = {"qwen3:8b": (6 * GIB, 6 * GIB)}
    of = Stack(tmp_path)
    arguments = ["--root", str(machine.root), "--comfyui", comfyui.url, "--ollama", ollama.url, "--state", str(state)]
    arguments += ["--disk", "/dev/shm", "--certificate", str(certificate(tmp_path / "cert.pem", 60))]
    with time_passes(machine), of.running(*arguments):
        _quiet(of, comfyui, state)
        _jobs_fire(of, comfyui, state)
        machine.reset(b580)
        trees.put(b580 / "hwmon/hwmon5/temp2_input", 99000)
        ollama.models = {"qwen3:8b": (6 * GIB, 2 * GIB)}
        comfyui.be.lost = True
        of.fires("GpuEngineReset", "GpuHot", "OllamaOnCpu", "ComfyUIDeviceLost")
        comfyui.be.answer = "garbage"
        (machine.root / "sys/class/drm/card0").unlink()
        of.fires("ComfyUIDown", "GpuMissing")
        wanted = {"ComfyUIFailureRate", "ComfyUICpuFallback", "ComfyUIUnhealthy", "ComfyUIStuck", "GpuEngineReset"}
        wanted |= {"GpuHot", "OllamaOnCpu", "ComfyUIDeviceLost", "ComfyUIDown", "GpuMissing"}
        assert of.seen.keys() <= wanted
        for texts in of.seen.values():
            assert "<error" not in " ".join(texts.values())
            assert "{{" not in " ".join(texts.values())
            assert (ROOT / texts["runbook"].partition("#")[0]).is_file()


def _quiet(of: Stack, comfyui: FakeComfyUI, state: Path) -> None:
    """Jobs run, health is looked at, and nobody is told."""
    assert health(comfyui, state) == 0
    of.until(lambda: of.value("comfyui_up") == 1, "ComfyUI is seen")
    for kind in ("KSampler", "KSampler", "SaveImage"):
        comfyui.wait(comfyui.submit(kind))
    of.until(lambda: of.value('comfyui_jobs_total{status="completed"}') == 3, "three jobs are counted")
    of.until(lambda: of.query("rate(comfyui_node_seconds_total[5m]) > 0"), "nodes are counted")
    of.until(lambda: of.query("hw_power_watts"), "power is known")
    time.sleep(3)  # rules are evaluated every second, and wait for two
    assert of.received() == {}
    _all_told(of, firing=False)
    told = {
        name
        for metric in METRICS
        for name in (f"{metric.name}_count" if metric.kind is MetricKind.HISTOGRAM else metric.name,)
    }
    assert of.seen == {}
    lacks = {name for name in told if not of.query(name)}
    assert lacks == {"patchforge_service_vram_limit_bytes"}  # no unit has a limit


def _all_told(of: Stack, *, firing: bool) -> None:
    """Every panel's queries have an answer: those of alerts where one fires, and all others."""
    for panel in PANELS:
        for query in panel.queries:
            if ("ALERTS" in query.expr) == firing:
                of.until(partial(of.query, query.expr), f"{panel.title}: {query.expr}")


def _jobs_fire(of: Stack, comfyui: FakeComfyUI, state: Path) -> None:
    """Jobs fail, are computed on the CPU, and hang."""
    comfyui.be.fails = True
    for _ in range(4):
        comfyui.wait(comfyui.submit("SaveImage"))
    comfyui.be.fails = False
    of.fires("ComfyUIFailureRate")
    _all_told(of, firing=True)
    comfyui.be.on_cpu = True
    comfyui.wait(comfyui.submit("KSampler"))
    assert health(comfyui, state) == 1  # a sample on the CPU
    comfyui.be.on_cpu = False
    of.fires("ComfyUICpuFallback", "ComfyUIUnhealthy")
    assert of.seen.keys() == {"ComfyUIFailureRate", "ComfyUICpuFallback", "ComfyUIUnhealthy"}
    comfyui.be.stuck = True
    job = comfyui.submit("KSampler")
    of.fires("ComfyUIStuck")
    comfyui.be.stuck = False
    comfyui.wait(job)
