# SPDX-License-Identifier: GPL-3.0-or-later
"""What the patches of patchforge call: everything they add to ComfyUI for Intel GPUs (XPU).

Nothing here imports torch before a hook needs it. On a machine without an XPU every hook that takes upstream's value as
its first argument returns that very object. Flags, variables and levels are described in patchforge's docs/runtime.md.
Numbers like #15323 are ComfyUI issues unless another project is named. This file runs on Python 3.9 and later.
"""
# torch is imported lazily, and a hook must not end ComfyUI:
# ruff: noqa: PLC0415, BLE001

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import math
import os
import re
import sys
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

_log = logging.getLogger("patchforge.xpu")

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
    "bf16-strict": 4,
    "ipex": 4,
}
#: ComfyUI flags that a precision stands for: (required, set as well where the release has it).
PRECISIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fp32": (("force_fp32",), ("fp32_text_enc",)),
    "fp16": (("force_fp16", "fp16_unet"), ()),
    "bf16": (("bf16_unet", "bf16_vae"), ("bf16_text_enc",)),
    "int8": ((), ()),
}
VARIABLES = (
    "PATCHFORGE_PREFER_XPU",
    "PATCHFORGE_XPU_LEVEL",
    "PATCHFORGE_XPU_PRECISION",
    "PATCHFORGE_XPU_ENABLE",
    "PATCHFORGE_XPU_INTEGRATED",
    "PATCHFORGE_XPU_ATTENTION_LIMIT",
    "ZE_AFFINITY_MASK",
    "ONEAPI_DEVICE_SELECTOR",
    "UR_L0_ENABLE_RELAXED_ALLOCATION_LIMITS",
)
#: Texts of plain RuntimeErrors that mean "out of memory" (pytorch#177714, pytorch#190972, torch-xpu-ops#5432).
OOM_MARKERS = (
    "UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
    "UR_RESULT_ERROR_OUT_OF_RESOURCES",
    "OUT_OF_HOST_MEMORY",
    "Allocation is out of device memory",
    "can NOT allocate memory block",
)
_MIB, _GIB = 1 << 20, 1 << 30
_DEVICE_LIST = re.compile(r"\d+(\.\d+)?(,\d+(\.\d+)?)*")
_PRECISION_FLAG = re.compile(r"(?P<force>force)_(fp|bf|int)\d\w*|(fp|bf|int)\d\w*_(?P<part>unet|vae|text_enc)")
_INT8_FLAG = re.compile(r"(force_)?int8(_unet)?")
_INTEGRATED = re.compile(r"\b(1[34]0[VTU]|B3[79]0|UHD|HD Graphics|Iris(?!.*MAX))", re.IGNORECASE)
_DISCRETE = re.compile(r"\b[A-Z]\d{2,3}M?\b|Data Center|\b(Max|Flex) \d|Xe MAX|0x(56|e2|0b|49)", re.IGNORECASE)
_ALCHEMIST = re.compile(r"\bA\d{2,3}M?\b|\bFlex \d|0x56", re.IGNORECASE)


@dataclass
class _State:
    """What was asked and what was found out; one per process."""

    args: Any = None
    available: bool | None = None
    configured: bool = False
    force: bool = False
    level: int = 1
    enable: frozenset[str] = frozenset()
    precision: str | None = None
    attention_limit: int | None = None
    settled: bool = False
    cuda_first: bool = False
    integrated: dict[int, bool] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)
    compiled: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)


_state = _State()


def _reset() -> None:
    """Forget everything learnt about this process (for tests)."""
    _state.__dict__.update(_State().__dict__)


def _warn(message: str) -> None:
    """Log a warning, once per text and process."""
    if message not in _state.warned:
        _state.warned.add(message)
        _log.warning(message)


# --- Settings -------------------------------------------------------------------------------------------------------


def _parse_level(text: str) -> int:
    if text.upper() not in LEVELS:
        raise ValueError(f"expected one of {', '.join(LEVELS)}")
    return LEVELS.index(text.upper())


def _parse_enable(text: str) -> frozenset[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(OPT_INS))
    if unknown:
        raise ValueError(f"unknown name {', '.join(unknown)}; the names are {', '.join(sorted(OPT_INS))}")
    return frozenset(names)


