# SPDX-License-Identifier: GPL-3.0-or-later
"""``--help-gpu``: what was found, what the start would choose, and why."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from .arithmetic import SHORT, advice, wrong_results
from .choice import cuda_first, forced_by_flag, other_backend, wanted_device
from .devices import available, is_integrated, ram
from .machine import built_for, cause_and_cure, intel_there
from .settings import GIB, LEVELS, OPT_INS, VARIABLES, arguments, configure, precision_flags, state
from .start import select_devices, set_oneapi_selector

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING = "nothing"


def help_gpu(args: Any) -> None:
    """Print what was found and what would be chosen; ends with SystemExit (0, or 1 if torch cannot be imported)."""
    select_devices(args)
    set_oneapi_selector(args)
    try:
        import torch
    except Exception as error:
        print(f"torch cannot be imported, so nothing can be said about GPUs: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    device, reason = choice(torch)
    cuda, xpu = list(_devices(torch, "cuda")), list(_devices(torch, "xpu"))
    print(f"torch {torch.__version__} (CUDA {torch.version.cuda}, ROCm {getattr(torch.version, 'hip', None)})")
    print("CUDA or ROCm devices:", *(cuda or ["none"]), sep="\n  ")
    print("Intel XPU devices:", *(xpu or ["none"]), sep="\n  ")
    print(f"CPU: {os.cpu_count()} threads, {_gib(ram().total)} of RAM")
    print(f"Chosen: {device}, because {reason}.")
    for line in _arithmetic(torch):
        print(line)
    names = sorted(name for name, level in OPT_INS.items() if state.level >= level or name in state.enable)
    opt_ins = ", ".join(names if state.level else []) or "none"
    print(f"Level: {LEVELS[state.level]}; precision: {state.precision or 'not set'}; opt-ins: {opt_ins}")
    print(f"Attention: {state.attention}")
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
            card = api.get_device_properties(index)
            note = f", {'integrated' if is_integrated(index) else 'discrete'}" if kind == "xpu" else ""
            yield f"{kind}:{index} {card.name}, {_gib(card.total_memory)}{note}"
        except Exception as error:
            yield f"{kind}:{index} cannot be asked: {error}"


def _arithmetic(torch: Any) -> Iterator[str]:
    """What each XPU computes wrongly, by dtype, with the flag that avoids it."""
    for index in range(torch.xpu.device_count() if available() else 0):
        try:
            wrong = wrong_results(index)
        except Exception as error:
            yield f"xpu:{index} could not be tried: {error}"
            continue
        for name, short in SHORT.items():
            faults = [f"{fault.split()[1]} {seen}" for fault, seen in wrong.items() if fault.split()[0] == name]
            if faults:
                yield f"xpu:{index} {short}: wrong results ({'; '.join(faults)}); {advice(wrong)}"
        if not wrong:
            yield f"xpu:{index} computes as the CPU does in {', '.join(SHORT.values())}."


def choice(torch: Any) -> tuple[str, str]:
    """The device that a start would use, or nothing where it would stop, and why."""
    try:
        if arguments() is not None:
            precision_flags(arguments())
    except SystemExit as error:
        return NOTHING, f"the start would stop: {error}".rstrip(".")
    return _by_flags(torch) or _found(torch)


def _by_flags(torch: Any) -> tuple[str, str] | None:
    args = arguments()
    if getattr(args, "directml", None) is not None:
        if importlib.util.find_spec("torch_directml") is None:
            return NOTHING, "the start would stop: --directml was given, and torch_directml is not installed"
        return "directml", "--directml was given"
    if getattr(args, "cpu", None):
        return "cpu", "--cpu was given"
    if forced_by_flag() and not available():
        return NOTHING, f"the start would stop: --force-intel-xpu was given. {cause_and_cure()}".rstrip(".")
    if torch.backends.mps.is_available():
        return "mps", "this is a Mac with MPS"
    return None


def _found(torch: Any) -> tuple[str, str]:
    cuda, forced = torch.cuda.is_available(), configure().force
    if available() and cuda_first():
        return "cuda", "CUDA and ROCm come before XPU (--force-intel-xpu changes that)"
    if available():
        index, why = wanted_device(arguments())
        name = "xpu" if index is None else f"xpu:{index}"
        return name, why or ("it was asked for" if forced and cuda else "torch can use it")
    missing = "the Intel GPU was asked for, torch finds none, and " if forced else ""
    if cuda:
        return "cuda", f"{missing}torch can use CUDA or ROCm"
    if other_backend(torch):
        return "another accelerator", f"{missing}torch has one that is not CUDA, ROCm or XPU"
    built = built_for(torch)
    if built.startswith(("CUDA", "ROCm")):
        cure = f" {cause_and_cure()}" if intel_there() or forced else ""
        return (
            NOTHING,
            f"the start would stop: torch is built for {built} and finds no such GPU or driver.{cure}".rstrip("."),
        )
    cure = f". {cause_and_cure()}" if intel_there() or forced or built == "XPU" else ""
    return "cpu", f"{missing}torch finds no accelerator{cure}".rstrip(".")


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
