"""Folders in memory, and a disk that nobody waits for: the system stays alive in these tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from patchforge.checkout import change, examine, journal
from patchforge.patches import parse

_BROKEN, _PARSE = cache(examine.broken), cache(parse)  # of the same files and patches, hundreds of times


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory where there is one: it is copied hundreds of times."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(journal, "parse", _PARSE)
    for module in (change, examine):
        monkeypatch.setattr(module, "broken", _BROKEN)
