# SPDX-License-Identifier: GPL-3.0-or-later
"""An emulated XPU for tests: torch.xpu devices on a CPU-only PyTorch, computed by CPU kernels.

Not part of what is installed. It loads only where the environment variable PATCHFORGE_EMULATE_XPU names a preset, and
everything seen on it is to be called "emulated XPU". See README.md beside this file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "PATCHFORGE_EMULATE_XPU"
OPTIONS = "PATCHFORGE_EMULATE_XPU_OPTIONS"


def active() -> bool:
    """Whether this process has the emulated XPU."""
    library = sys.modules.get("emulator.library")
    return library is not None and bool(library.is_loaded())


def environment(preset: str, options: str = "", base: Mapping[str, str] | None = None) -> dict[str, str]:
    """``base`` (the environment of this process) in which every Python process has the devices of ``preset``.

    ``options`` are those of :func:`emulator.presets.parse_options`. A wrong preset or option raises ValueError here,
    and not in the process that was to have it.
    """
    from emulator import build, presets  # noqa: PLC0415 (sitecustomize imports this package in every process)

    presets.devices(preset)
    presets.parse_options(options)
    found = dict(os.environ if base is None else base)
    paths = [str(Path(__file__).parent / "site"), *found.get("PYTHONPATH", "").split(os.pathsep)]
    found["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    found[VARIABLE], found[OPTIONS] = preset, options
    found[build.CACHE_VARIABLE] = str(build.CACHE)
    return found
