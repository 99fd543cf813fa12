"""The child in which a release's code is asked: whatever that does, it ends, and takes along what it started."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable

import pytest

from patchforge.proof import probe


def outlives_its_alarm() -> dict[str, object]:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(60)
    return {}


def leaves_a_child_that_holds_the_pipe() -> dict[str, object]:
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)


def fills_the_disk() -> dict[str, object]:
    with tempfile.TemporaryFile() as file:
        while True:
            file.write(bytes(1 << 16))


def says_too_much() -> dict[str, object]:
    return {"much": "x" * (1 << 20)}


def dies() -> dict[str, object]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.parametrize(
    "work", [outlives_its_alarm, leaves_a_child_that_holds_the_pipe, fills_the_disk, says_too_much, dies]
)
def test_a_hostile_child(work: Callable[[], dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_MOST", 1 << 19)
    monkeypatch.setattr(probe, "_GRACE", 0.5)
    begun = time.monotonic()
    with tempfile.TemporaryFile() as output:
        assert "crash" in probe.in_child(work, 1, output)
    assert time.monotonic() - begun < 20


def test_a_good_child() -> None:
    def work() -> dict[str, object]:
        sys.stdout.write("printed")
        return {"asked": [1, None, "x"]}

    with tempfile.TemporaryFile() as output:
        assert probe.in_child(work, 20, output) == {"asked": [1, None, "x"]}
