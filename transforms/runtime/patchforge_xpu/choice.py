# SPDX-License-Identifier: GPL-3.0-or-later
"""Which device ComfyUI computes on: CUDA and ROCm before XPU before the CPU, unless the user says otherwise."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from .attention import suspect
from .devices import available, is_integrated, properties
from .machine import built_for, cause_and_cure, intel_there, out_of_reach
from .settings import arguments, configure, log, precision_flags, state, warn
from .start import built_for_xpu

_thread = threading.local()  #: settled: this thread's current XPU was looked at


def detect(found: Any) -> Any:
    """``found`` (through IPEX, in releases before v0.1.2), or True where torch has an XPU of its own."""
    return found or ((built_for_xpu() or configure().force) and available()) or found


def choose_device(found: Any) -> Any:
    """``found``, or False where torch has CUDA or ROCm too, that can be used, and the XPU was not forced.

    Also the moment at which what had to wait for torch happens: the precision, the device among several, and the end of
    a start whose --force-intel-xpu cannot be had (SystemExit). Asks torch nothing more where ``found`` is False and
    nothing was forced: that was torch's own answer.
    """
    if state.available is None:
        state.available = bool(found)
    state.cuda_first = found is True and cuda_first()
    state.suspect = bool(found) and suspect()
    if not found and configure().force and not flag_says_elsewhere(arguments()):
        if forced_by_flag():
            raise SystemExit(f"patchforge: --force-intel-xpu was given, and torch finds no XPU. {cause_and_cure()}")
        warn(f"PATCHFORGE_PREFER_XPU is set, and torch finds no XPU: another device is used. {cause_and_cure()}")
    _settle(chosen=bool(found) and not state.cuda_first)
    return False if state.cuda_first else found


def cuda_first() -> bool:
    """Whether a build with both backends leaves the work to CUDA or ROCm. Only asked where an XPU is there."""
    import torch

    built = getattr(torch.version, "cuda", None) or getattr(torch.version, "hip", None)
    return bool(built) and not configure().force and bool(torch.cuda.is_available())


def chosen() -> bool:
    """Whether ComfyUI computes on an XPU."""
    return not flag_says_elsewhere(arguments()) and available() and not cuda_first()


def forced_by_flag() -> bool:
    """Whether --force-intel-xpu was given; the variable only prefers the XPU."""
    return bool(getattr(arguments(), "force_intel_xpu", None))


def flag_says_elsewhere(args: Any) -> bool:
    """Whether a flag sends the work to another device."""
    return bool(getattr(args, "cpu", None)) or getattr(args, "directml", None) is not None


def _settle(*, chosen: bool) -> None:
    """Apply precision and default device to an XPU that was chosen; say that they are ignored elsewhere. Once."""
    settings, args = configure(), arguments()
    if settings.settled:
        return
    settings.settled = True
    if chosen and not flag_says_elsewhere(args):
        try:
            for flag in precision_flags(args) if args is not None else ():
                setattr(args, flag, True)
        except SystemExit as error:  # start() was not called, and here upstream's bare except would hide it
            warn(str(error))
        _set_device(args)
    elif settings.precision is not None:
        warn(f"Precision {settings.precision} is for Intel GPUs and is ignored: the device is another one.")


def wanted_device(args: Any) -> tuple[int | None, str]:
    """The XPU to make the current one and why; None where torch's own stays. Raises what torch.xpu raises.

    It is ``--default-device``, else the first card where an integrated GPU comes before it (AI-Playground#79). A filter
    comes before either: upstream lets it win, too.
    """
    flags = ("cuda_device", "intel_device", "oneapi_device_selector")
    if any(getattr(args, name, None) is not None for name in flags):
        return None, ""
    import torch

    index, count = getattr(args, "default_device", None), torch.xpu.device_count()
    if index is not None:
        if 0 <= index < count:
            return index, "--default-device names it"
        warn(f"--default-device {index} is ignored: the number of XPUs is {count}, counted from 0.")
    elif count > 1 and not any(os.environ.get(name) for name in ("ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR")):
        cards = [number for number in range(count) if not is_integrated(number)]
        if cards and cards[0] > 0:
            return cards[0], "the XPUs before it are integrated; --default-device N chooses another"
    return None, ""


def _set_device(args: Any) -> None:
    """Make the device that is wanted the current one, and say so."""
    import torch

    try:
        index, why = wanted_device(args)
        if index is not None:
            torch.xpu.set_device(index)
            state.index, _thread.settled = index, True
            log.info("xpu:%d (%s) is used: %s.", index, getattr(properties(index), "name", "no name"), why)
    except Exception as error:
        warn(f"The choice among the XPUs stays torch's: {error}")


def current_device(index: Any) -> Any:
    """``index``, the current XPU of this thread; the chosen one in a thread that torch starts with its first.

    Also makes it the current one there: prompts run in another thread than the start.
    """
    if state.index is None or getattr(_thread, "settled", False):
        return index
    _thread.settled = True
    if index == 0:
        import torch

        torch.xpu.set_device(state.index)
        return state.index
    return index


def no_accelerator() -> bool:
    """True where torch surely has nothing but the CPU, so that ComfyUI should behave as with ``--cpu``.

    Any doubt is False: upstream then goes its way, which is an AssertionError on such a machine. A torch for CUDA or
    ROCm is asked nothing but where the machine has an Intel GPU and none that such a torch could use (an AMD one is
    none for CUDA); if it can use none, SystemExit says so.
    """
    import torch

    try:
        foreign = built_for(torch).startswith(("CUDA", "ROCm"))
        if (foreign and not out_of_reach(torch)) or available() or other_backend(torch) or torch.cuda.is_available():
            return False
    except Exception:
        return False
    if foreign:
        raise SystemExit(f"patchforge: {cause_and_cure()} --cpu starts ComfyUI without a GPU.")
    cure = f" {cause_and_cure()}" if built_for(torch) == "XPU" or intel_there() else ""
    warn(
        "No accelerator that torch can use was found: ComfyUI runs on the CPU. "
        f"--help-gpu says what was looked for.{cure}"
    )
    return True


def other_backend(torch: Any) -> bool:
    """Whether any backend besides CUDA, ROCm and XPU is there, or might be."""
    extensions = ("torch_npu", "torch_mlu", "torch_directml", "torch_musa", "habana_frameworks", "torch_xla")
    attributes = ("npu", "mlu", "corex", "musa", "hpu", "sdaa", "gcu")
    if any(sys.modules.get(name) is not None for name in extensions) or any(
        hasattr(torch, name) for name in attributes
    ):
        return True
    private = getattr(torch._C, "_get_privateuse1_backend_name", None)  # noqa: SLF001 (there is no public question)
    accelerator = getattr(torch, "accelerator", None)
    return bool(
        torch.backends.mps.is_available()
        or (private is not None and private() != "privateuseone")
        or (accelerator is not None and accelerator.is_available()),
    )
