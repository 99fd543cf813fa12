# SPDX-License-Identifier: GPL-3.0-or-later
"""Free memory, what "out of memory" looks like on an XPU, and how weights travel."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from .choice import chosen
from .device_loss import note_loss
from .devices import active, available_ram, is_integrated, is_xpu, xpu_only
from .error_texts import ALWAYS, retries
from .settings import warn

if TYPE_CHECKING:
    from collections.abc import Callable

#: Under this name a handler's frame counts the errors that it asked about.
_COUNT = "__patchforge_asked"


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
        return min(estimate, available_ram())
    except Exception:
        return estimate


def is_oom(e: Any) -> bool:
    """Whether a RuntimeError is the way of a layer under torch to say "out of memory"; a lost device is not that.

    A text that may mean the driver instead deserves one retry: the handler that asks again hears False.
    """
    if not isinstance(e, RuntimeError) or not active():
        return False
    text = str(e)
    note_loss(text)
    deserved = retries(text)
    return deserved == ALWAYS or _asked(e) < deserved


def _asked(e: BaseException) -> int:
    """How many errors the handler that has caught ``e`` asked about before it.

    The count is kept with the handler's frame and goes with it; each error keeps its own number.
    """
    if not hasattr(e, _COUNT):
        frame = e.__traceback__.tb_frame.f_locals if e.__traceback__ is not None else {}
        setattr(e, _COUNT, frame.get(_COUNT, 0))
        frame[_COUNT] = frame.get(_COUNT, 0) + 1
    return int(getattr(e, _COUNT))


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
        if not note_loss(str(error)):
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
