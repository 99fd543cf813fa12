"""The machines on which both versions of an expression are evaluated, and what ``torch`` does there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class World:
    """One made-up machine."""

    name: str
    cuda: bool
    xpu: bool
    has_xpu: bool = True  #: torch.xpu exists

    @property
    def intel_alone(self) -> bool:
        """An XPU is all there is."""
        return self.xpu and not self.cuda


#: Where nothing may change.
WORLDS = (
    World("CUDA alone", cuda=True, xpu=False),
    World("CUDA, and a torch without torch.xpu", cuda=True, xpu=False, has_xpu=False),
    World("CUDA beside an XPU", cuda=True, xpu=True),
    World("no accelerator", cuda=False, xpu=False),
)
XPU = World("an XPU alone", cuda=False, xpu=True)

#: What a torch without CUDA says to most calls of torch.cuda (torch/cuda/__init__.py, _lazy_init).
NO_CUDA = "Torch not compiled with CUDA enabled"
#: Of ``torch.cuda``: what does nothing, answers 0 or is a class where there is no CUDA; all else raises.
QUIET_WITHOUT_CUDA = frozenset(
    [
        *("amp", "OutOfMemoryError", "device_count", "empty_cache", "get_rng_state_all", "manual_seed"),
        *("manual_seed_all", "is_available", "is_bf16_supported", "is_initialized", "memory_stats", "seed", "seed_all"),
        *("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"),
    ]
)
MODULES = frozenset(("nvtx",))  #: of ``torch.cuda``: there without CUDA, and their functions raise
#: Of ``torch.cuda``: what ``torch.xpu`` lacks.
LACKING_ON_XPU = frozenset(
    [
        *("OutOfMemoryError", "CUDAGraph", "ExternalStream", "amp", "caching_allocator_alloc", "cudart"),
        *(
            "default_stream",
            "get_allocator_backend",
            "ipc_collect",
            "list_gpu_processes",
            "max_memory_cached",
            "memory_cached",
        ),
        *("memory_summary", "nccl", "nvtx", "reset_max_memory_allocated", "reset_max_memory_cached"),
    ]
)
#: Of ``torch.xpu``: what takes less than its namesake of ``torch.cuda`` (torch/xpu/streams.py of torch 2.13).
TAKEN_BY_XPU = {"Event": ("enable_timing",)}
#: What a function of ``torch.xpu`` says that does not take what it is given.
NOT_TAKEN = "is not taken by torch.xpu."
