"""The hook that pack authors name in their pre-commit configuration."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from patchforge.cli import main
from tests.support import ROOT

HOOK = (ROOT / ".pre-commit-hooks.yaml").read_text()


@pytest.mark.parametrize(("code", "status"), [("x = torch.zeros(1).cuda()", 1), ("x = torch.zeros(1)", 0)])
def test_it_fails_for_what_is_for_cuda_alone(
    code: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As pre-commit runs it: in the author's repository and without file names."""
    assert "pass_filenames: false" in HOOK
    (tmp_path / "__init__.py").write_text(f"import torch\n\nNODE_CLASS_MAPPINGS = {{}}\n{code}\n")
    monkeypatch.chdir(tmp_path)
    [entry] = re.findall("^  entry: (.+)$", HOOK, re.MULTILINE)
    program, *arguments = shlex.split(entry)
    assert program == "patchforge"
    assert main(arguments) == status
    assert ("pack-device-literal" in capsys.readouterr().out) is bool(status)
