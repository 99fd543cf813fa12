# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives a Python process the emulated XPU, if PATCHFORGE_EMULATE_XPU asks for it. Only tests put this on PYTHONPATH."""

# ruff: noqa: INP001 (a folder on PYTHONPATH, not a package)
import os
import sys
from pathlib import Path

if os.environ.get("PATCHFORGE_EMULATE_XPU"):
    _root = str(Path(__file__).resolve().parents[2])
    sys.path.insert(0, _root)
    try:
        import emulator.load

        emulator.load.install()
    finally:
        sys.path.remove(_root)  # ComfyUI has packages whose names are also ours: tests, utils
