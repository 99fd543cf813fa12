# SPDX-License-Identifier: GPL-3.0-or-later
"""Which vendors' GPUs this machine has, as the system tells, and why torch cannot use an Intel one."""

from __future__ import annotations

import glob
import re
import sys
from typing import Any

INTEL = "8086"
#: Whose GPUs a build of torch can use, by how built_for begins.
USES = {"CUDA": "10de", "ROCm": "1002"}
DRM = "/sys/class/drm"
#: Windows' class of display adapters.
ADAPTERS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
_WHEEL = "install PyTorch's XPU wheel (https://pytorch.org/get-started/locally/) into this environment"


def vendors() -> frozenset[str]:
    """PCI ids of the vendors of this machine's GPUs, as 8086; empty where the system does not tell."""
    try:
        return frozenset(_from_registry() if sys.platform == "win32" else _from_sysfs())
    except Exception:
        return frozenset()


def _from_sysfs() -> list[str]:
    vendors = []
    for path in glob.glob(f"{glob.escape(DRM)}/card*/device/vendor"):
        with open(path, encoding="ascii") as file:
            vendors.append(file.read().strip().lower().replace("0x", ""))
    return vendors


def _from_registry() -> list[str]:
    import winreg

    registry: Any = winreg  # its functions exist on Windows only
    vendors = []
    with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, ADAPTERS) as adapters:
        for index in range(registry.QueryInfoKey(adapters)[0]):
            name = registry.EnumKey(adapters, index)
            if not re.fullmatch(r"\d{4}", name):
                continue
            with registry.OpenKey(adapters, name) as adapter:
                device = str(registry.QueryValueEx(adapter, "MatchingDeviceId")[0])
            vendors += re.findall(r"ven_([0-9a-f]{4})", device.lower())
    return vendors


def intel_there() -> bool:
    """Whether the system tells of an Intel GPU."""
    return INTEL in vendors()


def out_of_reach(torch: Any) -> bool:
    """Whether the system tells of an Intel GPU, and of none that this torch, built for CUDA or ROCm, can use."""
    there, uses = vendors(), USES.get(built_for(torch).split(" ")[0])
    return uses is not None and INTEL in there and uses not in there


def built_for(torch: Any) -> str:
    """What torch was built for, in words."""
    version = torch.version
    if getattr(version, "cuda", None):
        return f"CUDA {version.cuda}"
    if getattr(version, "hip", None):
        return f"ROCm {version.hip}"
    if "+xpu" in torch.__version__ or getattr(version, "xpu", None) or getattr(torch._C, "_has_xpu", False):  # noqa: SLF001
        return "XPU"
    return "the CPU"


def cause_and_cure() -> str:
    """Why torch has no XPU, and what to do."""
    import torch

    built = built_for(torch)
    if built == "XPU":
        return (
            f"torch {torch.__version__} is built for XPU, and its driver shows no Intel GPU: install or update Intel's "
            "compute runtime and Level Zero loader, see that this user may use /dev/dri/renderD*, and look at "
            "ZE_AFFINITY_MASK and ONEAPI_DEVICE_SELECTOR. patchforge doctor examines all of that."
        )
    return f"torch {torch.__version__} is built for {built}, which does not use Intel GPUs: {_WHEEL}."
