"""The IPEX hooks with the real IPEX 2.8.0, on a release's own small models (`make ipex`)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.releases import Record, write_release

pytestmark = [
    pytest.mark.ipex,
    pytest.mark.upstream,
    pytest.mark.skipif(not os.environ.get("PATCHFORGE_IPEX_PYTHON"), reason="not set: PATCHFORGE_IPEX_PYTHON"),
    pytest.mark.skipif(not os.environ.get("PATCHFORGE_UPSTREAM"), reason="not set: PATCHFORGE_UPSTREAM"),
]
#: The last era whose models need no package but torch and einops, and that calls ipex.optimize itself.
RELEASE = "v0.3.10"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Record:
    tree = write_release(RELEASE, "patched", tmp_path_factory.mktemp("ipex") / "tree")
    script = Path(__file__).parents[1] / "in_release" / "run_ipex.py"
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [os.environ["PATCHFORGE_IPEX_PYTHON"], str(script)]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return record


def test_the_hooks_hand_back_the_very_model_and_it_still_works(found: Record) -> None:
    rows = [row for row in found["rows"] if row["way"] != "ipex.optimize, as releases call it"]
    assert len(rows) == 18
    for row in rows:
        assert row["raised"] == "", row
        assert row["same object"], row
        assert row["same weights"], row
        assert not isinstance(row["off"], str), row
        assert row["off"] < (1e-4 if row["dtype"] == "float32" else 0.1), row


def test_what_the_real_ipex_does_before_it_fails_is_undone(found: Record) -> None:
    assert len(found["failures"]) == 9
    assert all(row["undone"] and row["same bits"] for row in found["failures"]), found["failures"]
