# SPDX-License-Identifier: GPL-3.0-or-later
"""What the patches of patchforge call: everything they add to ComfyUI for Intel GPUs (XPU).

Nothing here imports torch before a hook needs it. On a machine without an XPU every hook that takes upstream's value as
an argument returns that very object. Flags, variables and levels are described in patchforge's docs/runtime.md.
Numbers like #15323 are ComfyUI issues unless another project is named. These files run on Python 3.9 and later.
"""

from .attention import attention
from .choice import choose_device, current_device, detect, no_accelerator
from .device_loss import lost_device
from .devices import (
    asked,
    autocast_device,
    device_context,
    is_xpu,
    prefetch_devices,
    stream_api,
    synchronize,
)
from .memory import (
    empty_cache,
    free_memory,
    integrated_free_memory,
    is_oom,
    non_blocking,
    offload_streams,
    oom_types,
    survive,
)
from .models import (
    bf16,
    bf16_supported,
    dynamic_vram,
    dynamic_vram_gate,
    dynamic_vram_index,
    enable_triton,
    fp64,
    int8_compute,
    ipex_opt_in,
    ipex_optimize,
    ipex_usable,
    optimise_model,
    positive_zero,
)
from .settings import add_flags
from .settings import reset as _reset  # noqa: F401 (for trials by hand)
from .start import (
    add_oneapi_flag,
    cuda_malloc_allowed,
    select_devices,
    set_oneapi_selector,
    start,
)

__all__ = [
    "add_flags",
    "add_oneapi_flag",
    "asked",
    "attention",
    "autocast_device",
    "bf16",
    "bf16_supported",
    "choose_device",
    "cuda_malloc_allowed",
    "current_device",
    "detect",
    "device_context",
    "dynamic_vram",
    "dynamic_vram_gate",
    "dynamic_vram_index",
    "empty_cache",
    "enable_triton",
    "fp64",
    "free_memory",
    "int8_compute",
    "integrated_free_memory",
    "ipex_opt_in",
    "ipex_optimize",
    "ipex_usable",
    "is_oom",
    "is_xpu",
    "lost_device",
    "no_accelerator",
    "non_blocking",
    "offload_streams",
    "oom_types",
    "optimise_model",
    "positive_zero",
    "prefetch_devices",
    "select_devices",
    "set_oneapi_selector",
    "start",
    "stream_api",
    "survive",
    "synchronize",
]
