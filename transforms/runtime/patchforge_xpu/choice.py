# SPDX-License-Identifier: GPL-3.0-or-later
"""Which device ComfyUI computes on: CUDA and ROCm before XPU before the CPU, unless the user says otherwise."""

from __future__ import annotations

import sys
from typing import Any

from .devices import available
from .settings import arguments, configure, precision_flags, state, warn
from .start import built_for_xpu


def detect(found: Any) -> Any:
    """``found`` (through IPEX, in releases before v0.1.2), or True where torch has an XPU of its own."""
    return found or ((built_for_xpu() or configure().force) and available()) or found


def choose_device(found: Any) -> Any:
    """``found``, or False where torch has CUDA or ROCm too, that can be used, and the XPU was not forced.

    Also the moment at which what had to wait for torch happens: the precision and ``--default-device``. Never raises,
    and asks torch nothing where ``found`` is False: that was torch's own answer.
    """
    if state.available is None:
        state.available = bool(found)
    state.cuda_first = found is True and cuda_first()
    _settle(chosen=bool(found) and not state.cuda_first)
    if not found and configure().force:
        warn("The Intel GPU was asked for, and torch finds none: ComfyUI goes on with the device it finds instead.")
    return False if state.cuda_first else found


def cuda_first() -> bool:
    """Whether a build with both backends leaves the work to CUDA or ROCm. Only asked where an XPU is there."""
    import torch

    built = getattr(torch.version, "cuda", None) or getattr(torch.version, "hip", None)
    return bool(built) and not configure().force and bool(torch.cuda.is_available())


def chosen() -> bool:
    """Whether ComfyUI computes on an XPU."""
    return not flag_says_elsewhere(arguments()) and available() and not cuda_first()


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
        _set_default_device(args)
    elif settings.precision is not None:
        warn(f"Precision {settings.precision} is for Intel GPUs and is ignored: the device is another one.")


def _set_default_device(args: Any) -> None:
    """Make ``--default-device`` the current XPU, unless a filter was given (which upstream lets win, too)."""
    index = getattr(args, "default_device", None)
    filters = (getattr(args, name, None) for name in ("cuda_device", "intel_device"))
    if index is None or any(value is not None for value in filters):
        return
    import torch

    try:
        count = torch.xpu.device_count()
        if 0 <= index < count:
            torch.xpu.set_device(index)
        else:
            warn(f"--default-device {index} is ignored: the number of XPUs is {count}, counted from 0.")
    except Exception as error:
        warn(f"--default-device {index} is ignored: {error}")


def no_accelerator() -> bool:
    """True where torch surely has nothing but the CPU, so that ComfyUI should behave as with ``--cpu``.

    Any doubt is False: upstream then goes its way. Upstream stops with an AssertionError on such a machine.
    """
    import torch

    try:
        if torch.version.cuda or getattr(torch.version, "hip", None) or available() or other_backend(torch):
            return False
        if torch.cuda.is_available():
            return False
    except Exception:
        return False
    warn("No accelerator that torch can use was found: ComfyUI runs on the CPU. --help-gpu says what was looked for.")
    return True


def other_backend(torch: Any) -> bool:
    """Whether any backend besides CUDA, ROCm and XPU is there, or might be."""
    extensions = ("torch_npu", "torch_mlu", "torch_directml", "torch_musa", "habana_frameworks", "torch_xla")
    attributes = ("npu", "mlu", "corex", "musa", "hpu", "sdaa", "gcu")
    if any(name in sys.modules for name in extensions) or any(hasattr(torch, name) for name in attributes):
        return True
    private = getattr(torch._C, "_get_privateuse1_backend_name", None)  # noqa: SLF001 (there is no public question)
    accelerator = getattr(torch, "accelerator", None)
    return bool(
        torch.backends.mps.is_available()
        or (private is not None and private() != "privateuseone")
        or (accelerator is not None and accelerator.is_available()),
    )
