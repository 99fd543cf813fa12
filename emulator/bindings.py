# SPDX-License-Identifier: GPL-3.0-or-later
"""The names that ``torch._C`` has in a build with XPU, so that PyTorch's own torch/xpu/*.py runs unmodified."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

from emulator.presets import EmulatorOptions, PresetProperties

_XPU = 12  # c10::DeviceType::XPU
_STAT_FIELDS = ("current", "peak", "allocated", "freed")
_NOT_MODELLED = ("large_pool", "small_pool")


def _checked(library: ctypes.CDLL, answer: int) -> int:
    if answer < 0:
        raise RuntimeError(library.emulated_error().decode())
    return answer


def _stat(values: tuple[int, ...]) -> dict[str, dict[str, int]]:
    """One statistic as torch nests it; pools are not modelled, and all is counted as in the large one."""
    full, nothing = dict(zip(_STAT_FIELDS, values, strict=True)), dict.fromkeys(_STAT_FIELDS, 0)
    return {"all": full, "large_pool": dict(full), "small_pool": nothing}


class _Api:
    """The ``_xpu_*`` functions over the library's controls."""

    def __init__(
        self, library: ctypes.CDLL, properties: tuple[PresetProperties, ...], options: EmulatorOptions
    ) -> None:
        self.library, self.properties, self.options = library, properties, options
        self.process: int | None = None

    def _ask(self, name: str, *args: Any) -> int:
        return _checked(self.library, getattr(self.library, f"emulated_{name}")(*args))

    def init(self) -> None:
        import torch  # noqa: PLC0415 (torch is being imported while this module is)

        if self.device_count() == 0:
            raise RuntimeError("No XPU devices are available.")
        self.process = os.getpid()
        self.library.emulated_hand_out_default(1)
        try:
            generators = [torch.Generator(device=f"xpu:{index}") for index in range(self.device_count())]
        finally:
            self.library.emulated_hand_out_default(0)
        torch.xpu.default_generators = tuple(generators)
        torch.xpu._get_device_properties = self.device_properties  # noqa: SLF001 (torch's own init does the same)

    def in_bad_fork(self) -> bool:
        return self.process is not None and self.process != os.getpid()

    def device_count(self) -> int:
        return int(self.library.emulated_device_count())

    def device_properties(self, index: int) -> PresetProperties:
        found = self.properties[self._ask("physical", index)]
        return dataclasses.replace(found, total_memory=self.options.memory or found.total_memory)

    def get_device(self) -> int:
        return self._ask("get_device")

    def set_device(self, index: int) -> None:
        self._ask("set_device", index)

    def exchange_device(self, index: int) -> int:
        before = self.get_device()
        if index >= 0:
            self.set_device(index)
        return before

    def set_stream(self, stream_id: int, device_index: int, device_type: int) -> None:  # noqa: ARG002
        self.set_device(device_index)
        self.library.emulated_set_stream(device_index, stream_id)

    def current_stream(self, index: int) -> tuple[int, int, int]:
        return self._ask("get_stream", index), index, _XPU

    def raw_stream(self, index: int) -> int:
        return _queue(self._ask("get_stream", index), index)

    def synchronize(self, index: int) -> None:  # noqa: ARG002 (the emulated devices fail together)
        self._ask("synchronize")

    def empty_cache(self) -> None:
        self._ask("empty_cache")

    def memory_info(self, index: int) -> tuple[int, int]:
        answer = (ctypes.c_int64 * 2)()
        self._ask("memory_info", index, ctypes.addressof(answer))
        return answer[0], answer[1]

    def memory_stats(self, index: int) -> dict[str, Any]:
        answer = (ctypes.c_int64 * 16)()
        self._ask("memory_stats", index, ctypes.addressof(answer))
        allocated, requested, blocks = (tuple(answer[first : first + 4]) for first in (0, 4, 8))
        reserved, peak, ooms, retries = answer[12:16]
        return {
            "num_alloc_retries": retries,
            "num_ooms": ooms,
            "allocation": _stat(blocks),
            "active": _stat(blocks),
            "allocated_bytes": _stat(allocated),
            "active_bytes": _stat(allocated),
            "requested_bytes": _stat(requested),
            "reserved_bytes": _stat((reserved, peak, peak, peak - reserved)),
        }

    def reset_peak(self, index: int) -> None:
        self._ask("reset_stats", index, 1)

    def reset_accumulated(self, index: int) -> None:
        self._ask("reset_stats", index, 0)

    def get_fraction(self, index: int) -> float:
        return float(self.library.emulated_get_fraction(index))

    def set_fraction(self, fraction: float, index: int) -> None:
        self._ask("set_fraction", index, fraction)


