from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.world import Machine, machine


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    return machine(tmp_path / "machine")
