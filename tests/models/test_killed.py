"""Runs are killed (SIGKILL) before each change on disk: no model is lost, none is half there, the next run ends it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchforge.atomic import silent
from patchforge.cli import main
from patchforge.commands.models import shown
from patchforge.errors import Exit
from patchforge.models.store import ModelStore
from tests.models.world import MODEL, Machine, content, gguf_bytes, machine, safetensors_bytes

DEFAULTS: dict[str, Any] = ModelStore.__init__.__kwdefaults__ or {}  #: of every store that a command opens
DATA = gguf_bytes(weights=bytes(4096))
OTHER = gguf_bytes("llama", weights=bytes(2048))


def ready_to_link(here: Machine) -> None:
    here.model("text_encoders/mine.gguf", DATA)


def ready_to_import(here: Machine) -> None:
    here.pulled("qwen3:4b", (MODEL, DATA))
    here.model("text_encoders/a.gguf", DATA)
    here.model("text_encoders/b.gguf", DATA)
    here.model("text_encoders/c.gguf", OTHER)
    here.downloaded("owner/name", "c.gguf", OTHER)


def ready_to_collect(here: Machine) -> None:
    for number in range(5):
        here.model(f"checkpoints/{number}.safetensors", safetensors_bytes(bytes([number])))
    main(["models", "import", *here.words])
    for number in range(4):
        (here.comfyui / "models" / "checkpoints" / f"{number}.safetensors").unlink()


COMMANDS: dict[str, tuple[Callable[[Machine], None], Callable[[Machine], list[str]]]] = {
    "link": (
        ready_to_link,
        lambda here: ["link", str(here.comfyui / "models/text_encoders/mine.gguf"), "ollama:mine:1b"],
    ),
    "import": (ready_to_import, lambda _: ["import", "--merge"]),
    "gc": (ready_to_collect, lambda _: ["gc", "--delete"]),
}


def run(here: Machine, words: list[str], die_before: int) -> int | None:
    """Steps of a run in a process of its own; None when it was killed before that step."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def step(_: str) -> None:
            nonlocal count
            count += 1
            if count == die_before:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 99
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            DEFAULTS["step"] = step
            status = main(["models", *words, *here.words])
            os.write(sender, bytes([count]))
        finally:
            os._exit(status)
    os.close(sender)
    told = os.read(receiver, 1)
    os.close(receiver)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert os.WEXITSTATUS(status) == 0
    return told[0]


def fresh(top: Path, ready: Callable[[Machine], None]) -> Machine:
    if top.exists():
        shutil.rmtree(top)
    here = machine(top)
    ready(here)
    return here


def models(here: Machine) -> dict[str, bytes]:
    """What the programs see: no name that is hidden from them."""
    return {name: data for name, data in content(here.top).items() if not Path(name).name.startswith(".")}


def test_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert DEFAULTS["step"] is silent
    killed = 0
    for ready, command in COMMANDS.values():
        here = fresh(tmp_path / "machine", ready)
        before = models(here)
        steps = run(here, command(here), 0)
        assert steps
        wanted = models(here)
        for number in range(1, steps + 1):
            here = fresh(tmp_path / "machine", ready)
            assert run(here, command(here), number) is None
            killed += 1
            after = models(here)
            lost = before.keys() - after.keys()
            assert lost <= before.keys() - wanted.keys(), "a name is gone that no run would remove"
            whole = {**before, **wanted}
            assert all(data == whole.get(name, data) for name, data in after.items()), "half a file"
            assert after.keys() <= whole.keys()
            assert main(["models", "verify", *here.words]) == 0
            assert run(here, command(here), 0) is not None
            assert models(here) == wanted
            assert main(["models", "gc", "--delete", *here.words]) == 0
            assert [name for name in content(here.top) if Path(name).name.startswith(".")] == []
    capsys.readouterr()
    assert killed >= 20


@pytest.mark.parametrize("name", COMMANDS)
def test_who_interrupts_is_told_how_it_is_left(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At each step, and when all is done and not yet said; nothing of the run itself is left behind."""
    ready, command = COMMANDS[name]
    here, number, told = fresh(tmp_path / "machine", ready), 0, set[str]()
    before, wanted, count = models(here), models(here), 0

    def step(_: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(DEFAULTS, "step", step)
        while True:
            number, count = number + 1, 0
            status = main(["models", *command(here), *here.words])
            wanted = models(here)
            if status == 0:
                break
            assert status == Exit.INTERRUPTED
            told.add(capsys.readouterr().err.rpartition("patchforge: ")[2])
            assert [path for path in content(here.top) if Path(path).name.startswith(".patchforge-")] == []
            assert before.items() <= {**before, **wanted}.items()
            here = fresh(tmp_path / "machine", ready)
    left = "interrupted; each change that was made so far is whole, and the same command makes the rest\n"
    assert told <= {"interrupted\n", left}
    assert left in told
    here = fresh(tmp_path / "machine", ready)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shown, "result", interrupted)
        assert main(["models", *command(here), *here.words]) == Exit.INTERRUPTED
    assert capsys.readouterr().err.endswith(left)
    assert models(here) == wanted
