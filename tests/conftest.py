"""No test sees the user's cache or upstream; those marked ``upstream`` get the upstream that the environment names."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge import escape
from patchforge.commands import common

# A shell's background jobs ignore Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _quick_disk() -> Iterator[None]:
    """No test takes the power away, so nothing waits for the disk. A handle that is not open still fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(autouse=True)
def _own_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if request.node.get_closest_marker("upstream"):
        return
    monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATCHFORGE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("PATCHFORGE_UPSTREAM", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(autouse=True)
def _documents_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command prints as JSON in this process is as its schema says."""
    told = escape.document

    def document(value: object) -> str:
        from tests.valid import fitting

        text = told(value)
        fitting(json.loads(text))
        return text

    monkeypatch.setattr(common, "document", document)
