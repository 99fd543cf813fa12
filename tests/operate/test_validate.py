"""``patchforge validate`` on a small ComfyUI."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest

from patchforge.cli import main
from patchforge.commands import validate
from patchforge.operate.validation import Check
from tests.operate.servers import FakeComfyUI, Job


@pytest.fixture(autouse=True)
def _doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this machine, which has no Intel GPU, tests of doctor's own tell."""
    monkeypatch.setattr(validate, "_doctor", lambda _: Check("doctor", ok=True, reason="nothing wrong"))


def test_an_update_that_may_stay(comfyui: FakeComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["validate", comfyui.url, "--state", str(tmp_path), "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    assert [check["name"] for check in told["checks"]] == ["doctor", "ready", "deep", "benchmark"]
    assert "not compared" in told["checks"][-1]["reason"]
    assert main(words) == 0
    assert "1.00 times the last good time" in json.loads(capsys.readouterr().out)["checks"][-1]["reason"]


def run(*words: str | Path) -> int:
    return main(["validate", *map(str, words)])


def slower(comfyui: FakeComfyUI, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples take so long, with some noise."""
    steps = itertools.cycle([0.97, 1.0, 1.02, 0.99, 1.05])

    def count(self: FakeComfyUI, job: Job, kind: str) -> None:
        self.steps[job.name].append({"class_type": kind, "seconds": seconds * next(steps), "operations": 180})

    monkeypatch.setattr(FakeComfyUI, "_count", count)


def records_of(state: Path) -> dict[str, dict[str, object]]:
    return {file.name.partition("-")[0]: json.loads(file.read_text()) for file in state.iterdir()}


def test_an_update_that_makes_it_slower(
    comfyui: FakeComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slower(comfyui, 0.1, monkeypatch)
    assert run(comfyui.url, "--state", tmp_path) == 0
    slower(comfyui, 0.105, monkeypatch)
    assert run(comfyui.url, "--state", tmp_path) == 0  # noise of two days
    slower(comfyui, 0.2, monkeypatch)
    capsys.readouterr()
    assert run(comfyui.url, "--state", tmp_path) == 1
    said = capsys.readouterr().out
    assert "1.90 times the last good time" in said
    assert "the update is to be taken back" in said
    records = records_of(tmp_path)
    assert (records["validation"]["ok"], records["validation"]["regressed"]) == (False, True)
    assert records["good"]["seconds"][0] < 0.15  # type: ignore[index]
    slower(comfyui, 0.1, monkeypatch)
    assert run(comfyui.url, "--state", tmp_path) == 0


@pytest.mark.parametrize("fault", ["lost", "on_cpu", "fails"])
def test_an_update_that_breaks_it_is_taken_back(
    comfyui: FakeComfyUI, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setattr(comfyui.be, fault, True)
    (state := tmp_path / "state").mkdir()
    back = ["--rollback-command", f"touch {tmp_path}/back"]
    assert run(comfyui.url, "--state", state, "--timeout", "0.1", *back) == 1
    assert f"to go back: touch {tmp_path}/back" in capsys.readouterr().out
    assert not (tmp_path / "back").exists()
    assert run(comfyui.url, "--state", state, "--timeout", "0.1", *back, "--rollback") == 1
    assert f"went back: touch {tmp_path}/back" in capsys.readouterr().out
    assert (tmp_path / "back").exists()
    assert records_of(state)["validation"]["ok"] is False


@pytest.mark.parametrize(
    "command", ["no-such-program", "'", "touch {}/a; touch {}/b", "echo a && false", "touch $HOME/a", "touch `id`", " "]
)
def test_a_way_back_that_cannot_be_run_is_known_before(
    comfyui: FakeComfyUI, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.format(tmp_path, tmp_path)
    assert run(comfyui.url, "--timeout", "0.1", "--rollback-command", words, "--rollback") == 2
    assert "to do: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["false"])
def test_a_way_back_that_fails(comfyui: FakeComfyUI, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    comfyui.be.lost = True
    assert run(comfyui.url, "--timeout", "0.1", "--rollback-command", command, "--rollback") == 1
    assert "going back FAILED" in capsys.readouterr().out


def test_a_busy_server_is_not_told_from_a_broken_one(comfyui: FakeComfyUI, tmp_path: Path) -> None:
    """Nothing is taken back, and nothing recorded."""
    comfyui.be.seconds = 20
    comfyui.submit()
    while not comfyui._of("in_progress"):
        time.sleep(0.01)
    back = ["--rollback-command", f"touch {tmp_path}/back", "--rollback"]
    assert run(comfyui.url, "--state", tmp_path, *back) == 69
    assert list(tmp_path.iterdir()) == []
    comfyui._interrupted = True


def test_doctor_speaks_against_it(comfyui: FakeComfyUI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "_doctor", lambda _: Check("doctor", ok=False, reason="driver: too old"))
    assert run(comfyui.url, "--runs", "0") == 1


def test_mistakes(comfyui: FakeComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(comfyui.url, "--rollback") == 2
    assert "--rollback needs --rollback-command" in capsys.readouterr().err
    assert run(comfyui.url, "--state", tmp_path / "nowhere") == 2
    comfyui.be.pack = False
    assert run(comfyui.url) == 69
    assert "patchforge-watch" in capsys.readouterr().err
    comfyui.be.pack = True
    (tmp_path / f"good-{comfyui.name.replace('.', '-').replace(':', '-')}.json").write_text("{}")
    assert run(comfyui.url, "--state", tmp_path) == 65
