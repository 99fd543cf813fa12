"""torch.compile makes the same graphs of a patched release's models as of upstream's, with no break for a hook.

Needs a clone, which PATCHFORGE_UPSTREAM names, and PATCHFORGE_COMFYUI_PYTHON: an interpreter with a CPU build of torch
and the releases' requirements (those of v0.32.0 serve all).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from emulator import environment
from tests.support import write_release

_NEEDED = [name for name in ("PATCHFORGE_UPSTREAM", "PATCHFORGE_COMFYUI_PYTHON") if not os.environ.get(name)]

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(bool(_NEEDED), reason=f"not set: {', '.join(_NEEDED)}"),
]

SCRIPT = Path(__file__).with_name("run_compiled.py")
FLAGS = ("--cpu", "--use-pytorch-cross-attention")


def record(tree: Path) -> dict[str, Any]:
    done = subprocess.run(
        [os.environ["PATCHFORGE_COMFYUI_PYTHON"], str(SCRIPT), *FLAGS],
        cwd=tree,
        env=environment("b580", "torchvision=schemas"),  # for torchvision, whose wheel may not fit a CPU torch
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("version", ["v0.3.47", "v0.3.77", "v0.12.0", "v0.21.0", "v0.25.0", "v0.32.0"])
def test_hooks_do_not_change_what_is_compiled(version: str, tmp_path: Path) -> None:
    found = {side: record(write_release(version, side, tmp_path / side)) for side in ("upstream", "patched")}
    assert {side: (one["device"], one["hooks"]) for side, one in found.items()} == {
        "upstream": ("cpu", False),
        "patched": ("cpu", True),
    }
    assert found["patched"]["models"] == found["upstream"]["models"]
    for model in found["patched"]["models"].values():
        assert (model["graphs"], model["breaks"]) == (1, [])
        assert len(model["operators"][0]) > 100
