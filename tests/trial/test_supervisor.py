"""The supervisor: whatever ends, no process and no folder is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from patchforge.trial.server import supervisor
from patchforge.trial.server.supervisor import Supervised, temporary_folder
from tests.support import ROOT
from tests.trial.support import dead, wait_until

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")

# Writes its process id, its supervisor's, and those of a child in its group and of one in a session of its own.
COMMAND = """
import os, pathlib, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
pids = [os.getpid(), subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid]
at = pathlib.Path("new"); at.write_text("\\n".join(map(str, [os.getppid(), *pids]))); at.rename("pids")
time.sleep(600)
"""
RUNNER = """
import pathlib, sys, time
from patchforge.trial.server.supervisor import Supervised, temporary_folder
top = pathlib.Path(sys.argv[1])
with temporary_folder() as folder:
    (folder / "file").touch()
    tree = top / "tree"; tree.mkdir()
    supervised = Supervised([sys.executable, "-c", sys.argv[2]], remove=[tree, top / "never"], cwd=tree)
    new = top / "new"; new.write_text(str(folder)); new.rename(top / "folder")
    time.sleep(600)
"""


def pids(folder: Path) -> list[int]:
    wait_until((folder / "pids").exists)
    return [int(line) for line in (folder / "pids").read_text().split()]


def start(folder: Path) -> tuple[Supervised, list[int]]:
    supervised = Supervised([sys.executable, "-c", COMMAND], cwd=folder, remove=[folder / "kept"])
    (folder / "kept").mkdir()
    return supervised, pids(folder)


def reachable(processes: list[int]) -> list[int]:
    """Without a subreaper, a child in a session of its own cannot be found."""
    return processes if sys.platform == "linux" else processes[:-1]


def test_stop_ends_the_command_and_all_that_it_started_and_keeps_the_folders(tmp_path: Path) -> None:
    supervised, processes = start(tmp_path)
    assert processes[1] == supervised.pid
    assert supervised.status is None
    supervised.stop()
    assert supervised.status == 0
    assert all(dead(pid) for pid in reachable(processes))
    assert (tmp_path / "kept").is_dir()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_when_the_runner_is_killed_nothing_is_left(tmp_path: Path, number: signal.Signals) -> None:
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, tmp_path, COMMAND], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_until((tmp_path / "folder").exists)
    temporary = Path((tmp_path / "folder").read_text())
    processes = pids(tmp_path / "tree")
    assert temporary.is_dir()
    os.kill(runner.pid, number)
    runner.wait()
    wait_until(lambda: all(dead(pid) for pid in reachable(processes)))
    wait_until(lambda: not (tmp_path / "tree").exists() and not temporary.exists())


@LINUX
def test_when_the_supervisor_is_killed_the_command_dies(tmp_path: Path) -> None:
    supervised, processes = start(tmp_path)
    os.kill(processes[0], signal.SIGKILL)
    wait_until(lambda: dead(processes[1]))
    assert supervised.status == -signal.SIGKILL
    supervised.stop()
    wait_until(lambda: dead(processes[2]))
    os.kill(processes[3], signal.SIGKILL)  # in a session of its own and without its subreaper: the one that escapes


def test_a_supervisor_that_is_terminated_ends_its_command(tmp_path: Path) -> None:
    supervised, processes = start(tmp_path)
    os.kill(processes[0], signal.SIGTERM)
    wait_until(lambda: all(dead(pid) for pid in reachable(processes)))
    wait_until(lambda: not (tmp_path / "kept").exists())
    supervised.stop()


def test_a_command_that_does_not_want_to_end_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import pathlib, signal, time; signal.signal(15, signal.SIG_IGN); pathlib.Path('pids').touch(); time.sleep(600)"
    )
    supervised = Supervised([sys.executable, "-c", stubborn], cwd=tmp_path)
    wait_until((tmp_path / "pids").exists)
    supervised.stop()
    assert dead(supervised.pid)


def test_the_status_of_a_command_that_ends_by_itself(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as output:
        supervised = Supervised([sys.executable, "-c", "print('bye'); raise SystemExit(7)"], output=output)
        wait_until(lambda: supervised.status is not None)
        assert supervised.status == 7
        supervised.stop()
    assert (tmp_path / "log").read_text() == "bye\n"


def test_what_a_command_leaves_when_it_ends_by_itself_ends_too(tmp_path: Path) -> None:
    leaves = COMMAND.replace("time.sleep(600)\n", "\n")
    supervised = Supervised([sys.executable, "-c", leaves], cwd=tmp_path)
    wait_until(lambda: supervised.status is not None)
    assert all(dead(pid) for pid in reachable(pids(tmp_path)))
    supervised.stop()


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as output:
        supervised = Supervised(["/no/such/python"], output=output)
        wait_until(lambda: supervised.status is not None)
        assert supervised.status != 0
        supervised.stop()
    assert "/no/such/python" in (tmp_path / "log").read_text()


def test_a_temporary_folder_is_gone_afterwards() -> None:
    with temporary_folder("patchforge-test-") as folder:
        (folder / "file").touch()
        assert folder.name.startswith("patchforge-test-")
    assert not folder.exists()


def test_it_needs_the_standard_library_only() -> None:
    ran = subprocess.run(
        [sys.executable, "-I", "-S", supervisor.__file__, "--"], input=b"", capture_output=True, check=True
    )
    assert ran.stdout.strip().isdigit()
