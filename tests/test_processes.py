"""Children: what they say is read no further than a bound, and none outlives its end."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from patchforge import processes
from patchforge.errors import Damaged

PYTHON = [sys.executable, "-I", "-S", "-c"]


def test_what_a_child_says() -> None:
    code = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('told'); sys.exit(3)"
    done = processes.run([*PYTHON, code], input=b"words", capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"WORDS", b"told")
    done = processes.run([*PYTHON, code], input="words", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "WORDS", "told")
    with pytest.raises(processes.SubprocessError):
        processes.run([*PYTHON, code], capture_output=True, check=True)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_child_that_says_too_much(stream: str) -> None:
    code = f"import sys\nwhile True: sys.{stream}.write('x' * 65536)"
    with pytest.raises(Damaged, match="printed too much"):
        processes.run([*PYTHON, code], capture_output=True, most=1 << 20)


def test_a_child_that_has_said_too_much_and_ended() -> None:
    process = processes.start([*PYTHON, "print('x' * 100)"], stdout=processes.PIPE)
    assert process.stdout
    said = processes._Words(process.stdout, 10)
    process.wait()
    said.join()
    with pytest.raises(Damaged, match="printed too much"):
        processes._wait(process, [said], None, None)


@pytest.mark.parametrize("limit", [{"timeout": 0.5}, {"silence": 0.5}])
def test_a_child_is_ended_with_what_it_started(limit: dict[str, Any], tmp_path: Path) -> None:
    """The grandchild holds the pipes: whoever waits for their end waits for it."""
    grandchild = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {grandchild!r}]); time.sleep(60)"
    begun = time.monotonic()
    with pytest.raises(processes.TimeoutExpired):
        processes.run([*PYTHON, code], capture_output=True, **limit)
    assert time.monotonic() - begun < 30
    with suppress(FileNotFoundError):  # it had not begun
        pid = int((tmp_path / "pid").read_text() or 0)
        while pid and _runs(pid):  # it sleeps for a minute
            assert time.monotonic() - begun < 30
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether a process is there, and not as a corpse that nobody has buried."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_silence_is_no_matter_once_something_was_said() -> None:
    code = "import sys, time; print('x', flush=True); time.sleep(0.6)"
    assert processes.run([*PYTHON, code], capture_output=True, silence=0.3).returncode == 0
