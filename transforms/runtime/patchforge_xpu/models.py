# SPDX-License-Identifier: GPL-3.0-or-later
"""Dtypes, layouts, compilers and libraries that models are loaded with."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from .choice import chosen
from .devices import active, available, is_xpu, properties, torch_version, xpu_only
from .settings import arguments, state, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@xpu_only("bf16-strict", unless="device")
def bf16(supported: Any, device: Any) -> Any:
    """``supported``; False if bf16-strict is enabled and the XPU neither converts nor multiplies bfloat16."""
    found = properties(device)
    names = ("has_bfloat16_conversions", "has_subgroup_matrix_multiply_accumulate")
    return supported if not supported or any(getattr(found, name, True) for name in names) else False


def bf16_supported(device: Any) -> Any:
    """What torch says about bfloat16 on an XPU (True where it is too old to say), refined by :func:`bf16`."""
    if not available():
        return False
    import torch

    try:
        supported = torch.xpu.is_bf16_supported()
    except Exception:
        supported = True
    return bf16(supported, device)


@xpu_only("fp64", unless="device")
def fp64(default: Any, device: Any) -> Any:
    """Whether an XPU computes in float64: ``default``, or what the device says if fp64 is enabled."""
    return bool(getattr(properties(device), "has_fp64", default))


@xpu_only(of="t")
def positive_zero(t: Any) -> Any:
    """A tensor on an XPU with +0.0 for -0.0, which casts to NaN in float8 there; any other tensor as it is."""
    import torch

    return torch.where(t == 0, torch.zeros_like(t), t)


@xpu_only(of="device")
def optimise_model(model: Any, device: Any) -> Any:
    """``model``, with channels-last convolutions and a compiled diffusion model where a level or opt-in says so."""
    for name, optimise in (("channels-last", _channels_last), ("compile", _compile)):
        if active(name):
            try:
                optimise(model)
            except Exception as error:
                warn(f"The optimisation {name} failed; the model is used without it: {error}")
    return model


def _channels_last(model: Any) -> None:
    """Lay out 4-D convolution weights that are on an XPU as channels-last, in place; values and names stay."""
    import torch

    for module in model.modules():
        weight = getattr(module, "weight", None) if isinstance(module, torch.nn.Conv2d) else None
        if weight is not None and is_xpu(weight) and weight.dim() == 4 and type(weight.data) is torch.Tensor:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _compile(model: Any) -> None:
    """Compile ``model.diffusion_model`` in place, once; what cannot be compiled stays eager."""
    module = getattr(model, "diffusion_model", None)
    if module is None or module in state.compiled or not hasattr(module, "compile"):
        return
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True  # noqa: SLF001 (the documented way to survive a failing backend)
    state.compiled.add(module)
    module.compile()


def ipex_usable(namespace: Mapping[str, Any], model: Any) -> bool:
    """Whether ipex.optimize may have ``model``: IPEX is there, no weight quantised (#7063), all on the XPU."""
    if "ipex" not in namespace or model is None:
        return False
    return not active() or all(_plain(weight) and is_xpu(weight) for weight in model.parameters())


def _plain(weight: Any) -> bool:
    name = str(weight.dtype)
    return "float8" not in name and name not in ("torch.int8", "torch.uint8")


@xpu_only()
def ipex_optimize(optimize: Callable[..., Any]) -> Callable[..., Any]:
    """ipex.optimize that keeps dropout modules (intel-extension-for-pytorch#663) and whose failures are logged."""
    return functools.partial(_ipex_optimize, optimize)


def _ipex_optimize(optimize: Callable[..., Any], model: Any, **kwargs: Any) -> Any:
    try:
        try:
            return optimize(model, **{"replace_dropout_with_identity": False, **kwargs})
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
            return optimize(model, **kwargs)
    except Exception as error:
        warn(f"ipex.optimize failed; the model is used as it is: {error}")
        return model


@xpu_only("ipex")
def ipex_opt_in(model: Any) -> Any:
    """``model`` through ipex.optimize, for releases from v0.21.0 on, if enabled and torch is not newer than 2.8."""
    if not chosen() or torch_version() > (2, 8):
        return model
    try:
        import intel_extension_for_pytorch as ipex
        import torch
    except Exception as error:
        warn(f"The opt-in ipex has no effect: {error}")
        return model
    if not ipex_usable({"ipex": ipex}, model):
        return model
    with torch.no_grad():
        return ipex_optimize(ipex.optimize)(model.eval(), inplace=True, graph_mode=True, concat_linear=True)


def triton_wanted() -> bool:
    """Whether comfy-kitchen's Triton backend should be used: enabled, on an XPU, and triton imports."""
    if not active("triton") or not chosen():
        return False
    try:
        importlib.import_module("triton")
    except Exception as error:
        warn(f"The opt-in triton has no effect: {error}")
        return False
    return True


def enable_triton(registry: Any) -> None:
    """Take back upstream's disabling of Triton in comfy-kitchen's ``registry``, if :func:`triton_wanted`."""
    if getattr(arguments(), "disable_triton_backend", None) or not triton_wanted():
        return
    try:
        registry.enable("triton")
    except Exception as error:
        warn(f"The opt-in triton has no effect: comfy-kitchen does not enable it: {error}")


def dynamic_vram() -> bool:
    """Whether DynamicVRAM may run: enabled, on an XPU, and a provider for XPU is installed (stock aimdo is not one)."""
    if not active("dynamic-vram") or not chosen():
        return False
    if any(importlib.util.find_spec(name) for name in ("comfy_aimdo_xpu_runtime", "comfy_aimdo_xpu")):
        return True
    warn("The opt-in dynamic-vram has no effect: neither comfy_aimdo_xpu_runtime nor comfy_aimdo_xpu is installed.")
    return False


def dynamic_vram_gate(flag: Any) -> Any:
    """``flag`` (--enable-dynamic-vram), or True with :func:`dynamic_vram`."""
    return True if not flag and dynamic_vram() else flag


def dynamic_vram_index(index: Any, device: Any) -> Any:
    """``index`` (that of a CUDA device, else None), or an XPU's own with :func:`dynamic_vram`."""
    return device.index if index is None and is_xpu(device) and dynamic_vram() else index
