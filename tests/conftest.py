"""No test sees the user's cache or upstream; those marked ``upstream`` get the upstream that the environment names."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A shell's background jobs ignore Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if request.node.get_closest_marker("upstream"):
        return
    monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATCHFORGE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("PATCHFORGE_UPSTREAM", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
