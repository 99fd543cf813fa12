"""A real release, patched, on the emulated XPU: minutes, and pip the first time. PATCHFORGE_UPSTREAM names a clone."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from emulator import build
from patchforge import cli
from patchforge.errors import Exit
from patchforge.trial.model import TrialVerdict
from patchforge.trial.reports import evidence
from patchforge.trial.workflows.library import load

RELEASE = "v0.32.0"

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.xdist_group("upstream"),
    pytest.mark.skipif(
        not os.environ.get("PATCHFORGE_UPSTREAM"), reason="PATCHFORGE_UPSTREAM names no clone of ComfyUI"
    ),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="this interpreter has no torch"),
    pytest.mark.skipif(bool(build.missing()), reason=build.missing() or ""),
]


def test_every_test_of_the_first_session_passes(tmp_path: Path) -> None:
    status = cli.main(
        ["test", RELEASE, "--device", "emulated", "--skip-frontend", "--session", "workflows", "--out", str(tmp_path)]
    )
    found = evidence.load(tmp_path / f"{RELEASE}-emulated-b580")
    assert found is not None
    judgements = [judgement for session in found.sessions for judgement in session.judgements]
    assert [
        f"{judgement.test}: {judgement.verdict}, {judgement.reason}" for judgement in judgements if not judgement.passed
    ] == []
    assert {judgement.test for judgement in judgements if judgement.verdict is TrialVerdict.FRESH} == load().keys()
    assert status == Exit.OK
