# SPDX-License-Identifier: GPL-3.0-or-later
"""Dtypes, layouts, compilers and libraries that models are loaded with."""

from __future__ import annotations

import collections
import functools
import importlib
import importlib.util
import re
from typing import TYPE_CHECKING, Any

from .choice import chosen
from .devices import active, available, index_of, is_xpu, names_xpu, properties, torch_version, xpu_only
from .settings import arguments, configure, state, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@xpu_only(unless="device")
def bf16(supported: Any, device: Any) -> Any:
    """``supported``; False where torch says that the XPU neither converts nor multiplies bfloat16 (#6707, #11032)."""
    card = properties(device)
    names = ("has_bfloat16_conversions", "has_subgroup_matrix_multiply_accumulate")
    return supported if not supported or any(getattr(card, name, True) for name in names) else False


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


def int8_compute(device: Any) -> bool:
    """Whether an XPU multiplies int8 matrices: a small product ran on it and equals the CPU's. Tried once a device."""
    if names_xpu(device) is False or not active():
        return False
    try:
        index = index_of(device)
        if index not in state.int8:
            state.int8[index] = False  # also for the next question, if this one does not come back
            state.int8[index] = _multiplies_int8(index)
        return state.int8[index]
    except Exception:
        return False


def _multiplies_int8(index: int) -> bool:
    import torch

    numbers = torch.arange(32 * 64, dtype=torch.int64)
    left = (numbers * 37 % 255 - 127).to(torch.int8).reshape(32, 64)
    right = (numbers * 91 % 255 - 127).to(torch.int8).reshape(64, 32)
    expected = left.to(torch.int32) @ right.to(torch.int32)
    found = torch._int_mm(left.to(f"xpu:{index}"), right.to(f"xpu:{index}"))  # noqa: SLF001 (upstream calls it)
    return bool(torch.equal(found.cpu(), expected))


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
    """ipex.optimize that gives back the very model, with the names and shapes of its weights, or undoes what it did."""
    return functools.partial(_ipex_optimize, optimize)


_TABLES = (dict, collections.OrderedDict)  #: a module's parameters, buffers, children and hooks
#: What makes another object or other weights of a model: ComfyUI goes on with the model that it has, patches weights by
#: name and shape, and copies them back when it unloads. Dropout: intel-extension-for-pytorch#663.
_IPEX_OFF = (
    "replace_dropout_with_identity",
    "conv_bn_folding",
    "linear_bn_folding",
    "graph_mode",
    "weights_prepack",
    "concat_linear",
)


def _ipex_optimize(optimize: Callable[..., Any], model: Any, **kwargs: Any) -> Any:
    before, weights = _Parts(model), _weights(model)
    try:
        optimized = _optimized(optimize, model, {**kwargs, **dict.fromkeys(_IPEX_OFF, False), "inplace": True})
        if optimized is not model or _weights(model) != weights:
            raise TypeError("it made another model, or weights of other names or shapes")  # noqa: TRY301
    except Exception as error:
        before.restore()
        warn(f"ipex.optimize failed; the model is used as it was: {error}")
    return model


def _optimized(optimize: Callable[..., Any], model: Any, options: dict[str, Any]) -> Any:
    """What ``optimize`` makes of the model, with those options that its version knows."""
    while True:
        try:
            return optimize(model, **options)
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None or unknown[1] not in options:
                raise
            del options[unknown[1]]


def _weights(model: Any) -> list[tuple[str, tuple[int, ...], Any]]:
    return [(name, tuple(value.shape), value.dtype) for name, value in model.state_dict().items()]


class _Parts:
    """The modules of a model and what they hold. No tensor is copied; restoring puts all of it back in place."""

    def __init__(self, model: Any) -> None:
        self.modules = [(module, type(module), dict(vars(module))) for module in model.modules()]
        held = (value for _, _, attributes in self.modules for value in attributes.values())
        self.tables = [(table, table.copy()) for table in held if type(table) in _TABLES]
        self.weights = [(weight, weight.data) for weight in (*model.parameters(), *model.buffers())]

    def restore(self) -> None:
        for module, kind, attributes in self.modules:
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(attributes)
        for table, content in self.tables:
            table.clear()
            table.update(content)
        for weight, data in self.weights:
            weight.data = data


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
        return ipex_optimize(ipex.optimize)(model.eval(), inplace=True)


def triton_wanted() -> bool:
    """Whether comfy-kitchen's Triton backend should be used: enabled or for int8, on an XPU, and triton imports."""
    best = configure().precision == "int8" and active()
    if not (active("triton") or best) or not chosen():
        return False
    try:
        importlib.import_module("triton")
    except Exception as error:
        back = " int8 models are computed by comfy-kitchen's eager back end." if best else ""
        warn(f"comfy-kitchen's Triton back end cannot be used: {error}.{back}")
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
