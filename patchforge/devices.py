"""What names a device in Python code: one table for releases and for packs."""

from __future__ import annotations

import re

#: Dotted names, the longer before the shorter, and what a name that begins so is about.
APIS = {
    "torch.cuda.amp": "amp",
    "torch.cuda": "cuda",
    "torch.xpu": "xpu",
    "torch.backends.cuda": "backend",
    "torch.backends.cudnn": "backend",
    "torch.version.cuda": "build",
    "torch.version.hip": "rocm",
    "torch.get_autocast_gpu_dtype": "autocast",
}
#: ComfyUI's own questions.
VENDOR_TESTS = frozenset(
    ["is_nvidia", "is_amd", "is_device_cuda", "cuda_device_context", "is_ascend_npu", "is_mlu", "is_ixuca"]
)
XPU_TESTS = frozenset({"is_intel_xpu", "is_device_xpu"})
#: ComfyUI's questions about the type of a device, and comfy-kitchen's about its own back ends.
DEVICE_TEST = re.compile(r"is_device_[a-z0-9_]+")
KITCHEN_TEST = re.compile(r"[a-z0-9_]+_is_available")
#: Types of devices that are not a vendor's GPU: what stands behind a test for one is not another vendor's arm.
_NO_VENDOR = frozenset({"is_device_cpu", "is_device_type"})


def asks_vendor(name: str) -> bool:
    """Whether a question of this name is about another vendor's device."""
    return name in VENDOR_TESTS or bool(
        DEVICE_TEST.fullmatch(name) and name not in XPU_TESTS and name not in _NO_VENDOR
    )


IPEX = frozenset({"ipex", "intel_extension_for_pytorch"})
CUDA_VARIABLE = re.compile(r"CUDA_[A-Z_]+|PYTORCH_CUDA_ALLOC_CONF")
DEVICE_VARIABLE = re.compile(r"(CUDA|HIP|ROCR|ZE|ONEAPI|PYTORCH_CUDA|ASCEND_RT|TORCH_ROCM)_[A-Z_]+")


def about(name: str) -> str:
    """What a dotted name that is in the table, or below an entry of it, is about; "" for any other."""
    return next((what for top, what in APIS.items() if name == top or name.startswith(f"{top}.")), "")
