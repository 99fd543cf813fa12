"""``patchforge validate`` on a small ComfyUI."""

from __future__ import annotations

import itertools
import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchforge import progress
from patchforge.cli import main
from patchforge.commands import validate
from patchforge.operate import records, served
from patchforge.operate.served import Server
from tests.doctor.machines import B580, interpreter, machine
from tests.operate.servers import FakeComfyUI, Job


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in order, with a B580, on which ComfyUI runs in a Python with the torch that it tells of."""
    monkeypatch.setattr(validate, "examine", lambda *_: machine(B580))
    monkeypatch.setattr(served, "of", lambda _: Server("/venv/bin/python"))
    hears(monkeypatch)


def hears(monkeypatch: pytest.MonkeyPatch, errors: dict[str, str] | None = None, **answers: object) -> None:
    """What a Python says that is asked."""
    heard = interpreter(errors, **{"python": "3.11.7", **answers})
    monkeypatch.setattr(validate, "question", lambda python, _: replace(heard, python=python))


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


def test_a_device_that_computes_wrongly_speaks_against_it(
    comfyui: FakeComfyUI, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hears(monkeypatch, arithmetic_0={"wrong": {"float16 linear": "0.5 beside 1"}, "do": "update the driver"})
    assert run(comfyui.url, "--runs", "0") == 1
    said = capsys.readouterr().out
    assert "update the driver" in said
    assert "revert" not in said  # which changes no driver


_OWN = Server("/own/bin/python")
_NO_TORCH = "ModuleNotFoundError: No module named 'torch'"


@pytest.mark.parametrize(
    ("server", "answers", "named", "says"),
    [
        (_OWN, {"errors": {"torch": _NO_TORCH}, "torch": None}, "", "cannot import torch"),
        (_OWN, {"errors": {"torch": _NO_TORCH}, "torch": None}, "python3", "cannot import torch"),
        (_OWN, {"torch": {"version": "2.8.0+cpu", "xpu": False}}, "", "has torch 2.8.0+cpu"),
        (_OWN, {"python": "3.9.2"}, "", "has Python 3.9.2"),
        (Server(why="192.0.2.1 is another machine"), {}, "", "another machine"),
    ],
)
def test_what_patchforge_lacks_is_not_the_updates_fault(  # noqa: PLR0917
    comfyui: FakeComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    server: Server, answers: dict[str, Any], named: str, says: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(served, "of", lambda _: server)
    hears(monkeypatch, **answers)
    back = ["--rollback-command", f"touch {tmp_path}/back", "--rollback", *(["--python", named] if named else [])]
    assert run(comfyui.url, "--runs", "0", "--state", tmp_path / "new", *back) == 69
    said = capsys.readouterr().out
    assert "not made  doctor" in said
    assert says in said
    assert "--python" in said
    assert "nothing speaks against the update" in said
    assert not (tmp_path / "back").exists()
    assert records_of(tmp_path / "new")["validation"]["ok"] is True  # it was seen to sample


@pytest.mark.parametrize("error", ["torchvision", "sums 0"])
def test_a_server_that_samples_refutes_what_might_be_in_its_way(
    comfyui: FakeComfyUI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: str,
) -> None:
    """As a torchvision of another torch, or a card that has no memory left beside ComfyUI."""
    versions = {"versions": {"torch": "2.13.0+xpu", "torchvision": "0.20.0"}, "pins": {}}
    hears(monkeypatch, {error: "RuntimeError: no"}, packages=versions)
    back = ["--rollback-command", f"touch {tmp_path}/back", "--rollback"]
    assert run(comfyui.url, "--runs", "0", *back) == 0
    said = capsys.readouterr().out
    assert "ComfyUI samples all the same" in said
    assert "to do: " in said
    assert not (tmp_path / "back").exists()
    comfyui.be.fails = True  # then it may be why
    assert run(comfyui.url, "--runs", "0", *back) == 1
    assert "failed  doctor" in capsys.readouterr().out


def test_while_it_is_busy_an_opinion_takes_nothing_back(
    comfyui: FakeComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hears(monkeypatch, {"numpy": "RuntimeError: Numpy is not available"})
    comfyui.be.seconds = 20
    comfyui.submit()
    while not comfyui._of("in_progress"):
        time.sleep(0.01)
    assert run(comfyui.url, "--rollback-command", f"touch {tmp_path}/back", "--rollback") == 69
    assert not (tmp_path / "back").exists()
    comfyui._interrupted = True


def test_a_server_that_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says for how long it waits; that it never comes is the update's fault, whatever is known of its Python."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    steps: list[str] = []
    monkeypatch.setattr(progress, "step", steps.append)
    words = [f"http://127.0.0.1:{port}", "--timeout", "0.6", "--rollback-command", f"touch {tmp_path}/back"]
    assert run(*words, "--rollback") == 1
    said = capsys.readouterr().out
    assert "nobody listens there" in said
    assert "after 0.6 s" in said
    assert "waiting up to 0.6 s (--timeout)" in steps[0]
    assert (tmp_path / "back").exists()


@pytest.mark.parametrize(("status", "expected"), [(401, 69), (404, 69), (502, 1)])
def test_who_is_not_let_in_knows_nothing_of_the_update(
    comfyui: FakeComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, expected: int
) -> None:
    monkeypatch.setattr(FakeComfyUI, "_get_system_stats", lambda *_: (status, {"error": "no"}))
    back = ["--rollback-command", f"touch {tmp_path}/back", "--rollback"]
    assert run(comfyui.url, "--timeout", "0.1", *back) == expected
    assert (tmp_path / "back").exists() == (expected == 1)


def test_an_answer_that_is_not_understood_is_not_the_updates_fault(
    comfyui: FakeComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeComfyUI, "_get_system_stats", lambda *_: (200, {"system": "of another kind"}))
    back = ["--rollback-command", f"touch {tmp_path}/back", "--rollback"]
    assert run(comfyui.url, "--timeout", "0.1", *back) == 69
    assert not (tmp_path / "back").exists()


def test_a_record_that_cannot_be_written_keeps_nobody_from_going_back(
    comfyui: FakeComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "state"))

    monkeypatch.setattr(records, "write", full)
    comfyui.be.lost = True
    back = ["--rollback-command", f"touch {tmp_path}/back", "--rollback"]
    assert run(comfyui.url, "--timeout", "0.1", "--state", tmp_path / "state", *back) == 74
    assert (tmp_path / "back").exists()
    assert "the disk is full" in capsys.readouterr().err


def test_state_is_made_or_is_told_before_anything_is_examined(
    comfyui: FakeComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(comfyui.url, "--runs", "0", "--state", tmp_path / "deep" / "new") == 0
    assert records_of(tmp_path / "deep" / "new")["validation"]["ok"] is True
    (tmp_path / "file").write_text("")
    assert run(comfyui.url, "--timeout", "9999", "--state", tmp_path / "file") == 2
    assert run(comfyui.url, "--timeout", "9999", "--state", tmp_path / "file" / "below") == 2
    assert capsys.readouterr().err.count("is not a folder") == 2
    assert run(comfyui.url, "--python", tmp_path / "no" / "python") == 2
    assert "--python" in capsys.readouterr().err


def test_mistakes(comfyui: FakeComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(comfyui.url, "--rollback") == 2
    assert "--rollback needs --rollback-command" in capsys.readouterr().err
    comfyui.be.pack = False
    assert run(comfyui.url) == 69
    assert "patchforge-watch" in capsys.readouterr().err
    comfyui.be.pack = True
    (tmp_path / f"good-{comfyui.name.replace('.', '-').replace(':', '-')}.json").write_text("{}")
    assert run(comfyui.url, "--state", tmp_path) == 65
