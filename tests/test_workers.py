"""Ctrl-C, once and again, while processes of our own work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from patchforge.errors import Exit

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no groups of processes that a signal reaches")

#: The command line, whose one command has two workers; a task is more than a pipe holds.
PROGRAM = """
import os, sys, time
import patchforge.commands.matrix as command
from patchforge import cli, processes

def task(data):
    os.write(1, b"at work\\n")
    time.sleep(60)

def run(options):
    with processes.workers(2) as pool:
        list(pool.map(task, [b"x" * 300_000] * 20))

command.run = run
sys.argv = ["patchforge", "matrix"]
sys.exit(cli.main())
"""


def any_left(group: int) -> bool:
    """Whether a process of the group lives; one that has ended is there until its parent has looked at it."""
    deadline = time.monotonic() + 10
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        return True
    return False


@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c_ends_all(times: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == "at work\n"
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.1)
        _, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (Exit.INTERRUPTED, "patchforge: interrupted\n")
        assert not any_left(process.pid)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
