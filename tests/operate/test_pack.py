"""The pack patchforge-watch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchforge.cli import main
from patchforge.operate import watch_pack


def test_the_pack_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["health", "--write-pack", str(tmp_path), "--json"]) == 0
        written = Path(json.loads(capsys.readouterr().out)["written"])
        assert {path.name for path in written.iterdir()} == {*watch_pack.files(), "SHA256SUMS"}
    (written / "watch.py").write_text("mine\n")
    assert main(["health", "--write-pack", str(tmp_path)]) == 2
    assert "edited since" in capsys.readouterr().err
