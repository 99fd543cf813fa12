# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user asked for: levels, opt-ins, precision; flags before variables."""

from __future__ import annotations

import logging
import os
import re
import sys
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


log = logging.getLogger("patchforge.xpu")

LEVELS = ("O0", "O1", "O2", "O3")
#: Every opt-in, with the first level that includes it (4: no level does, it must be named).
OPT_INS = {
    "async-offload": 2,
    "non-blocking": 2,
    "triton": 2,
    "channels-last": 2,
    "compile": 3,
    "dynamic-vram": 4,
    "fp64": 4,
    "exit-when-lost": 4,
    "ipex": 4,
}
#: Names that were opt-ins and hold for everybody now; still accepted.
NO_LONGER_OPT_INS = frozenset({"bf16-strict"})
#: ComfyUI flags that a precision stands for: (required, set as well where the release has it).
PRECISIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fp32": (("force_fp32",), ("fp32_text_enc",)),
    "fp16": (("force_fp16", "fp16_unet"), ()),
    "bf16": (("bf16_unet", "bf16_vae"), ("bf16_text_enc",)),
    "int8": ((), ()),
}
#: auto avoids known faults, fused leaves all to torch, math uses no fused kernel, sliced trusts none with memory.
ATTENTIONS = ("auto", "fused", "math", "sliced")
VARIABLES = (
    "PATCHFORGE_PREFER_XPU",
    "PATCHFORGE_XPU_LEVEL",
    "PATCHFORGE_XPU_PRECISION",
    "PATCHFORGE_XPU_ENABLE",
    "PATCHFORGE_XPU_INTEGRATED",
    "PATCHFORGE_XPU_ATTENTION",
    "PATCHFORGE_XPU_ATTENTION_LIMIT",
    "PYTORCH_ENABLE_XPU_FALLBACK",
    "ZE_AFFINITY_MASK",
    "ONEAPI_DEVICE_SELECTOR",
    "UR_L0_ENABLE_RELAXED_ALLOCATION_LIMITS",
)
MIB, GIB = 1 << 20, 1 << 30
_PRECISION_FLAG = re.compile(r"(?P<force>force)_(fp|bf|int)\d\w*|(fp|bf|int)\d\w*_(?P<part>unet|vae|text_enc)")
_INT8_FLAG = re.compile(r"(force_)?int8(_unet)?")


@dataclass
class State:
    """What was asked and what was found out; one per process."""

    args: Any = None
    available: bool | None = None
    configured: bool = False
    force: bool = False
    level: int = 1
    enable: frozenset[str] = frozenset()
    precision: str | None = None
    attention: str = "auto"
    attention_limit: int | None = None
    kernels: dict[Any, Any] = field(default_factory=dict)
    suspect: bool = False
    settled: bool = False
    lost: str = ""
    cuda_first: bool = False
    index: int | None = None
    integrated: dict[int, bool] = field(default_factory=dict)
    int8: dict[int, bool] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)
    compiled: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)


state = State()


def reset() -> None:
    """Forget everything learnt about this process (for tests)."""
    state.__dict__.update(State().__dict__)


def warn(message: str) -> None:
    """Log a warning, once per text and process."""
    if message not in state.warned:
        state.warned.add(message)
        log.warning(message)


def _parse_level(text: str) -> int:
    if text.upper() not in LEVELS:
        raise ValueError(f"expected one of {', '.join(LEVELS)}")
    return LEVELS.index(text.upper())


def _parse_enable(text: str) -> frozenset[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(OPT_INS) - NO_LONGER_OPT_INS)
    if unknown:
        raise ValueError(f"unknown name {', '.join(unknown)}; the names are {', '.join(sorted(OPT_INS))}")
    return frozenset(names) - NO_LONGER_OPT_INS


def _parse_precision(text: str) -> str:
    if text.lower() not in PRECISIONS:
        raise ValueError(f"expected one of {', '.join(PRECISIONS)}")
    return text.lower()


def _parse_attention(text: str) -> str:
    if text.lower() not in ATTENTIONS:
        raise ValueError(f"expected one of {', '.join(ATTENTIONS)}")
    return text.lower()


