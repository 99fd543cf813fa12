"""What several tests of trials need: waiting, and whether a process has ended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


def wait_until(holds: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def dead(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not listed.strip() or listed.strip().startswith("Z")
