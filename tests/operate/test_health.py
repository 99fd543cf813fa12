"""``patchforge health`` on a small ComfyUI."""

from __future__ import annotations

import json

import pytest

from patchforge.cli import main
from patchforge.errors import NotChecked
from patchforge.operate.health import Look, Probe
from tests.operate.servers import ComfyUI


def look(comfyui: ComfyUI, timeout: float = 5.0, *, allow_cpu: bool = False) -> Look:
    return Look(comfyui.url, timeout, stalled=0.3, allow_cpu=allow_cpu)


def test_a_server_in_order(comfyui: ComfyUI) -> None:
    assert look(comfyui).look(Probe.LIVE).reason == "it answers, version 0.33.0"
    assert look(comfyui).look(Probe.READY).ok
    found = look(comfyui).look(Probe.DEEP)
    assert (found.ok, found.operations, found.sampled) == (True, 180, 0.05)
    assert found.reason.startswith("fresh: sampled on xpu:0 emulated Arc in ")


def test_json(comfyui: ComfyUI, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", comfyui.url, "--deep", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["ok"], told["probe"]) == ("patchforge/health/1", True, "deep")
    comfyui.be.lost = True
    assert main(["health", comfyui.url, "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_without_the_pack_the_deep_look_cannot_be_made(comfyui: ComfyUI) -> None:
    comfyui.be.pack = False
    assert look(comfyui).look(Probe.READY).ok
    with pytest.raises(NotChecked, match="patchforge-watch"):
        look(comfyui).look(Probe.DEEP)
