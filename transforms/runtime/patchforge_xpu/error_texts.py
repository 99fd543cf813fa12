# SPDX-License-Identifier: GPL-3.0-or-later
"""How the layers under torch say that memory ran out or that the device is lost, as data.

They raise a plain RuntimeError and name the reason in its text only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ALWAYS = 1 << 30  #: as often as a handler cares to try with less


@dataclass(frozen=True)
class MemoryText:
    """A text that means "out of memory", the layer that says so, and how many retries it deserves in one handler."""

    layer: str
    text: str  #: a regular expression
    source: str
    retries: int = ALWAYS


MEMORY_TEXTS = (
    MemoryText(
        "Unified Runtime",
        r"\bUR_RESULT_ERROR_OUT_OF_(DEVICE_MEMORY|HOST_MEMORY|RESOURCES)\b",
        "ur_api.h; pytorch#177714, pytorch#190972, torch-xpu-ops#5432",
    ),
    MemoryText(
        "PI, the plug-in interface before Unified Runtime",
        r"\bPI_ERROR_(OUT_OF_RESOURCES|OUT_OF_HOST_MEMORY|MEM_OBJECT_ALLOCATION_FAILURE)\b",
        "pi.h; sdnext#1526, ipex-llm#9467",
    ),
    MemoryText(
        "Level Zero",
        r"\bZE_RESULT_ERROR_OUT_OF_(DEVICE|HOST)_MEMORY\b|\bTriton Error \[ZE\]: 0x7000000[23]\b",
        "ze_api.h (0x70000002 and 0x70000003)",
    ),
    MemoryText(
        "OpenCL",
        r"\bCL_(OUT_OF_RESOURCES|OUT_OF_HOST_MEMORY|MEM_OBJECT_ALLOCATION_FAILURE)\b",
        "cl.h; intel-extension-for-tensorflow#20, stable-diffusion-webui#16571",
    ),
    MemoryText(
        "SYCL in torch and IPEX",
        r"\bAllocation is out of device memory on (the )?current platform\b|\bcan NOT allocate memory block\b",
        "torch-xpu-ops and IPEX, Runtime.h; compute-runtime#627",
    ),
    MemoryText("IPEX's allocator", r"\AXPU out of memory\b", "IPEX CachingDeviceAllocator.cpp; #6379, #8767"),
    MemoryText("oneDNN", r"\bcould not create a memory object\b", "oneDNN dnnl.hpp, dnnl_out_of_memory"),
    MemoryText(
        "oneDNN, where memory and driver look alike",
        r"\Acould not (create|execute) a primitive\b(?! descriptor)",
        "oneDNN#914, #5270, compute-runtime#963",
        retries=1,
    ),
)
#: After these nothing can be retried in this process, whatever else the text says.
LOST = re.compile(
    r"\b(UR_RESULT_ERROR_DEVICE_LOST|ZE_RESULT_ERROR_DEVICE_LOST|UR_RESULT_ERROR_DEVICE_NOT_AVAILABLE"
    r"|(PI_ERROR|CL)_DEVICE_NOT_AVAILABLE|DEVICE_LOST)\b"
)
_MEMORY = tuple((re.compile(known.text), known.retries) for known in MEMORY_TEXTS)


def says_lost(text: str) -> bool:
    """Whether an error's text says that the device is lost (#7753, AI-Playground#355, ipex#780)."""
    return LOST.search(text) is not None


def retries(text: str) -> int:
    """How many retries an error of this text deserves for want of memory; 0 where it says something else."""
    return 0 if says_lost(text) else max((count for known, count in _MEMORY if known.search(text)), default=0)
