"""Real releases in the interpreter that has their requirements, for tests that run a script in a release's tree.

Needs a clone, which PATCHFORGE_UPSTREAM names, and PATCHFORGE_COMFYUI_PYTHON: an interpreter with a CPU build of torch
and the releases' requirements (those of v0.32.0 serve all that are tried).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from emulator import VARIABLE, environment
from patchforge import pipeline
from patchforge.rules import transforms
from patchforge.sources import open_upstream
from tests.support import engine_of

Record = dict[str, Any]

_NEEDED = [name for name in ("PATCHFORGE_UPSTREAM", "PATCHFORGE_COMFYUI_PYTHON") if not os.environ.get(name)]
NEEDED = [
    pytest.mark.upstream,
    pytest.mark.skipif(bool(_NEEDED), reason=f"not set: {', '.join(_NEEDED)}"),
]


def write_release(version: str, side: str, folder: Path) -> Path:
    """A release, "upstream" or "patched", written into a folder."""
    with open_upstream() as upstream:
        release = upstream.resolve(version)
        files = upstream.tree(release)
        patched = pipeline.convert(engine_of(transforms()), release, files)
        pipeline.write_whole(patched.tree if side == "patched" else files, folder)
    return folder


def run_in(tree: Path, script: str, *arguments: str, devices: str = "b580", options: str = "") -> Record:
    """The JSON that a script of ``tests/in_release`` prints last, run in a release's tree.

    ``devices`` are emulated; without any torch is as it is installed. ``options`` are more of the emulator's.
    """
    command = [
        os.environ["PATCHFORGE_COMFYUI_PYTHON"],
        str(Path(__file__).with_name("in_release") / script),
        *arguments,
    ]
    env = environment(devices or "b580", f"rng=cpu;torchvision=schemas;{options}") | {"OMP_NUM_THREADS": "1"}
    if not devices:
        del env[VARIABLE]
    env.pop("PYTORCH_ENABLE_XPU_FALLBACK", None)
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return record
