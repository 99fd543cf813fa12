# SPDX-License-Identifier: GPL-3.0-or-later
"""``--help-gpu``: what was found, what would be chosen, and why."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from .choice import cuda_first, other_backend
from .devices import available
from .memory import is_integrated, ram
from .settings import GIB, LEVELS, OPT_INS, VARIABLES, arguments, configure, state
from .start import select_devices, set_oneapi_selector

if TYPE_CHECKING:
    from collections.abc import Iterator


def help_gpu(args: Any) -> None:
    """Print what was found and what would be chosen; ends with SystemExit (0, or 1 if torch cannot be imported)."""
    select_devices(args)
    set_oneapi_selector(args)
    try:
        import torch
    except Exception as error:
        print(f"torch cannot be imported, so nothing can be said about GPUs: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    device, reason = _choice(torch)
    cuda, xpu = list(_devices(torch, "cuda")), list(_devices(torch, "xpu"))
    print(f"torch {torch.__version__} (CUDA {torch.version.cuda}, ROCm {getattr(torch.version, 'hip', None)})")
    print("CUDA or ROCm devices:", *(cuda or ["none"]), sep="\n  ")
    print("Intel XPU devices:", *(xpu or ["none"]), sep="\n  ")
    print(f"CPU: {os.cpu_count()} threads, {_gib(ram().total)} of RAM")
    print(f"Chosen: {device}, because {reason}.")
    names = sorted(name for name, level in OPT_INS.items() if state.level >= level or name in state.enable)
    opt_ins = ", ".join(names if state.level else []) or "none"
    print(f"Level: {LEVELS[state.level]}; precision: {state.precision or 'not set'}; opt-ins: {opt_ins}")
    print("Environment:", *(f"{name}={os.environ.get(name, '(not set)')}" for name in VARIABLES), sep="\n  ")
    raise SystemExit(0)


def _devices(torch: Any, kind: str) -> Iterator[str]:
    """One line per device: index, name, total memory, and whether an XPU is integrated."""
    api: Any = getattr(torch, kind, None)
    try:
        count = api.device_count() if api is not None and api.is_available() else 0
    except Exception as error:
        yield f"cannot be listed: {error}"
        return
    for index in range(count):
        try:
            found = api.get_device_properties(index)
            note = f", {'integrated' if is_integrated(index) else 'discrete'}" if kind == "xpu" else ""
            yield f"{kind}:{index} {found.name}, {_gib(found.total_memory)}{note}"
        except Exception as error:
            yield f"{kind}:{index} cannot be asked: {error}"


def _choice(torch: Any) -> tuple[str, str]:
    """The kind of device ComfyUI would choose, and why."""
    args, forced = arguments(), configure().force
    if getattr(args, "cpu", None):
        return "cpu", "--cpu was given"
    if getattr(args, "directml", None) is not None:
        return "directml", "--directml was given"
    if torch.backends.mps.is_available():
        return "mps", "this is a Mac with MPS"
    cuda = torch.cuda.is_available()
    if available() and cuda_first():
        return "cuda", "CUDA and ROCm come before XPU (--force-intel-xpu changes that)"
    if available():
        return "xpu", "it was asked for" if forced and cuda else "torch can use it"
    missing = "the Intel GPU was asked for, torch finds none, and " if forced else ""
    if cuda:
        return "cuda", f"{missing}torch can use CUDA or ROCm"
    if other_backend(torch):
        return "another accelerator", f"{missing}torch has one that is not CUDA, ROCm or XPU"
    return "cpu", f"{missing}torch finds no accelerator"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