def _parse_precision(text: str) -> str:
    if text.lower() not in PRECISIONS:
        raise ValueError(f"expected one of {', '.join(PRECISIONS)}")
    return text.lower()


def _parse_bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([MG]?)(i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError("expected a number of bytes, M or G, as 2G or 512M; 0 turns chunking off")
    return int(match[1]) * {"": 1, "M": _MIB, "G": _GIB}[match[2].upper()]


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
        _warn(f"{message} The default is used.")
        return default


def _args() -> Any:
    """ComfyUI's flags: what main.py handed over, else what is parsed already (ComfyUI used as a library), else None."""
    return _state.args if _state.args is not None else getattr(sys.modules.get("comfy.cli_args"), "args", None)


def _configure(*, strict: bool = False) -> _State:
    """Read the settings once: ComfyUI's flags win over the environment."""
    if _state.configured and not strict:
        return _state
    args = _args()

    def setting(parse: Callable[[str], Any], default: Any, name: str) -> Any:
        given, variable = getattr(args, f"xpu_{name}", None), f"PATCHFORGE_XPU_{name.upper()}"
        return _read(parse, default, given=given, flag=f"--xpu-{name}", variable=variable, strict=strict)

    prefers = os.environ.get("PATCHFORGE_PREFER_XPU", "").lower() in ("1", "true", "yes", "on")
    _state.force = bool(getattr(args, "force_intel_xpu", None)) or prefers
    _state.level = setting(_parse_level, 1, "level")
    _state.enable = setting(_parse_enable, frozenset(), "enable")
    _state.precision = setting(_parse_precision, None, "precision")
    _state.attention_limit = setting(_parse_bytes, None, "attention_limit")
    _state.configured = True
    return _state


def _enabled(name: str) -> bool:
    """Whether an opt-in is on: an XPU is there, the level is not O0, and the name or the level asks for it."""
    settings = _configure()
    wanted = name in settings.enable or settings.level >= OPT_INS[name]
    return settings.level > 0 and wanted and _available()


def _on(level: int = 1) -> bool:
    """Whether an XPU is there and the level is at least ``level``."""
    return _available() and _configure().level >= level


# --- Before torch ---------------------------------------------------------------------------------------------------


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add patchforge's flags to ComfyUI's parser."""
    group = parser.add_argument_group("Intel GPUs (patchforge)")
    add = group.add_argument
    add("--force-intel-xpu", action="store_true", help="Use the Intel GPU even if a CUDA or ROCm GPU is there too.")
    add("--intel-device", metavar="N", help="Show only these Intel GPUs to this instance, e.g. 0 or 0,1.")
    add("--help-gpu", action="store_true", help="Print the GPUs found, which would be chosen and why, and exit.")
    add("--xpu-level", metavar="LEVEL", help="O0 (patches inert), O1 (default), O2 (faster) or O3 (adds compile).")
    add("--xpu-precision", metavar="TYPE", help="fp32, fp16, bf16 or int8 on an Intel GPU, where the release has it.")
    names = ", ".join(sorted(OPT_INS))
    add("--xpu-enable", metavar="NAME[,NAME]", help=f"Opt-ins for Intel GPUs: {names}.")


def add_oneapi_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--oneapi-device-selector`` to releases before v0.3.10, which lack it."""
    text = "Sets the oneAPI device(s) this instance will use."
    parser.add_argument("--oneapi-device-selector", type=str, default=None, metavar="SELECTOR_STRING", help=text)


def set_oneapi_selector(args: Any) -> None:
    """Hand ``--oneapi-device-selector`` to the SYCL runtime; to be called before torch is imported."""
    selector = getattr(args, "oneapi_device_selector", None)
    if selector is not None:
        os.environ["ONEAPI_DEVICE_SELECTOR"] = selector
        _log.info("Set oneapi device selector to: %s", selector)


def _cuda_device(args: Any) -> str | None:
    """``--cuda-device`` as Level Zero would write it; None if absent, "all", or no list of indices (a UUID)."""
    asked_for = getattr(args, "cuda_device", None)
    if isinstance(asked_for, (list, tuple)):
        asked_for = ",".join(map(str, asked_for))
    text = str(asked_for).replace(" ", "")
    return text if re.fullmatch(r"\d+(,\d+)*", text) else None


def select_devices(args: Any) -> None:
    """Let ``--cuda-device`` choose among Intel GPUs too; to be called before torch is imported.

    A ZE_AFFINITY_MASK in the environment, ``--intel-device`` and ``--oneapi-device-selector`` come first. The mask only
    filters and cannot put a device first, so ``--default-device`` is left to :func:`usable`.
    """
    _state.args = args
    devices = _cuda_device(args)
    explicit = (getattr(args, name, None) for name in ("intel_device", "oneapi_device_selector"))
    if devices is not None and not any(value is not None for value in explicit) and _built_for_xpu():
        os.environ.setdefault("ZE_AFFINITY_MASK", devices)


def _built_for_xpu() -> bool:
    """Whether torch can have an XPU, by its version alone: nothing is imported and torch is asked nothing."""
    try:
        if importlib.util.find_spec("intel_extension_for_pytorch") is not None:
            return True
        if "torch" in sys.modules:
            version = sys.modules["torch"].version
            return "+xpu" in version.__version__ or bool(getattr(version, "xpu", None))
        spec = importlib.util.find_spec("torch")
        for folder in (spec.submodule_search_locations if spec else None) or ():
            with open(os.path.join(folder, "version.py"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
                text = file.read()
            return "+xpu" in text or re.search(r"^xpu\b[^=\n]*=\s*['\"]", text, re.MULTILINE) is not None
    except (OSError, ValueError, ImportError, AttributeError):
        pass
    return False


def cuda_malloc_allowed(version: str) -> bool:
    """Whether cudaMallocAsync may be configured for a torch of this ``version``: not for XPU wheels."""
    return "+xpu" not in version


def _set_intel_device(devices: str) -> None:
    if not _DEVICE_LIST.fullmatch(devices):
        raise SystemExit(f"patchforge: --intel-device {devices!r}: expected indices, e.g. 0 or 0,1 (see --help-gpu).")
    mask = os.environ.setdefault("ZE_AFFINITY_MASK", devices)
    if mask != devices:
        _warn(f"--intel-device {devices} is ignored: the environment says ZE_AFFINITY_MASK={mask}.")


def start(args: Any) -> None:
    """Take over what the user asked for; called in main.py before torch is imported.

    Raises SystemExit with a message where a setting is wrong, and after ``--help-gpu``.
    """
    _state.args = args
    _configure(strict=True)
    if getattr(args, "intel_device", None) is not None:
        _set_intel_device(args.intel_device)
    if getattr(args, "help_gpu", None):
        _help_gpu(args)
    _precision_flags(args)
    if _state.level == 0 and _state.enable:
        _warn(f"--xpu-level O0 leaves {', '.join(sorted(_state.enable))} off; choose O1 or above to enable it.")


def _precision_flags(args: Any) -> list[str]:
    """The attributes of ``args`` that the precision asked for sets.

    Raises SystemExit if the release lacks one, or if the user gave another flag of the same group.
    """
    name = _configure().precision
    if name is None:
        return []
    offered = {flag for flag in vars(args) if _PRECISION_FLAG.fullmatch(flag) or _INT8_FLAG.fullmatch(flag)}
    required, optional = PRECISIONS[name]
    required = required if name != "int8" else tuple(sorted(filter(_INT8_FLAG.fullmatch, offered))[:1])
    if not required or not offered.issuperset(required):
        raise SystemExit(
            f"patchforge: precision {name} was asked for, and this ComfyUI release has no flag for it. It offers "
            f"{', '.join(map(_spelled, sorted(offered))) or 'none'}. Choose another --xpu-precision, or leave it out.",
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


def _group(flag: str) -> str:
    """The group of precision flags of which ComfyUI accepts one: force, unet, vae or text_enc."""
    match = _PRECISION_FLAG.fullmatch(flag)
    return (match["force"] or match["part"]) if match else flag


def _spelled(flag: str) -> str:
    return "--" + flag.replace("_", "-")


# --- What is there --------------------------------------------------------------------------------------------------


def _available() -> bool:
    """Whether torch.xpu is usable. Asked once; a torch that has no torch.xpu yet (IPEX adds one) is asked again."""
    if _state.available is None:
        import torch

        xpu = getattr(torch, "xpu", None)
        if xpu is None:
            return False
        try:
            _state.available = bool(xpu.is_available())
        except Exception:
            _state.available = False
    return _state.available


def _cuda_first() -> bool:
    """Whether a build with both backends leaves the work to CUDA or ROCm. Only asked where an XPU is there."""
    import torch

    built = getattr(torch.version, "cuda", None) or getattr(torch.version, "hip", None)
    return bool(built) and not _configure().force and bool(torch.cuda.is_available())


def _chosen() -> bool:
    """Whether ComfyUI computes on an XPU."""
    return not _elsewhere_by_flag(_args()) and _available() and not _cuda_first()


def _elsewhere_by_flag(args: Any) -> bool:
    """Whether a flag sends the work to another device."""
    return bool(getattr(args, "cpu", None)) or getattr(args, "directml", None) is not None


def detect(found: Any) -> Any:
    """``found`` (through IPEX, in releases before v0.1.2), or True where torch has an XPU of its own."""
    return found or ((_built_for_xpu() or _configure().force) and _available()) or found


def usable(found: Any) -> Any:
    """``found``, or False where torch has CUDA or ROCm too, that is usable, and the XPU was not forced.

    Also the moment at which what had to wait for torch happens: the precision and ``--default-device``. Never raises,
    and asks torch nothing where ``found`` is False: that was torch's own answer.
    """
    if _state.available is None:
        _state.available = bool(found)
    _state.cuda_first = found is True and _cuda_first()
    _settle(chosen=bool(found) and not _state.cuda_first)
    if not found and _configure().force:
        _warn("The Intel GPU was asked for, and torch finds none: ComfyUI goes on with the device it finds instead.")
    return False if _state.cuda_first else found


def _settle(*, chosen: bool) -> None:
    """Apply precision and default device to an XPU that was chosen; say that they are ignored elsewhere. Once."""
    settings, args = _configure(), _args()
    if settings.settled:
        return
    settings.settled = True
    if chosen and not _elsewhere_by_flag(args):
        try:
            for flag in _precision_flags(args) if args is not None else ():
                setattr(args, flag, True)
        except SystemExit as error:  # start() was not called, and here upstream's bare except would hide it
            _warn(str(error))
        _set_default_device(args)
    elif settings.precision is not None:
        _warn(f"Precision {settings.precision} is for Intel GPUs and is ignored: the device is another one.")


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
            _warn(f"--default-device {index} is ignored: the number of XPUs is {count}, counted from 0.")
    except Exception as error:
        _warn(f"--default-device {index} is ignored: {error}")


def no_accelerator() -> bool:
    """True where torch surely has nothing but the CPU, so that ComfyUI should behave as with ``--cpu``.

    Any doubt is False: upstream then goes its way. Upstream stops with an AssertionError on such a machine.
    """
    import torch

    try:
        if torch.version.cuda or getattr(torch.version, "hip", None) or _available() or _other_backend(torch):
            return False
        if torch.cuda.is_available():
            return False
    except Exception:
        return False
    _warn("No accelerator that torch can use was found: ComfyUI runs on the CPU. --help-gpu says what was looked for.")
    return True


def _other_backend(torch: Any) -> bool:
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


def is_xpu(device: Any) -> bool:
    """Whether a device (or its name) is an XPU."""
    return bool(_names_xpu(device))


def _names_xpu(device: Any) -> bool | None:
    """Whether a device is an XPU; None where it does not say (None, an index)."""
    kind = device if isinstance(device, str) else getattr(device, "type", None)
    return None if kind is None else str(kind).split(":")[0] == "xpu"


def asked(active: Any, device: Any) -> Any:
    """Whether the XPU arm answers for ``device``: by the device where it names a type, else ``active``.

    An XPU device counts beside an inactive XPU only in a build where CUDA came first; else upstream's answer stays.
    """
    named = _names_xpu(device)
    if named is None or named == bool(active) or not (active or _state.cuda_first):
        return active
    return named


# --- Help -----------------------------------------------------------------------------------------------------------


def _help_gpu(args: Any) -> None:
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
    print(f"CPU: {os.cpu_count()} threads, {_gib(_ram().total)} of RAM")
    print(f"Chosen: {device}, because {reason}.")
    names = sorted(name for name, level in OPT_INS.items() if _state.level >= level or name in _state.enable)
    opt_ins = ", ".join(names if _state.level else []) or "none"
    print(f"Level: {LEVELS[_state.level]}; precision: {_state.precision or 'not set'}; opt-ins: {opt_ins}")
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
    args, forced = _args(), _configure().force
    if getattr(args, "cpu", None):
        return "cpu", "--cpu was given"
    if getattr(args, "directml", None) is not None:
        return "directml", "--directml was given"
    if torch.backends.mps.is_available():
        return "mps", "this is a Mac with MPS"
    cuda = torch.cuda.is_available()
    if _available() and _cuda_first():
        return "cuda", "CUDA and ROCm come before XPU (--force-intel-xpu changes that)"
    if _available():
        return "xpu", "it was asked for" if forced and cuda else "torch can use it"
    missing = "the Intel GPU was asked for, torch finds none, and " if forced else ""
    if cuda:
        return "cuda", f"{missing}torch can use CUDA or ROCm"
    if _other_backend(torch):
        return "another accelerator", f"{missing}torch has one that is not CUDA, ROCm or XPU"
    return "cpu", f"{missing}torch finds no accelerator"


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"


def _ram() -> Any:
    import psutil

    return psutil.virtual_memory()


# --- Memory ---------------------------------------------------------------------------------------------------------


def _index(device: Any) -> int:
    """The index of an XPU; the current one where ``device`` does not say."""
    import torch

    index = device if isinstance(device, int) else getattr(device, "index", None)
    if isinstance(device, str) and ":" in device:
        index = int(device.split(":")[1])
    return int(torch.xpu.current_device() if index is None else index)


def _properties(device: Any) -> Any:
    """Torch's properties of an XPU, or None where they cannot be had."""
    import torch

    try:
        return torch.xpu.get_device_properties(_index(device))
    except Exception:
        return None


def _elsewhere(device: Any) -> bool:
    return _names_xpu(device) is False


def free_memory(dev: Any, estimate: Any, reserved: int) -> Any:
    """Free memory of an XPU in bytes: never above ``estimate``, upstream's total minus ``reserved`` (#15323, #15487).

    The driver's answer counts only if it is sane; it may raise (pytorch#157989) or be stale (pytorch#161381).
    """
    if not _on() or _elsewhere(dev):
        return estimate
    import torch

    try:
        free, total = torch.xpu.mem_get_info(dev)
    except Exception:
        return estimate
    numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in (free, total))
    if not numbers or total <= 0 or not 0 <= free <= total or total - free < reserved:
        return estimate
    return min(estimate, free)


def is_integrated(dev: Any) -> bool:
    """Whether an XPU shares the RAM: by PATCHFORGE_XPU_INTEGRATED, torch's property, its name, or its size."""
    if not _available() or _elsewhere(dev):
        return False
    forced = os.environ.get("PATCHFORGE_XPU_INTEGRATED")
    if forced in ("0", "1"):
        return forced == "1"
    try:
        index = _index(dev)
        if index not in _state.integrated:
            _state.integrated[index] = _looks_integrated(_properties(index))
        return _state.integrated[index]
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
    return bool(getattr(properties, "total_memory", 0) > 0.75 * _ram().total)


def integrated_free_memory(dev: Any, estimate: Any) -> Any:
    """Free memory of an XPU in bytes: on an integrated one not above the available RAM, which it lives in (#9128)."""
    if not _on() or _elsewhere(dev) or not is_integrated(dev):
        return estimate
    try:
        return min(estimate, _ram().available)
    except Exception:
        return estimate


def is_oom(e: Any) -> bool:
    """Whether a RuntimeError is Level Zero's or IPEX's way to say "out of memory"; a lost device is not that."""
    if not isinstance(e, RuntimeError) or not _on():
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


def survive(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` without its RuntimeErrors, which would end the prompt worker (pytorch#190972)."""
    return functools.partial(_surviving, function) if _on() else function


def _surviving(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except RuntimeError as error:
        _warn(f"The Intel GPU reported an error; ComfyUI goes on: {error}")
        return None


def empty_cache() -> None:
    """Give the XPU's cached memory back, after the work in flight is done (errors are logged)."""
    if _on():
        import torch

        survive(torch.xpu.synchronize)()
        survive(torch.xpu.empty_cache)()


def synchronize(device: Any = None) -> None:
    """Wait for an XPU. Errors pass, as they do from torch.cuda.synchronize, so that an OOM is seen where it happens."""
    if _on() and not _elsewhere(device):
        import torch

        torch.xpu.synchronize(device)


def offload_streams(current: Any, args: Any) -> Any:
    """The number of streams that weights are offloaded with: 2 if enabled and discrete, unless the user gave one."""
    given = getattr(args, "async_offload", None)
    explicit = (given is not None and given is not False) or getattr(args, "disable_async_offload", None)
    if explicit or not _enabled("async-offload") or not _chosen() or is_integrated(None):
        return current
    return 2


def non_blocking(default: Any, device: Any) -> Any:
    """Whether copies to ``device`` may be non-blocking: on discrete XPUs, if enabled (#9322)."""
    if not _on():
        return default
    wanted = is_xpu(device) and _enabled("non-blocking") and not is_integrated(device)
    return default if bool(default) == wanted else wanted


# --- Attention ------------------------------------------------------------------------------------------------------


def _is_xpu_tensor(tensor: Any) -> bool:
    return getattr(getattr(tensor, "device", None), "type", None) == "xpu"


def _compiling() -> bool:
    import torch

    compiler = getattr(torch, "compiler", None)
    return bool(compiler is not None and hasattr(compiler, "is_compiling") and compiler.is_compiling())


def attention(sdpa: Callable[..., Any]) -> Callable[..., Any]:
    """``sdpa`` that works in chunks of queries where its score matrix would be too large (#7004, #8767).

    Shapes as in torch: q (..., Lq, E), k (..., Lk, E), v (..., Lk, Ev), a mask that broadcasts to (..., Lq, Lk). Each
    query's result depends on no other query, so nothing is approximated.
    """
    if _compiling() or not _on() or _state.attention_limit == 0:
        return sdpa
    return functools.partial(_attention, sdpa)


def _attention(sdpa: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not 3 <= len(args) <= 6 or _compiling() or not _is_xpu_tensor(args[0]):
        return sdpa(*args, **kwargs)
    q, k, v, *rest = args
    options = {**dict(zip(("attn_mask", "dropout_p", "is_causal"), rest)), **kwargs}  # noqa: B905 (Python 3.9)
    rows = _rows(q, k, options)
    if rows >= q.shape[-2]:
        return sdpa(*args, **kwargs)
    import torch

    mask = options.pop("attn_mask", None)
    parts = []
    for first in range(0, q.shape[-2], rows):
        count = min(rows, q.shape[-2] - first)
        part = mask if mask is None or mask.dim() < 2 or mask.shape[-2] == 1 else mask.narrow(-2, first, count)
        parts.append(sdpa(q.narrow(-2, first, count), k, v, attn_mask=part, **options))
    return torch.cat(parts, dim=-2)


def _rows(q: Any, k: Any, options: Mapping[str, Any]) -> int:
    """How many queries to compute at once, so that their fp32 scores stay within the limit; at least 1."""
    queries = int(q.shape[-2])
    row = int(math.prod(q.shape[:-2]) * k.shape[-2] * 4)
    explicit = _configure().attention_limit
    small = row * queries <= (64 * _MIB if explicit is None else explicit)
    if small or options.get("is_causal") or options.get("dropout_p"):
        return queries
    if _fused(q, options.get("attn_mask")):
        return queries
    return max(1, (_default_limit(q.device) if explicit is None else explicit) // row)


def _default_limit(device: Any) -> int:
    """Bytes of scores: 4 GiB (compute-runtime#627) or half of what the device has left, and at least 64 MiB."""
    import torch

    try:
        left = int(_properties(device).total_memory - torch.xpu.memory_allocated(device))
    except Exception:
        left = 8 * _GIB
    return max(64 * _MIB, min(4 * _GIB, left // 2))


def _fused(q: Any, mask: Any) -> bool:
    """Whether torch has a kernel without a score matrix: Xe2 and PVC, head sizes 64 to 192, no mask (#4886, #3141)."""
    import torch

    if mask is not None or q.shape[-1] not in (64, 96, 128, 192) or q.dtype not in (torch.float16, torch.bfloat16):
        return False
    properties = _properties(q.device)
    matrix = getattr(properties, "has_subgroup_matrix_multiply_accumulate", True)
    return bool(matrix) and _torch_version() >= (2, 7) and not _ALCHEMIST.search(str(getattr(properties, "name", "")))


def _torch_version() -> tuple[int, int]:
    import torch

    match = re.match(r"(\d+)\.(\d+)", torch.__version__)
    return (int(match[1]), int(match[2])) if match else (0, 0)


# --- Models ---------------------------------------------------------------------------------------------------------


def positive_zero(t: Any) -> Any:
    """A tensor on an XPU with +0.0 for -0.0, which casts to NaN in float8 there; any other tensor as it is."""
    if not _is_xpu_tensor(t) or not _on():
        return t
    import torch

    return torch.where(t == 0, torch.zeros_like(t), t)


def ipex_usable(namespace: Mapping[str, Any], model: Any) -> bool:
    """Whether ipex.optimize may have ``model``: IPEX is there, no weight quantised (#7063), all on the XPU."""
    if "ipex" not in namespace or model is None:
        return False
    return not _on() or all(_plain(weight) and _is_xpu_tensor(weight) for weight in model.parameters())


def _plain(weight: Any) -> bool:
    name = str(weight.dtype)
    return "float8" not in name and name not in ("torch.int8", "torch.uint8")


def ipex_optimize(optimize: Callable[..., Any]) -> Callable[..., Any]:
    """ipex.optimize that keeps dropout modules (intel-extension-for-pytorch#663) and whose failures are logged."""
    return functools.partial(_ipex_optimize, optimize) if _on() else optimize


def _ipex_optimize(optimize: Callable[..., Any], model: Any, **kwargs: Any) -> Any:
    try:
        try:
            return optimize(model, **{"replace_dropout_with_identity": False, **kwargs})
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
            return optimize(model, **kwargs)
    except Exception as error:
        _warn(f"ipex.optimize failed; the model is used as it is: {error}")
        return model


def ipex_opt_in(model: Any) -> Any:
    """``model`` through ipex.optimize, for releases from v0.21.0 on, if enabled and torch is not newer than 2.8."""
    if not _enabled("ipex") or not _chosen() or _torch_version() > (2, 8):
        return model
    try:
        import intel_extension_for_pytorch as ipex
        import torch
    except Exception as error:
        _warn(f"The opt-in ipex has no effect: {error}")
        return model
    if not ipex_usable({"ipex": ipex}, model):
        return model
    with torch.no_grad():
        return ipex_optimize(ipex.optimize)(model.eval(), inplace=True, graph_mode=True, concat_linear=True)


def optimise_model(model: Any, device: Any) -> Any:
    """``model``, with channels-last convolutions and a compiled diffusion model where a level or opt-in says so."""
    if not is_xpu(device) or not _on():
        return model
    for name, optimise in (("channels-last", _channels_last), ("compile", _compile)):
        if _enabled(name):
            try:
                optimise(model)
            except Exception as error:
                _warn(f"The optimisation {name} failed; the model is used without it: {error}")
    return model


def _channels_last(model: Any) -> None:
    """Lay out 4-D convolution weights that are on an XPU as channels-last, in place; values and names stay."""
    import torch

    for module in model.modules():
        weight = getattr(module, "weight", None) if isinstance(module, torch.nn.Conv2d) else None
        if weight is not None and _is_xpu_tensor(weight) and weight.dim() == 4 and type(weight.data) is torch.Tensor:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _compile(model: Any) -> None:
    """Compile ``model.diffusion_model`` in place, once; what cannot be compiled stays eager."""
    module = getattr(model, "diffusion_model", None)
    if module is None or module in _state.compiled or not hasattr(module, "compile"):
        return
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True  # noqa: SLF001 (the documented way to survive a failing backend)
    _state.compiled.add(module)
    module.compile()


def bf16(supported: Any, device: Any) -> Any:
    """``supported``; False if bf16-strict is enabled and the XPU neither converts nor multiplies bfloat16."""
    if not supported or not _enabled("bf16-strict") or _elsewhere(device):
        return supported
    properties = _properties(device)
    names = ("has_bfloat16_conversions", "has_subgroup_matrix_multiply_accumulate")
    return supported if any(getattr(properties, name, True) for name in names) else False


def bf16_supported(device: Any) -> Any:
    """What torch says about bfloat16 on an XPU (True where it is too old to say), refined by :func:`bf16`."""
    if not _available():
        return False
    import torch

    try:
        supported = torch.xpu.is_bf16_supported()
    except Exception:
        supported = True
    return bf16(supported, device)


def fp64(default: Any, device: Any) -> Any:
    """Whether an XPU computes in float64: ``default``, or what the device says if fp64 is enabled."""
    if not _enabled("fp64") or _elsewhere(device):
        return default
    return bool(getattr(_properties(device), "has_fp64", default))


def triton_wanted() -> bool:
    """Whether comfy-kitchen's Triton backend should be used: enabled, on an XPU, and triton imports."""
    if not _enabled("triton") or not _chosen():
        return False
    try:
        importlib.import_module("triton")
    except Exception as error:
        _warn(f"The opt-in triton has no effect: {error}")
        return False
    return True


def enable_triton(registry: Any) -> None:
    """Take back upstream's disabling of Triton in comfy-kitchen's ``registry``, if :func:`triton_wanted`."""
    if getattr(_args(), "disable_triton_backend", None) or not triton_wanted():
        return
    try:
        registry.enable("triton")
    except Exception as error:
        _warn(f"The opt-in triton has no effect: comfy-kitchen does not enable it: {error}")


def dynamic_vram() -> bool:
    """Whether DynamicVRAM may run: enabled, on an XPU, and a provider for XPU is installed (stock aimdo is not one)."""
    if not _enabled("dynamic-vram") or not _chosen():
        return False
    if any(importlib.util.find_spec(name) for name in ("comfy_aimdo_xpu_runtime", "comfy_aimdo_xpu")):
        return True
    _warn("The opt-in dynamic-vram has no effect: neither comfy_aimdo_xpu_runtime nor comfy_aimdo_xpu is installed.")
    return False


def dynamic_vram_gate(flag: Any) -> Any:
    """``flag`` (--enable-dynamic-vram), or True with :func:`dynamic_vram`."""
    return True if not flag and dynamic_vram() else flag


def dynamic_vram_index(index: Any, device: Any) -> Any:
    """``index`` (that of a CUDA device, else None), or an XPU's own with :func:`dynamic_vram`."""
    return device.index if index is None and is_xpu(device) and dynamic_vram() else index


# --- Devices and streams --------------------------------------------------------------------------------------------


def autocast_device(default: Any, tensor: Any) -> Any:
    """The device type for torch.autocast: the tensor's, if it is on an XPU."""
    return "xpu" if _is_xpu_tensor(tensor) else default


@contextlib.contextmanager
def device_context(device: Any) -> Iterator[None]:
    """Make an XPU the current one, as upstream does for CUDA; nothing for other devices or without an index."""
    index = getattr(device, "index", None)
    if not is_xpu(device) or index is None or not _available():
        yield
        return
    import torch

    before = torch.xpu.current_device()
    if before == index:
        yield
        return
    torch.xpu.set_device(index)
    try:
        yield
    finally:
        torch.xpu.set_device(before)


def stream_api(default: Any, device: Any) -> Any:
    """The module that has Stream, stream and current_stream for ``device``: torch.xpu for an XPU, else ``default``."""
    if not is_xpu(device) or not _available():
        return default
    import torch

    return torch.xpu


def prefetch_devices(flag: Any, device: Any) -> Any:
    """``flag`` (the device is CUDA), or True for an XPU from O2 on: prefetch on a second stream."""
    return True if not flag and is_xpu(device) and _on(2) else flag
