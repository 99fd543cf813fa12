"""``patchforge validate`` on a small ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchforge.cli import main
from patchforge.commands import validate
from patchforge.operate.validation import Check
from tests.operate.servers import ComfyUI


@pytest.fixture(autouse=True)
def _doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this machine, which has no Intel GPU, tests of doctor's own tell."""
    monkeypatch.setattr(validate, "_doctor", lambda _: Check("doctor", ok=True, reason="nothing wrong"))


def test_an_update_that_may_stay(comfyui: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["validate", comfyui.url, "--state", str(tmp_path), "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    assert [one["name"] for one in told["checks"]] == ["doctor", "ready", "deep", "benchmark"]
    assert "not compared" in told["checks"][-1]["reason"]
    assert main(words) == 0
    assert "1.00 times the last good time" in json.loads(capsys.readouterr().out)["checks"][-1]["reason"]
