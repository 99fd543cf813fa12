# SPDX-License-Identifier: GPL-3.0-or-later
"""Free memory, what "out of memory" looks like on an XPU, and how weights travel."""

from __future__ import annotations

import functools
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from .choice import chosen
from .devices import active, available, index_of, is_xpu, names_xpu, properties, xpu_only
from .settings import state, warn

if TYPE_CHECKING:
    from collections.abc import Callable


_INTEGRATED = re.compile(r"\b(1[34]0[VTU]|B3[79]0|UHD|HD Graphics|Iris(?!.*MAX))", re.IGNORECASE)
_DISCRETE = re.compile(r"\b[A-Z]\d{2,3}M?\b|Data Center|\b(Max|Flex) \d|Xe MAX|0x(56|e2|0b|49)", re.IGNORECASE)
#: Texts of plain RuntimeErrors that mean "out of memory" (pytorch#177714, pytorch#190972, torch-xpu-ops#5432).
OOM_MARKERS = (
    "UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
    "UR_RESULT_ERROR_OUT_OF_RESOURCES",
    "OUT_OF_HOST_MEMORY",
    "Allocation is out of device memory",
    "can NOT allocate memory block",
)


@xpu_only(keeps="estimate", unless="dev")
def free_memory(dev: Any, estimate: Any, reserved: int) -> Any:
    """Free memory of an XPU in bytes: never above ``estimate``, upstream's total minus ``reserved`` (#15323, #15487).

    The driver's answer counts only if it is sane; it may raise (pytorch#157989) or be stale (pytorch#161381).
    """
    import torch

    try:
        free, total = torch.xpu.mem_get_info(dev)
    except Exception:
        return estimate
    numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in (free, total))
    if not numbers or total <= 0 or not 0 <= free <= total or total - free < reserved:
        return estimate
    return min(estimate, free)


@xpu_only(keeps="estimate", unless="dev")
def integrated_free_memory(dev: Any, estimate: Any) -> Any:
    """Free memory of an XPU in bytes: on an integrated one not above the available RAM, which it lives in (#9128)."""
    if not is_integrated(dev):
        return estimate
    try:
        return min(estimate, ram().available)
    except Exception:
        return estimate


def is_integrated(dev: Any) -> bool:
    """Whether an XPU shares the RAM: by PATCHFORGE_XPU_INTEGRATED, torch's property, its name, or its size."""
    if names_xpu(dev) is False or not available():
        return False
    forced = os.environ.get("PATCHFORGE_XPU_INTEGRATED")
    if forced in ("0", "1"):
        return forced == "1"
    try:
        index = index_of(dev)
        if index not in state.integrated:
            state.integrated[index] = _looks_integrated(properties(index))
        return state.integrated[index]
    except Exception:
        return False


def _looks_integrated(properties: Any) -> bool:
    """From device properties: torch 2.13 says it (pytorch#182624); before, a model number marks a discrete card."""
    said = getattr(properties, "is_integrated_gpu", None)
    if isinstance(said, (bool, int)):
        return bool(said)
    name = str(getattr(properties, "name", "") or "")
    if name:
        return bool(_INTEGRATED.search(name)) or not _DISCRETE.search(name)
    return bool(getattr(properties, "total_memory", 0) > 0.75 * ram().total)


def ram() -> Any:
    import psutil

    return psutil.virtual_memory()


def is_oom(e: Any) -> bool:
    """Whether a RuntimeError is Level Zero's or IPEX's way to say "out of memory"; a lost device is not that."""
    if not isinstance(e, RuntimeError) or not active():
        return False
    text = str(e)
    return "DEVICE_LOST" not in text and any(marker in text for marker in OOM_MARKERS)


def oom_types(types: Any, exc: BaseException | None = None) -> Any:
    """``types`` for an ``except`` clause or isinstance, widened where ``exc`` is an XPU's "out of memory".

    While Python evaluates the expression of an ``except`` clause, the exception to match is ``sys.exc_info()[1]``.
    """
    exc = exc if exc is not None else sys.exc_info()[1]
    if exc is None or not is_oom(exc):
        return types
    return (*(types if isinstance(types, tuple) else (types,)), type(exc))


@xpu_only()
def survive(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` without its RuntimeErrors, which would end the prompt worker (pytorch#190972)."""
    return functools.partial(_surviving, function)


def _surviving(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except RuntimeError as error:
        warn(f"The Intel GPU reported an error; ComfyUI goes on: {error}")
        return None


def empty_cache() -> None:
    """Give the XPU's cached memory back, after the work in flight is done (errors are logged)."""
    if active():
        import torch

        survive(torch.xpu.synchronize)()
        survive(torch.xpu.empty_cache)()


@xpu_only("async-offload")
def offload_streams(current: Any, args: Any) -> Any:
    """The number of streams that weights are offloaded with: 2 if enabled and discrete, unless the user gave one."""
    given = getattr(args, "async_offload", None)
    explicit = (given is not None and given is not False) or getattr(args, "disable_async_offload", None)
    if explicit or not chosen() or is_integrated(None):
        return current
    return 2


@xpu_only()
def non_blocking(default: Any, device: Any) -> Any:
    """Whether copies to ``device`` may be non-blocking: on discrete XPUs, if enabled (#9322)."""
    wanted = is_xpu(device) and active("non-blocking") and not is_integrated(device)
    return default if bool(default) == wanted else wanted
