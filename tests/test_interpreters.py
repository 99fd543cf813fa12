"""What ``--python`` names: every command that takes it says what it is, and none that it has only a CPU."""

from __future__ import annotations

import os
import sys
import venv
from pathlib import Path

import pytest

from patchforge import interpreters
from patchforge.cli import main
from patchforge.errors import Exit, NotChecked, PatchforgeError

COMMANDS = {
    "doctor": ["doctor"],
    "verify": ["verify", "v0.25.0", "--dynamic"],
    "bench": ["bench", "run", "v0.25.0", "--device", "cpu", "--no-venv"],
    "bench xpu": ["bench", "run", "v0.25.0", "--device", "xpu", "--suite", "tensor"],
    "test": ["test", "v0.25.0", "--device", "emulated"],
    "test auto": ["test", "v0.25.0"],
}


def program(path: Path, text: str, mode: int = 0o755) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def no_pythons(tmp_path: Path) -> dict[str, tuple[str, str]]:
    """What is named → what is said of it, and what was found."""
    bare = tmp_path / "bare"
    (bare / "bin").mkdir(parents=True)
    program(bare / "bin/python", "")
    return {
        str(tmp_path / "nowhere"): ("is not there", "nothing there"),
        "no-such-python": ("is not in PATH", "no such program"),
        str(bare): ("is a folder", f"name {bare / 'bin/python'}"),
        str(program(tmp_path / "true", "#!/bin/sh\nexit 0\n")): ("does not run as Python", "ended with status 0"),
        str(program(tmp_path / "false", "#!/bin/sh\necho broken >&2\nexit 3\n")): (
            "does not run as",
            "status 3, and said: broken",
        ),
        str(program(tmp_path / "odd", "#!/bin/sh\necho '[1]'\n")): ("does not run as Python", "status 0"),
        str(program(tmp_path / "garbage", "\x00\x01")): ("cannot be started", "Exec format error"),
        str(program(tmp_path / "text", "#!/bin/sh\n", 0o644)): ("cannot be started", "Permission denied"),
    }


@pytest.mark.skipif(os.name != "posix", reason="scripts of a shell")
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_python_is_said_by_every_command(
    command: str,
    no_pythons: dict[str, tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PATCHFORGE_UPSTREAM", raising=False)
    monkeypatch.setenv("PATCHFORGE_UPSTREAM", str(Path(__file__).parent))  # nothing is fetched
    for named, texts in no_pythons.items():
        if command == "verify":
            with pytest.raises(PatchforgeError):
                interpreters.need(named)
            continue
        assert main([*COMMANDS[command], "--python", named]) == Exit.USAGE, named
        said = capsys.readouterr().err
        for text in (*texts, "expected: a Python interpreter"):
            assert text in said, (named, said)
        assert "Errno" not in said


def test_a_python_without_torch_is_not_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    python = str(tmp_path / "bare/bin/python")
    interpreters.need(python)
    interpreters.need(sys.executable)
    with pytest.raises(NotChecked, match="has no torch") as error:
        interpreters.need(python, torch=True)
    assert error.value.found.startswith("Python 3.")
    for command in ("bench", "bench xpu", "test", "test auto"):
        assert main([*COMMANDS[command], "--python", python]) == Exit.UNCHECKED
        assert "has no torch" in capsys.readouterr().err
