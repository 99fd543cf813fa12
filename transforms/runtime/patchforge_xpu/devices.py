# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a hook has an XPU to do with: is one there, is it meant, and what torch says of it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from typing import TYPE_CHECKING, Any, TypeVar

from .settings import OPT_INS, configure, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CGROUPS = ("/proc/self", "/sys/fs/cgroup")
_INTEGRATED = re.compile(r"\b(1[34]0[VTU]|B3[79]0|UHD|HD Graphics|Iris(?!.*MAX))", re.IGNORECASE)
_DISCRETE = re.compile(r"\b[A-Z]\d{2,3}M?\b|Data Center|\b(Max|Flex) \d|Xe MAX|0x(56|e2|0b|49)", re.IGNORECASE)
_Hook = TypeVar("_Hook", bound="Callable[..., Any]")


def available() -> bool:
    """Whether torch.xpu can be used. Asked once; a torch that has no torch.xpu yet (IPEX adds one) is asked again."""
    if state.available is None:
        import torch

        xpu = getattr(torch, "xpu", None)
        if xpu is None:
            return False
        try:
            state.available = bool(xpu.is_available())
        except Exception:
            state.available = False
    return state.available


def active(want: int | str = 1) -> bool:
    """Whether an XPU is there and ``want`` is on: a level (1 for O1), or an opt-in by its name or by its level."""
    settings = configure()
    level = want if isinstance(want, int) else 1 if want in settings.enable else OPT_INS[want]
    return settings.level >= level and available()


def names_xpu(device: Any) -> bool | None:
    """Whether a device, its name or a tensor's device is an XPU; None where it does not say (None, an index)."""
    device = getattr(device, "device", device)
    kind = device if isinstance(device, str) else getattr(device, "type", None)
    return None if kind is None else str(kind).split(":")[0] == "xpu"


def is_xpu(device: Any) -> bool:
    """Whether a device, its name or a tensor's device is an XPU."""
    return bool(names_xpu(device))


def xpu_only(want: int | str = 1, *, keeps: str = "", of: str = "", unless: str = "") -> Callable[[_Hook], _Hook]:
    """Guards a hook that refines a value: where there is nothing to do, the very object it was given comes back.

    There is something to do where ``want`` is :func:`active`, the parameter ``of`` (a device, its name or a tensor) is
    an XPU, and the parameter ``unless`` does not name another device. ``keeps`` is the parameter that holds the value,
    the first one if it is not said. Guarded hooks are called with positions only.
    """

    def guard(hook: _Hook) -> _Hook:
        names = hook.__code__.co_varnames
        value = names.index(keeps) if keeps else 0
        must, may = (names.index(name) if name else None for name in (of, unless))

        @functools.wraps(hook)
        def guarded(*args: Any) -> Any:
            xpu = (must is None or is_xpu(args[must])) and (may is None or names_xpu(args[may]) is not False)
            return hook(*args) if xpu and active(want) else args[value]

        return guarded  # type: ignore[return-value]

    return guard


def asked(answer: Any, device: Any) -> Any:
    """Whether the XPU arm answers for ``device``: by the device where it names a type, else ``answer``.

    An XPU device counts beside an inactive XPU only in a build where CUDA came first; else upstream's answer stays.
    """
    named = names_xpu(device)
    if named is None or named == bool(answer) or not (answer or state.cuda_first):
        return answer
    return named


def index_of(device: Any) -> int:
    """The index of an XPU; the current one where ``device`` does not say."""
    import torch

    index = device if isinstance(device, int) else getattr(device, "index", None)
    if isinstance(device, str) and ":" in device:
        index = int(device.split(":")[1])
    return int(torch.xpu.current_device() if index is None else index)


def properties(device: Any) -> Any:
    """Torch's properties of an XPU, or None where they cannot be had."""
    import torch

    try:
        return torch.xpu.get_device_properties(index_of(device))
    except Exception:
        return None


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


def available_ram() -> int:
    """Bytes of RAM that this process may still take: the system's, or its cgroups' where they allow less (#14938)."""
    return min([int(ram().available), *_cgroup_rooms()])


def _cgroup_rooms() -> Iterator[int]:
    """What each memory limit above this process leaves, page cache that can go counted as free."""
    for folder, limit, usage in _cgroups():
        try:
            most, used = (int(_read(folder, name)) for name in (limit, usage))
            cache = re.search(r"^(?:total_)?inactive_file (\d+)$", _read(folder, "memory.stat"), re.MULTILINE)
            yield max(0, most - used + (int(cache[1]) if cache else 0))
        except (OSError, ValueError):  # no such file, or "max"
            continue


def _cgroups() -> Iterator[tuple[str, str, str]]:
    """Folder and file names of limit and usage, for this process's cgroups and those around them."""
    try:
        lines = _read(CGROUPS[0], "cgroup").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = CGROUPS[1], ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = f"{CGROUPS[1]}/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for count in range(len(parts) + 1):
            yield "/".join([root, *parts[:count]]), *names


def _read(folder: str, name: str) -> str:
    with open(f"{folder}/{name}", encoding="ascii") as file:
        return file.read().strip()


def synchronize(device: Any = None) -> None:
    """Wait for an XPU. Errors pass, as they do from torch.cuda.synchronize, so that an OOM is seen where it happens."""
    if names_xpu(device) is not False and active():
        import torch

        torch.xpu.synchronize(device)


@contextlib.contextmanager
def device_context(device: Any) -> Iterator[None]:
    """Make an XPU the current one, as upstream does for CUDA; nothing for other devices or without an index."""
    index = getattr(device, "index", None)
    if not is_xpu(device) or index is None or not available():
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


@xpu_only(0, of="device")
def stream_api(default: Any, device: Any) -> Any:
    """The module that has Stream, stream and current_stream for ``device``: torch.xpu for an XPU, else ``default``."""
    import torch

    return torch.xpu


def autocast_device(default: Any, tensor: Any) -> Any:
    """The device type for torch.autocast: the tensor's, if it is on an XPU."""
    return "xpu" if is_xpu(tensor) else default


@xpu_only(2, of="device")
def prefetch_devices(flag: Any, device: Any) -> Any:
    """``flag`` (the device is CUDA), or True for an XPU from O2 on: prefetch on a second stream."""
    return flag or True


def torch_version() -> tuple[int, int]:
    import torch

    match = re.match(r"(\d+)\.(\d+)", torch.__version__)
    return (int(match[1]), int(match[2])) if match else (0, 0)