def _queue(stream_id: int, index: int) -> int:
    """A number for a stream that looks like the address of a queue."""
    return 0x5E00_0000_0000 + (index << 32) + stream_id * 64


def _functions(api: _Api) -> dict[str, Callable[..., Any]]:
    return {
        "init": api.init,
        "isInBadFork": api.in_bad_fork,
        "getDeviceCount": api.device_count,
        "getDevice": api.get_device,
        "setDevice": api.set_device,
        "exchangeDevice": api.exchange_device,
        "maybeExchangeDevice": api.exchange_device,
        "setStream": api.set_stream,
        "getCurrentStream": api.current_stream,
        "getCurrentRawStream": api.raw_stream,
        "getStreamFromExternal": _refuse("getStreamFromExternal"),
        "synchronize": api.synchronize,
        "emptyCache": api.empty_cache,
        "memoryStats": api.memory_stats,
        "resetAccumulatedMemoryStats": api.reset_accumulated,
        "resetPeakMemoryStats": api.reset_peak,
        "getMemoryInfo": api.memory_info,
        "getMemoryFraction": api.get_fraction,
        "setMemoryFraction": api.set_fraction,
        "canDeviceAccessPeer": lambda device, peer: device == peer,
        "getArchFlags": lambda: None,
        "isCurrentStreamCapturing": lambda: False,
        **{name: _refuse(name) for name in _REFUSED},
    }


_REFUSED = (
    "memorySnapshot",
    "recordMemoryHistory",
    "customAllocator",
    "changeCurrentAllocator",
    "getAllocator",
    "beginAllocateToPool",
    "beginAllocateCurrentThreadToPool",
    "endAllocateToPool",
    "releasePool",
    "graph_pool_handle",
)


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError(f"the emulated XPU has no torch._C._xpu_{name}")

    return refuse


def _classes(torch_c: Any) -> dict[str, type]:
    """Base classes of torch.xpu.Stream, torch.xpu.Event and what is not emulated (graphs, pools)."""

    class _XpuStreamBase(torch_c.Stream):  # type: ignore[misc]
        def __new__(cls, priority: int = 0, **kwargs: Any) -> Any:
            import torch  # noqa: PLC0415

            if "stream_id" in kwargs:
                return super().__new__(cls, **kwargs)
            return super().__new__(cls, device=f"xpu:{torch.xpu.current_device()}", priority=priority)

        @property
        def sycl_queue(self) -> int:
            return _queue(self.stream_id, self.device.index)

        @property
        def priority(self) -> int:
            return 0

    class _XpuEventBase(torch_c.Event):  # type: ignore[misc]
        def __new__(cls, enable_timing: bool = False, interprocess: bool = False) -> Any:  # noqa: FBT001, FBT002 (torch's signature, that of 2.15 with interprocess)
            if interprocess:
                raise NotImplementedError("the emulated XPU shares no event between processes")
            made = super().__new__(cls, device="xpu", enable_timing=enable_timing)
            made.timed, made.recorded = enable_timing, None
            return made

        def record(self, stream: Any) -> None:
            super().record(stream)
            self.recorded: float | None = time.perf_counter()

        def elapsed_time(self, end: Any) -> float:
            if not (self.timed and end.timed):
                raise RuntimeError("Both events must be created with argument 'enable_timing=True'.")
            if self.recorded is None or end.recorded is None:
                raise RuntimeError("Both events must be recorded before calculating elapsed time.")
            return float(end.recorded - self.recorded) * 1e3

        @property
        def sycl_event(self) -> int:
            return int(self.event_id)

    def not_emulated(name: str) -> type:
        return type(name, (), {"__new__": _refuse(name)})

    names = ("_xpu_XPUAllocator", "_XPUMemPool", "_XPUGraph")
    return {
        "_XpuStreamBase": _XpuStreamBase,
        "_XpuEventBase": _XpuEventBase,
        **{name: not_emulated(name) for name in names},
    }


def install(library: ctypes.CDLL, properties: tuple[PresetProperties, ...], options: EmulatorOptions) -> None:
    """Give ``torch._C`` the names of a build with XPU; torch is being imported meanwhile."""
    import torch  # noqa: PLC0415

    torch_c: Any = torch._C  # noqa: SLF001 (these are private names by nature)
    for name, value in _classes(torch_c).items():
        setattr(torch_c, name, value)
    for name, function in _functions(_Api(library, properties, options)).items():
        setattr(torch_c, f"_xpu_{name}", function)
    torch_c._XpuDeviceProperties = PresetProperties  # noqa: SLF001
    torch_c._has_xpu = True  # noqa: SLF001
