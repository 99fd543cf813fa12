"""``patchforge maintain``: what goes and what stays."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from patchforge.cli import main

DAY = 86400


def put(path: Path, days: float, size: int = 5000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def test_old_outputs_go_and_new_ones_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = put(tmp_path / "output/a/old.png", 40), put(tmp_path / "output/new.png", 3)
    words = ["maintain", str(tmp_path), "--output-age", "30", "--json"]
    assert main([*words, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert old.exists()
    assert main(words) == 0
    done = json.loads(capsys.readouterr().out)
    assert not old.exists()
    assert new.exists()
    assert told["parts"] == done["parts"]
    assert [one["path"] for one in done["parts"][0]["removed"]] == ["a/old.png"]
    assert done["freed"] == told["freed"] >= 5000
