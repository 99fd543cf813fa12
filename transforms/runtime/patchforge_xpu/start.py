# SPDX-License-Identifier: GPL-3.0-or-later
"""Before torch is imported: devices chosen by flags and variables, and a torch that may have an XPU."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from .settings import configure, log, precision_flags, state, warn

if TYPE_CHECKING:
    import argparse


WINDOWS = os.name == "nt"
_DEVICE_LIST = re.compile(r"\d+(\.\d+)?(,\d+(\.\d+)?)*")


def start(args: Any) -> None:
    """Take over what the user asked for; called in main.py before torch is imported.

    torch-xpu-ops reads PYTORCH_ENABLE_XPU_FALLBACK once, when it loads: with 1, the CPU computes what XPU lacks.

    Raises SystemExit with a message where a setting is wrong, and after ``--help-gpu``.
    """
    state.args = args
    configure(strict=True)
    if getattr(args, "intel_device", None) is not None:
        _set_intel_device(args.intel_device)
    if state.level >= 1 and built_for_xpu():
        os.environ.setdefault("PYTORCH_ENABLE_XPU_FALLBACK", "1")
    if getattr(args, "help_gpu", None):
        from .help import help_gpu

        help_gpu(args)
    precision_flags(args)
    if state.level == 0 and state.enable:
        warn(f"--xpu-level O0 leaves {', '.join(sorted(state.enable))} off; choose O1 or above to enable it.")


def _set_intel_device(devices: str) -> None:
    if not _DEVICE_LIST.fullmatch(devices):
        raise SystemExit(f"patchforge: --intel-device {devices!r}: expected indices, e.g. 0 or 0,1 (see --help-gpu).")
    mask = os.environ.setdefault("ZE_AFFINITY_MASK", devices)
    if mask != devices:
        warn(f"--intel-device {devices} is ignored: the environment says ZE_AFFINITY_MASK={mask}.")


def select_devices(args: Any) -> None:
    """Let ``--cuda-device`` choose among Intel GPUs too; to be called before torch is imported.

    A ZE_AFFINITY_MASK in the environment, ``--intel-device`` and ``--oneapi-device-selector`` come first. The mask only
    filters and cannot put a device first, so ``--default-device`` is left to :func:`choose_device`.
    """
    state.args = args
    devices = _cuda_device(args)
    explicit = (getattr(args, name, None) for name in ("intel_device", "oneapi_device_selector"))
    if devices is not None and not any(value is not None for value in explicit) and built_for_xpu():
        os.environ.setdefault("ZE_AFFINITY_MASK", devices)


def _cuda_device(args: Any) -> str | None:
    """``--cuda-device`` as Level Zero would write it; None if absent, "all", or no list of indices (a UUID)."""
    asked_for = getattr(args, "cuda_device", None)
    if WINDOWS and not any(argument.startswith("--cuda-d") for argument in sys.argv):
        return None  # upstream's own choice among NVIDIA GPUs (#15737)
    if isinstance(asked_for, (list, tuple)):
        asked_for = ",".join(map(str, asked_for))
    text = str(asked_for).replace(" ", "")
    return text if re.fullmatch(r"\d+(,\d+)*", text) else None


def add_oneapi_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--oneapi-device-selector`` to releases before v0.3.10, which lack it."""
    text = "Sets the oneAPI device(s) this instance will use."
    parser.add_argument("--oneapi-device-selector", type=str, default=None, metavar="SELECTOR_STRING", help=text)


def set_oneapi_selector(args: Any) -> None:
    """Hand ``--oneapi-device-selector`` to the SYCL runtime; to be called before torch is imported."""
    selector = getattr(args, "oneapi_device_selector", None)
    if selector is not None:
        os.environ["ONEAPI_DEVICE_SELECTOR"] = selector
        log.info("Set oneapi device selector to: %s", selector)


def built_for_xpu() -> bool:
    """Whether torch can have an XPU, by its version alone: nothing is imported and torch is asked nothing."""
    try:
        if importlib.util.find_spec("intel_extension_for_pytorch") is not None:
            return True
        if "torch" in sys.modules:
            version = sys.modules["torch"].version
            return "+xpu" in version.__version__ or bool(getattr(version, "xpu", None))
        spec = importlib.util.find_spec("torch")
        for folder in (spec.submodule_search_locations if spec else None) or ():
            with open(os.path.join(folder, "version.py"), encoding="utf-8") as file:
                text = file.read()
            return "+xpu" in text or re.search(r"^xpu\b[^=\n]*=\s*['\"]", text, re.MULTILINE) is not None
    except (OSError, ValueError, ImportError, AttributeError):
        pass
    return False


def cuda_malloc_allowed(version: str) -> bool:
    """Whether cudaMallocAsync may be configured for a torch of this ``version``: not for XPU wheels."""
    return "+xpu" not in version
