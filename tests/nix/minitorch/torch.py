"""A torch that computes nothing: enough for ComfyUI to choose a device. MINITORCH names what is there: "cuda,xpu"."""

from __future__ import annotations

import os
from types import SimpleNamespace

__version__ = "2.14.0+xpu"
_there = os.environ.get("MINITORCH", "").split(",")
version = SimpleNamespace(cuda="13.0" if "cuda" in _there else None, hip=None)

_C = SimpleNamespace()


class device:
    def __init__(self, kind: object, index: int | None = None) -> None:
        name, _, number = str(kind).partition(":")
        self.type, self.index = ("cuda", int(name)) if name.isdigit() else (name, int(number) if number else index)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


class OutOfMemoryError(RuntimeError):
    pass


def _backend(kind: str, name: str) -> SimpleNamespace:
    card = SimpleNamespace(name=name, total_memory=12 << 30, is_integrated_gpu=False, has_fp64=True)
    return SimpleNamespace(
        is_available=lambda: kind in _there,
        device_count=lambda: int(kind in _there),
        current_device=lambda: 0,
        get_device_properties=lambda _device=None: card,
        get_device_name=lambda _device=None: name,
        mem_get_info=lambda _device=None: (11 << 30, 12 << 30),
        memory_stats=lambda _device=None: {"active_bytes.all.current": 0, "reserved_bytes.all.current": 0},
        set_device=lambda _device: None,
        synchronize=lambda: None,
        empty_cache=lambda: None,
        is_bf16_supported=lambda: True,
        OutOfMemoryError=OutOfMemoryError,
    )


cuda = _backend("cuda", "Pretended GeForce")
xpu = _backend("xpu", "Intel(R) Arc(TM) B580 Graphics")
backends = SimpleNamespace(
    mps=SimpleNamespace(is_available=lambda: False), cuda=SimpleNamespace(), cudnn=SimpleNamespace()
)
float16, float32, bfloat16, float64 = "float16", "float32", "bfloat16", "float64"
