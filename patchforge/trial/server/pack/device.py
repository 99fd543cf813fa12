"""What the device has done for this process. Also in the pack patchforge-watch, which production may have."""

from __future__ import annotations

import sys

import torch

from .counting import back_end


def emulated() -> bool:
    """Whether this process has the emulated XPU; nothing of it is imported here."""
    load = sys.modules.get("emulator.library")
    return load is not None and bool(load.is_loaded())


def counter() -> str:
    """What :func:`operations` counts here, in words; "" where nothing can be counted."""
    if emulated():
        return "operations of the emulated XPU"
    module = back_end()
    if module is None:
        return ""
    if module is torch.cuda and torch.cuda.get_allocator_backend() != "native":
        return ""  # cudaMallocAsync does not count allocations
    return f"allocations by {module.__name__}"


def operations() -> int | None:
    """What the device has done since the start of the process; None where it cannot be told."""
    if emulated():
        return int(sys.modules["emulator.faults"].operations())
    module = back_end()
    if not counter() or not module.is_initialized():
        return 0 if counter() else None
    stats = [module.memory_stats(index) for index in range(module.device_count())]
    return sum(int(stat.get("allocation.all.allocated", 0)) for stat in stats)
