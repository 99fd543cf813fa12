"""Operators of torch that XPUs lacked or lack, as data: no place names a device, and a call may end in an error.

torch-xpu-ops lists what it leaves to the CPU in ``src/ATen/native/xpu/XPUFallback.template``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

#: The text prefilter: a file without any of these calls none of them.
NEEDLES = re.compile(rb"grid_sample|antialias")


def _anything(_: ast.Call) -> bool:
    return True


def _antialiased(call: ast.Call) -> bool:
    """Whether a resize is antialiased, or may be: ``antialias`` is given and is neither False nor None."""
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "antialias"), None)
    return given is not None and not (isinstance(given, ast.Constant) and not given.value)


@dataclass(frozen=True)
class Operator:
    """What XPUs lack: the calls that need it, when they do, and what becomes of them."""

    calls: tuple[str, ...]
    why: str
    sources: tuple[str, ...]
    needed_by: Callable[[ast.Call], bool] = _anything


OPERATORS = (
    Operator(
        calls=(
            "torch.nn.functional.interpolate",
            "torchvision.transforms.Resize",
            "torchvision.transforms.functional.resize",
            "torchvision.transforms.v2.Resize",
            "torchvision.transforms.v2.functional.resize",
        ),
        why="for tensors on an XPU, torch 2.5 and older and IPEX have no antialiased resizing: with "
        "PYTORCH_ENABLE_XPU_FALLBACK=1, which a patched ComfyUI sets, torch leaves it to the CPU",
        sources=("torch-xpu-ops#1106", "intel-extension-for-pytorch#705", "IPAdapter_plus#604"),
        needed_by=_antialiased,
    ),
    Operator(
        calls=("torch.nn.functional.grid_sample", "torch.grid_sampler", "torch.grid_sampler_2d"),
        why="older XPU builds of torch, and IPEX, leave it to the CPU, which takes no float16 and no bfloat16 there: "
        "float32, or a newer torch",
        sources=("pytorch#127002", "torch-xpu-ops#396"),
    ),
)
_BY_CALL = {name: entry for entry in OPERATORS for name in entry.calls}


def operator(name: str, call: ast.Call) -> Operator | None:
    """What XPUs lack of what a call of this full name needs; None for all others."""
    entry = _BY_CALL.get(name)
    return entry if entry is not None and entry.needed_by(call) else None
