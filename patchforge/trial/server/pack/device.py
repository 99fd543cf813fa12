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
    found = back_end()
    if found is None:
        return ""
    if found is torch.cuda and torch.cuda.get_allocator_backend() != "native":
        return ""  # cudaMallocAsync does not count allocations
    return f"allocations by {found.__name__}"


def operations() -> int | None:
    """What the device has done since the start of the process; None where it cannot be told."""
    if emulated():
        return int(sys.modules["emulator.faults"].operations())
    found = back_end()
    if not counter() or not found.is_initialized():
        return 0 if counter() else None
    stats = [found.memory_stats(index) for index in range(found.device_count())]
    return sum(int(stat.get("allocation.all.allocated", 0)) for stat in stats)
