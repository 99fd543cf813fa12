"""What ``torch.cuda`` and ``torch.xpu`` answer on a machine that has their cards."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from patchforge import bounded
from patchforge.proof.recording import CallLog, canonical
from patchforge.proof.scenarios import FakedCard


class CardProperties:
    """What get_device_properties returns, or another answer of many parts."""

    CANONICAL = True

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)

    def __repr__(self) -> str:
        return f"properties({self.__dict__['name']})"


def documented(torch: Any, kind: str) -> dict[str, object]:
    """Every property that torch documents for a device of this kind, with a plain value of its type.

    Read from the stub that torch ships beside its binary module, so that a property which a release begins to ask for
    is answered as soon as torch has it.
    """
    stub = Path(torch._C.__file__).parent / "_C" / "__init__.pyi"  # noqa: SLF001 - the stub is that module's
    name = f"_{kind.capitalize()}DeviceProperties"
    body = next((node.body for node in _classes(str(stub)) if node.name == name), [])
    plain = {"_int": 0, "_bool": False, "str": "", "list[_int]": []}
    fields = [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return {ast.unparse(node.target): plain.get(ast.unparse(node.annotation)) for node in fields}


@functools.cache
def _classes(stub: str) -> tuple[ast.ClassDef, ...]:
    source = bounded.file(Path(stub))
    return tuple(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))


class Stream:
    """A stream that only says what is done with it; also the context that ``torch.X.stream`` returns."""

    CANONICAL = True

    def __init__(self, log: CallLog, device: object, number: str) -> None:
        self._log, self.device, self._number = log, device, number

    def __repr__(self) -> str:
        return f"stream({self.device}, {self._number})"

    def _say(self, what: str) -> None:
        self._log.calls.append(f"{self!r}.{what}")

    def wait_stream(self, stream: object) -> None:
        self._say(f"wait_stream({canonical(stream)})")

    def wait_event(self, event: object) -> None:
        self._say(f"wait_event({canonical(event)})")

    def synchronize(self) -> None:
        self._say("synchronize()")

    def record_event(self, event: object = None) -> None:
        self._say(f"record_event({canonical(event)})")

    def __enter__(self) -> Self:
        self._say("enter")
        return self

    def __exit__(self, *_: object) -> None:
        self._say("exit")


class Cudart:
    """Host registration of the CUDA runtime; addresses are not recorded."""

    CANONICAL = True

    def __init__(self, log: CallLog) -> None:
        self._log = log

    def __repr__(self) -> str:
        return "cudart"

    def cudaHostRegister(self, _pointer: int, size: int, flags: int) -> int:  # noqa: N802 - the runtime's name
        self._log.calls.append(f"cudart.cudaHostRegister(<address>, {size}, {flags})")
        return 0

    def cudaHostUnregister(self, _pointer: int) -> int:  # noqa: N802
        self._log.calls.append("cudart.cudaHostUnregister(<address>)")
        return 0


class Backend:
    """Chosen answers of ``torch.cuda`` or ``torch.xpu`` where cards are present."""

    def __init__(self, kind: str, cards: tuple[FakedCard, ...], torch: Any, log: CallLog) -> None:
        self.kind, self.cards, self.log = kind, cards, log
        self.device: Any = torch.device
        self.documented = documented(torch, kind)
        self.current = self.first = self.streams = 0

    def index(self, device: Any = None) -> int:
        """The card meant by a device, an index, a string or None; ValueError for another backend's, as torch has it."""
        if device is None:
            return self.current
        if isinstance(device, str):
            device = self.device(device)
        if isinstance(device, int):
            number = device
        elif device.type != self.kind:
            raise ValueError(f"Expected a {self.kind} device, but got: {device}")
        else:
            number = self.current if device.index is None else device.index
        if not 0 <= number < len(self.cards):
            raise AssertionError(f"Invalid device id {number}")
        return number

    def card(self, device: Any = None) -> FakedCard:
        return self.cards[self.index(device)]

    def answers(self) -> dict[str, Callable[..., Any]]:
        """Name of a function to its chosen answer."""
        given = dict(self._device_answers(), **self._memory_answers(), **self._stream_answers())
        given.update(dict.fromkeys(("init", "empty_cache", "reset_peak_memory_stats", "manual_seed_all"), nothing))
        given.update(dict.fromkeys(("manual_seed", "synchronize", "set_stream"), nothing))
        return {**given, **(self._only_cuda() if self.kind == "cuda" else {})}

    def _device_answers(self) -> dict[str, Callable[..., Any]]:
        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "device_count": lambda: len(self.cards),
            "current_device": lambda: self.current,
            "set_device": self._set_device,
            "get_device_name": lambda device=None: self.card(device).name,
            "get_device_properties": lambda device=None: self._properties(self.card(device)),
            "get_device_capability": lambda device=None: self._capability(self.card(device)),
            "is_bf16_supported": lambda including_emulation=True: including_emulation or self.card().bf16,
            "is_tf32_supported": lambda: True,
        }

    def _set_device(self, device: Any) -> None:
        self.current = self.index(device)

    def _properties(self, card: FakedCard) -> CardProperties:
        values = {**self.documented, "name": card.name, "total_memory": card.total}
        if self.kind == "xpu":
            return CardProperties(**{**values, **self._xpu_features(card)})
        values |= {"major": card.major, "minor": card.minor, "multi_processor_count": 64, "warp_size": 32}
        values |= {"max_threads_per_multi_processor": 1536, "max_threads_per_block": 1024, "L2_cache_size": 4 << 20}
        return CardProperties(**values | {"gcnArchName": card.arch, "is_integrated": int(card.integrated)})

    @staticmethod
    def _xpu_features(card: FakedCard) -> dict[str, object]:
        return {
            "type": "gpu",
            "platform_name": "Intel(R) oneAPI Unified Runtime over Level-Zero",
            "vendor": "Intel(R) Corporation",
            "driver_version": "1.13.0",
            "max_compute_units": 160,
            "gpu_eu_count": 160,
            "has_fp16": True,
            "has_fp64": card.fp64,
            "has_atomic64": True,
            "has_bfloat16_conversions": card.bf16,
            "has_subgroup_matrix_multiply_accumulate": not card.integrated,
            "has_subgroup_2d_block_io": not card.integrated,
            "is_integrated_gpu": card.integrated,
        }

    def _capability(self, card: FakedCard) -> object:
        return (card.major, card.minor) if self.kind == "cuda" else self._xpu_features(card)

    def _memory_answers(self) -> dict[str, Callable[..., Any]]:
        return {
            "memory_stats": lambda device=None: self._stats(self.card(device)),
            "memory_reserved": lambda device=None: self.card(device).reserved,
            "memory_allocated": lambda device=None: self.card(device).active,
            "max_memory_reserved": lambda device=None: self.card(device).reserved,
            "max_memory_allocated": lambda device=None: self.card(device).active,
            "mem_get_info": lambda device=None: self._info(self.card(device)),
        }

    @staticmethod
    def _stats(card: FakedCard) -> dict[str, int]:
        return {
            "active_bytes.all.current": card.active,
            "allocated_bytes.all.current": card.active,
            "reserved_bytes.all.current": card.reserved,
            "inactive_split_bytes.all.current": 0,
        }

    @staticmethod
    def _info(card: FakedCard) -> tuple[int, int]:
        if not card.tells_free:
            raise RuntimeError(f"The device ({card.name}) doesn't support querying the available free memory.")
        return card.free, card.total

    def _stream_answers(self) -> dict[str, Callable[..., Any]]:
        return {
            "current_stream": lambda device=None: self._stream(device, "current"),
            "default_stream": lambda device=None: self._stream(device, "default"),
            "stream": lambda stream: stream,
            "Stream": self._new_stream,
        }

    def _stream(self, device: Any, number: str) -> Stream:
        return Stream(self.log, f"{self.kind}:{self.index(device)}", number)

    def _new_stream(self, device: Any = None, priority: int = 0) -> Stream:
        self.streams += 1
        return self._stream(device, f"{self.streams}, priority {priority}")

    def _only_cuda(self) -> dict[str, Callable[..., Any]]:
        return {
            "cudart": lambda: Cudart(self.log),
            "ipc_collect": nothing,
            "get_allocator_backend": self._allocator,
            "memory_summary": lambda *_args, **_kwargs: "summary",
        }

    @staticmethod
    def _allocator() -> str:
        return "cudaMallocAsync" if "cudaMallocAsync" in os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "") else "native"


def nothing(*_args: object, **_kwargs: object) -> None:
    """Most of a backend's procedures: nothing happens, and the call is on record."""