def _parse_bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([MG]?)(i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError("expected a number of bytes, M or G, as 2G or 512M; 0 turns chunking off")
    return int(match[1]) * {"": 1, "M": MIB, "G": GIB}[match[2].upper()]


def _read(
    parse: Callable[[str], Any], default: Any, *, given: str | None, flag: str, variable: str, strict: bool
) -> Any:
    """A setting from its flag, else from its variable, else ``default``.

    Raises SystemExit where ``strict`` and the text is wrong; otherwise that is logged and the default holds.
    """
    source, text = (flag, given) if given is not None else (variable, os.environ.get(variable) or None)
    if text is None:
        return default
    try:
        return parse(text)
    except ValueError as error:
        message = f"patchforge: {source} {text!r}: {error}."
        if strict:
            raise SystemExit(message) from None
        warn(f"{message} The default is used.")
        return default


def arguments() -> Any:
    """ComfyUI's flags: what main.py handed over, else what is parsed already (ComfyUI used as a library), else None."""
    return state.args if state.args is not None else getattr(sys.modules.get("comfy.cli_args"), "args", None)


def configure(*, strict: bool = False) -> State:
    """Read the settings once: ComfyUI's flags win over the environment."""
    if state.configured and not strict:
        return state
    args = arguments()

    def setting(parse: Callable[[str], Any], default: Any, name: str) -> Any:
        given, variable = getattr(args, f"xpu_{name}", None), f"PATCHFORGE_XPU_{name.upper()}"
        return _read(parse, default, given=given, flag=f"--xpu-{name}", variable=variable, strict=strict)

    prefers = os.environ.get("PATCHFORGE_PREFER_XPU", "").lower() in ("1", "true", "yes", "on")
    state.force = bool(getattr(args, "force_intel_xpu", None)) or prefers
    state.level = setting(_parse_level, 1, "level")
    state.enable = setting(_parse_enable, frozenset(), "enable")
    state.precision = setting(_parse_precision, None, "precision")
    state.attention = setting(_parse_attention, "auto", "attention")
    state.attention_limit = setting(_parse_bytes, None, "attention_limit")
    state.configured = True
    return state


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add patchforge's flags to ComfyUI's parser."""
    group = parser.add_argument_group("Intel GPUs (patchforge)")
    add = group.add_argument
    add("--force-intel-xpu", action="store_true", help="Use the Intel GPU even if a CUDA or ROCm GPU is there too.")
    add("--intel-device", metavar="N", help="Show only these Intel GPUs to this instance, e.g. 0 or 0,1.")
    add("--help-gpu", action="store_true", help="Print the GPUs found, which would be chosen and why, and exit.")
    add("--xpu-level", metavar="LEVEL", help="O0 (patches inert), O1 (default), O2 (faster) or O3 (adds compile).")
    add("--xpu-precision", metavar="TYPE", help="fp32, fp16, bf16 or int8 on an Intel GPU, where the release has it.")
    add("--xpu-attention", metavar="WAY", help=f"Attention on an Intel GPU: {', '.join(ATTENTIONS)} (default: auto).")
    names = ", ".join(sorted(OPT_INS))
    add("--xpu-enable", metavar="NAME[,NAME]", help=f"Opt-ins for Intel GPUs: {names}.")


def precision_flags(args: Any) -> list[str]:
    """The attributes of ``args`` that the precision asked for sets.

    Raises SystemExit if the release lacks one, or if the user gave another flag of the same group. int8 models say so
    themselves: where a release loads them, there is nothing to set.
    """
    name = configure().precision
    if name is None:
        return []
    offered = {flag for flag in vars(args) if _PRECISION_FLAG.fullmatch(flag) or _INT8_FLAG.fullmatch(flag)}
    required, optional = PRECISIONS[name]
    required = required if name != "int8" else tuple(sorted(filter(_INT8_FLAG.fullmatch, offered))[:1])
    if name == "int8" and not required and loads_int8():
        return []
    if not required or not offered.issuperset(required):
        since = " int8 models load since v0.27.0." if name == "int8" else ""
        raise SystemExit(
            f"patchforge: precision {name} was asked for, and this ComfyUI release has no flag for it. It offers "
            f"{', '.join(map(_spelled, sorted(offered))) or 'none'}.{since} "
            "Choose another --xpu-precision, or leave it out.",
        )
    flags = [*required, *(flag for flag in optional if flag in offered)]
    groups = {_group(flag) for flag in flags}
    rivals = sorted(f for f in offered if getattr(args, f) and f not in flags and _group(f) in groups)
    if rivals:
        raise SystemExit(
            f"patchforge: precision {name} was asked for, which sets {', '.join(map(_spelled, flags))}, and "
            f"{', '.join(map(_spelled, rivals))} is given too (or implied by another flag). Leave one of them out.",
        )
    return flags


def loads_int8() -> bool:
    """Whether this ComfyUI loads int8 models (v0.27.0 and later), by its own source: torch is not loaded yet."""
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "quant_ops.py")
    try:
        with open(path, encoding="utf-8") as file:
            return '"int8_tensorwise"' in file.read()
    except OSError:
        return False


def _group(flag: str) -> str:
    """The group of precision flags of which ComfyUI accepts one: force, unet, vae or text_enc."""
    match = _PRECISION_FLAG.fullmatch(flag)
    return (match["force"] or match["part"]) if match else flag


def _spelled(flag: str) -> str:
    return "--" + flag.replace("_", "-")
