"""Machines that are not here: a CPU build of torch made to answer as CUDA, ROCm, MPS or XPU would.

The proof's interpreter imports this beside the real torch; the engine imports it for the table of scenarios, so nothing
here imports torch before :class:`Fakes` is made. docs/dynamic-proof.md says what is faked and what is not.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import os
import platform
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3
FORCE = "--force-intel-xpu"  #: the patched tree's flag that prefers an Intel GPU to a CUDA one
OPTIONAL = ("xformers", "torch_directml", "torch_npu", "torch_mlu", "intel_extension_for_pytorch")


@dataclass(frozen=True, slots=True)
class Card:
    """One accelerator; memory in bytes, ``free`` as the driver tells it, the rest as torch's allocator does."""

    name: str
    total: int
    free: int
    reserved: int = 3 * GIB
    active: int = 2 * GIB
    major: int = 0
    minor: int = 0
    arch: str = ""
    bf16: bool = True
    fp64: bool = True
    integrated: bool = False
    tells_free: bool = True  #: False: mem_get_info raises


@dataclass(frozen=True, slots=True)
class Machine:
    """What torch says of a host; ``ram`` and ``ram_available`` in bytes."""

    version: str
    cuda: tuple[Card, ...] = ()
    xpu: tuple[Card, ...] = ()
    mps: bool = False
    cuda_version: str | None = None
    hip: str | None = None
    ipex: bool = False
    ram: int = 64 * GIB
    ram_available: int = 48 * GIB


class Group(enum.StrEnum):
    """Which declarations a scenario honours."""

    OTHER = "other"  #: no Intel GPU, an accelerator or ``--cpu``: nothing may differ
    CPU = "cpu"  #: no accelerator and no ``--cpu``: only names declared under ``cpu:``
    XPU = "xpu"  #: an Intel GPU alone
    DUAL = "dual"  #: an Intel GPU beside a CUDA one


@dataclass(frozen=True, slots=True)
class Scenario:
    """One machine and one command line."""

    name: str
    group: Group
    machine: Machine
    device: str  #: type of device that get_torch_device() must name on the patched tree
    flags: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()  #: further flags for the patched tree alone
    through_main: bool = True  #: run main's argument block first, as ComfyUI does; else import as a library
    starts: bool = True  #: False: upstream is known to fail at import


_RTX = Card("NVIDIA GeForce RTX 4090", 24 * GIB, 18 * GIB, major=8, minor=9)
_GTX = Card("NVIDIA GeForce GTX 1060 6GB", 6 * GIB, 4 * GIB, GIB, GIB // 2, major=6, minor=1, bf16=False)
_RDNA3 = Card("AMD Radeon RX 7900 XTX", 24 * GIB, 18 * GIB, major=11, minor=0, arch="gfx1100")
_RDNA2 = Card("AMD Radeon RX 6800", 16 * GIB, 12 * GIB, major=10, minor=3, arch="gfx1030")
_B580 = Card("Intel(R) Arc(TM) B580 Graphics", 12 * GIB, 4 * GIB)
_SHARED = Card("Intel(R) Arc(TM) Graphics", 57 * GIB, 40 * GIB, integrated=True, fp64=False)
_SILENT = Card("Intel(R) Arc(TM) A770 Graphics", 16 * GIB, 8 * GIB, fp64=False, tells_free=False)

_CUDA = Machine("2.13.0+cu130", cuda=(_RTX, _RTX), cuda_version="13.0")
_XPU = Machine("2.13.0+xpu", xpu=(_B580, _B580))
_BOTH = Machine("2.13.0+cu130", cuda=(_RTX,), xpu=(_B580,), cuda_version="13.0")

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("cuda", Group.OTHER, _CUDA, "cuda"),
    Scenario("cuda-library", Group.OTHER, _CUDA, "cuda", through_main=False),
    Scenario("cuda-old", Group.OTHER, Machine("2.13.0+cu126", cuda=(_GTX,), cuda_version="12.6"), "cuda"),
    Scenario("rocm", Group.OTHER, Machine("2.13.0+rocm7.1", cuda=(_RDNA3,), hip="7.1.25424"), "cuda"),
    Scenario("rocm-old", Group.OTHER, Machine("2.13.0+rocm6.4", cuda=(_RDNA2,), hip="6.4.43482"), "cuda"),
    Scenario("mps", Group.OTHER, Machine("2.13.0", mps=True), "mps"),
    Scenario("cpu-flag", Group.OTHER, Machine("2.13.0+cpu"), "cpu", flags=("--cpu",)),
    Scenario("cpu", Group.CPU, Machine("2.13.0+cpu"), "cpu", starts=False),
    Scenario("xpu", Group.XPU, _XPU, "xpu"),
    Scenario("xpu-library", Group.XPU, _XPU, "xpu", through_main=False),
    Scenario(
        "xpu-integrated", Group.XPU, Machine("2.13.0+xpu", xpu=(_SHARED,), ram=64 * GIB, ram_available=10 * GIB), "xpu"
    ),
    Scenario("xpu-silent", Group.XPU, Machine("2.13.0+xpu", xpu=(_SILENT,)), "xpu"),
    Scenario("xpu-ipex", Group.XPU, Machine("2.8.0+xpu", xpu=(_B580,), ipex=True), "xpu"),
    Scenario("xpu-cpu-flag", Group.XPU, _XPU, "cpu", flags=("--cpu",)),
    Scenario("cuda-xpu", Group.DUAL, _BOTH, "cuda"),
    Scenario("cuda-xpu-forced", Group.DUAL, _BOTH, "xpu", ours=(FORCE,)),
)


class NotFakedError(NotImplementedError):
    """Code under proof called something of the faked backend that has no chosen answer."""


def canonical(value: object) -> str:
    """Text that depends on the value alone: no addresses, sets and mappings in order."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return repr(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{canonical(k)}: {canonical(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(canonical, value))) + "}"
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "(" + ", ".join(map(canonical, value)) + ")"
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    return _of_torch(value)


def _of_torch(value: object) -> str:
    kind = type(value)
    if kind.__module__ == "torch" and kind.__name__ in ("device", "dtype"):
        return str(value) if kind.__name__ == "dtype" else f"device({value})"
    if kind.__name__ in ("Tensor", "Parameter"):
        tensor: Any = value
        return f"{kind.__name__}({tuple(tensor.shape)}, {tensor.dtype}, {tensor.device})"
    return repr(value) if hasattr(kind, "CANONICAL") else f"<{kind.__module__}.{kind.__qualname__}>"


@dataclass
class Log:
    """Calls of faked functions, in order, that come straight from a file of ``tree``."""

    tree: str
    calls: list[str] = field(default_factory=list)
    unfaked: list[str] = field(default_factory=list)

    def watches(self, frame: types.FrameType) -> bool:
        """Whether the frame runs code of the tree (libraries' own calls are not recorded)."""
        return frame.f_code.co_filename.startswith(self.tree + os.sep)

    def take(self) -> list[str]:
        """The calls since the last take."""
        calls, self.calls = self.calls, []
        return calls

    def recorder(self, name: str, function: Callable[..., Any], *, faked: bool = True) -> Callable[..., Any]:
        """``function``, recorded under ``name``; where not ``faked``, code under proof gets NotFakedError."""

        def recorded(*args: Any, **kwargs: Any) -> Any:
            if not self.watches(sys._getframe(1)):  # noqa: SLF001 - who calls is the question
                return function(*args, **kwargs)
            call = f"{name}({', '.join(_spelled(args, kwargs))})"
            if not faked:
                self.unfaked.append(call)
                raise NotFakedError(name)
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                self.calls.append(f"{call} ! {canonical(error)}")
                raise
            self.calls.append(f"{call} = {canonical(result)}")
            return result

        recorded.__name__ = recorded.__qualname__ = name.rpartition(".")[2]
        recorded.__module__ = name.rpartition(".")[0]
        return recorded


def _spelled(args: Iterable[object], kwargs: Mapping[str, object]) -> list[str]:
    return [*map(canonical, args), *(f"{key}={canonical(value)}" for key, value in sorted(kwargs.items()))]


class Properties:
    """What get_device_properties returns."""

    CANONICAL = True

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)

    def __repr__(self) -> str:
        return f"properties({self.__dict__['name']})"


class Stream:
    """A stream that only says what is done with it; also the context that ``torch.X.stream`` returns."""

    CANONICAL = True

    def __init__(self, log: Log, device: object, number: str) -> None:
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

    def __init__(self, log: Log) -> None:
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

    def __init__(self, kind: str, cards: tuple[Card, ...], torch: Any, log: Log) -> None:
        self.kind, self.cards, self.log = kind, cards, log
        self.device: Any = torch.device
        self.current = self.streams = 0

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

    def card(self, device: Any = None) -> Card:
        return self.cards[self.index(device)]

    def answers(self) -> dict[str, Callable[..., Any]]:
        """Name of a function to its chosen answer."""
        given = dict(self._device_answers(), **self._memory_answers(), **self._stream_answers())
        given.update(dict.fromkeys(("init", "empty_cache", "reset_peak_memory_stats", "manual_seed_all"), _nothing))
        given.update(dict.fromkeys(("manual_seed", "synchronize", "set_stream"), _nothing))
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

    def _properties(self, card: Card) -> Properties:
        common: dict[str, object] = {"name": card.name, "total_memory": card.total}
        if self.kind == "cuda":
            return Properties(
                **common, major=card.major, minor=card.minor, gcnArchName=card.arch, multi_processor_count=64
            )
        return Properties(**common, **self._xpu_features(card))

    @staticmethod
    def _xpu_features(card: Card) -> dict[str, object]:
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

    def _capability(self, card: Card) -> object:
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
    def _stats(card: Card) -> dict[str, int]:
        return {
            "active_bytes.all.current": card.active,
            "allocated_bytes.all.current": card.active,
            "reserved_bytes.all.current": card.reserved,
            "inactive_split_bytes.all.current": 0,
        }

    @staticmethod
    def _info(card: Card) -> tuple[int, int]:
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
            "ipc_collect": _nothing,
            "get_allocator_backend": self._allocator,
            "memory_summary": lambda *_args, **_kwargs: "summary",
        }

    @staticmethod
    def _allocator() -> str:
        return "cudaMallocAsync" if "cudaMallocAsync" in os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "") else "native"


def _nothing(*_args: object, **_kwargs: object) -> None:
    """Most of a backend's procedures: nothing happens, and the call is on record."""


class Fakes:
    """Puts a machine in the place of the real one, for the life of this process.

    ``scratch`` is an empty folder that gets a stand-in for torch's own (its version, ROCm's kernel images).
    RuntimeError when torch is no CPU build.
    """

    def __init__(self, machine: Machine, tree: str, scratch: Path) -> None:
        import torch  # noqa: PLC0415 - only in the proof's interpreter

        if torch.version.cuda or torch.version.hip or torch.xpu._is_compiled():  # noqa: SLF001
            raise RuntimeError(f"torch {torch.__version__} is not a CPU build")
        self.torch: Any = torch
        self.machine, self.scratch, self.log = machine, scratch, Log(tree)
        self.real_device: Any = torch.device
        self.backends: list[Backend] = []

    def install(self) -> None:
        """Replace everything that a release asks about the machine."""
        self._versions()
        for kind, cards in (("cuda", self.machine.cuda), ("xpu", self.machine.xpu)):
            self._backend(kind, cards)
        self._mps()
        self._accelerator()
        self._switches()
        self._creators()
        self._host()
        self._modules()
        self.torch.device = _device_class(self.real_device, self.kind)

    @property
    def kind(self) -> str:
        """The type of device that a bare index means."""
        return "xpu" if self.machine.xpu and not self.machine.cuda else "cuda"

    def reset(self) -> None:
        """Current devices back to the first one."""
        for backend in self.backends:
            backend.current = 0

    def _replace(self, module: Any, name: str, function: Callable[..., Any], *, faked: bool = True) -> None:
        setattr(module, name, self.log.recorder(f"{module.__name__}.{name}", function, faked=faked))

    def _versions(self) -> None:
        torch, machine = self.torch, self.machine
        torch.version.cuda, torch.version.hip = machine.cuda_version, machine.hip
        torch.version.__version__ = machine.version
        torch.__version__ = type(torch.__version__)(machine.version)
        stand_in = self.scratch / "torch"
        (stand_in / "lib" / "aotriton.images" / "amd-gfx11xx").mkdir(parents=True)
        (stand_in / "version.py").write_text(f"__version__ = {machine.version!r}\n", encoding="utf-8")
        torch.__path__ = [str(stand_in), *torch.__path__]
        torch.__spec__.submodule_search_locations = torch.__path__

    def _backend(self, kind: str, cards: tuple[Card, ...]) -> None:
        module = getattr(self.torch, kind)
        backend = Backend(kind, cards, self.torch, self.log)
        answers = backend.answers() if cards else {}
        self.backends.append(backend)
        self._module(module, answers, present=bool(cards))
        for name in answers.keys() & vars(module.memory).keys():
            setattr(module.memory, name, getattr(module, name))

    def _module(self, module: Any, answers: Mapping[str, Callable[..., Any]], *, present: bool) -> None:
        """Record every public function of a module: with its chosen answer; as it is where nothing is ``present``."""
        for name, value in list(vars(module).items()):
            function = isinstance(value, types.FunctionType) or name == "Event"
            own = function and (value.__module__ or "").startswith((module.__name__, "torch._utils"))
            if name in answers or (own and not name.startswith("_")):
                self._replace(module, name, answers.get(name, value), faked=name in answers or not present)

    def _mps(self) -> None:
        present = self.machine.mps
        self._replace(self.torch.backends.mps, "is_available", lambda: present)
        self._replace(self.torch.backends.mps, "is_built", lambda: present)
        for name in ("empty_cache", "synchronize"):
            self._replace(self.torch.mps, name, _nothing if present else getattr(self.torch.mps, name))

    def _accelerator(self) -> None:
        kind = self.kind
        card = next((backend for backend in self.backends if backend.kind == kind and backend.cards), None)
        answers: dict[str, Callable[..., Any]] = {}
        if card is not None:
            known = card.answers()
            shared = "is_available device_count synchronize empty_cache current_stream memory_stats memory_reserved"
            answers = {name: known[name] for name in [*shared.split(), "memory_allocated"]}
            answers["current_accelerator"] = lambda check_available=False: self.real_device(kind)  # noqa: ARG005
            answers["current_device_index"] = known["current_device"]
            answers["set_device_index"] = known["set_device"]
            answers["get_memory_info"] = known["mem_get_info"]
        self._module(self.torch.accelerator, answers, present=card is not None)

    def _switches(self) -> None:
        """Global settings: recorded, and still made, so that their state can be read afterwards."""
        torch, rocm = self.torch, bool(self.machine.hip)
        settings = "enable_math_sdp enable_flash_sdp enable_mem_efficient_sdp allow_fp16_bf16_reduction_math_sdp"
        for name in settings.split():
            self._replace(torch.backends.cuda, name, getattr(torch.backends.cuda, name))
        self._replace(torch.backends.cuda, "is_flash_attention_available", lambda: rocm or bool(self.machine.cuda))
        self._replace(torch.backends.cuda, "can_use_flash_attention", lambda *_: bool(self.machine.cuda))
        torch.backends.cudnn.is_available = lambda: bool(self.machine.cuda)
        self._replace(torch, "use_deterministic_algorithms", torch.use_deterministic_algorithms)

    def _creators(self) -> None:
        """Tensors for a faked device are made on the CPU; the call with its device is on record."""
        for name in ("tensor", "empty", "empty_like", "zeros", "zeros_like", "ones"):
            setattr(self.torch, name, self._creator(name, getattr(self.torch, name)))

    def _creator(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        log, recorded = self.log, self.log.recorder(f"torch.{name}", real)

        def create(*args: Any, **kwargs: Any) -> Any:
            kind = _kind(kwargs.get("device"))
            if kind not in ("cuda", "xpu", "mps"):
                return real(*args, **kwargs)
            if log.watches(sys._getframe(1)):  # noqa: SLF001
                log.calls.append(f"{recorded.__module__}.{name}({', '.join(_spelled(args, kwargs))})")
            return real(*args, **{**kwargs, "device": "cpu"})

        return create

    def _host(self) -> None:
        machine = self.machine
        with contextlib.suppress(ImportError):  # a release that wants psutil says so itself
            self._memory(importlib.import_module("psutil"))
        mac = ("15.1", ("", "", ""), "arm64") if machine.mps else ("", ("", "", ""), "")
        platform.mac_ver = lambda *_args, **_kwargs: mac
        exists = os.path.exists
        os.path.exists = lambda path: path != "/proc/swaps" and exists(path)
        self._replace(subprocess, "check_output", self._nvidia_smi)

    def _memory(self, psutil: Any) -> None:
        ram, available = self.machine.ram, self.machine.ram_available
        psutil.virtual_memory = lambda: Properties(name="ram", total=ram, available=available, percent=25.0)
        psutil.swap_memory = lambda: Properties(name="swap", total=0, used=0, free=0, percent=0.0)

    def _nvidia_smi(self, *_command: object, **_options: object) -> bytes:
        if not self.machine.cuda_version:
            raise FileNotFoundError(2, "No such file or directory", "nvidia-smi")
        lines = (f"GPU {i}: {card.name} (UUID: GPU-{i})\n" for i, card in enumerate(self.machine.cuda))
        return "".join(lines).encode()

    def _modules(self) -> None:
        """Packages that some hosts have and some lack are absent everywhere; IPEX is a stub where wanted."""
        for name in OPTIONAL:
            sys.modules[name] = None  # type: ignore[assignment]
        if self.machine.ipex:
            ipex = types.ModuleType("intel_extension_for_pytorch")
            ipex.__dict__["__version__"] = self.machine.version
            ipex.__dict__["optimize"] = self.log.recorder("ipex.optimize", lambda model, **_options: model)
            sys.modules[ipex.__name__] = ipex


def _kind(device: Any) -> str:
    return str(getattr(device, "type", device)).partition(":")[0]


def _device_class(real: Any, default: str) -> type:
    """A class that stands for ``torch.device``: an index means the faked accelerator, all else is torch's own.

    Equal to the real class and with its hash, since torch looks annotations up in tables.
    """

    class Meta(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], int):
                return real(default, args[0])
            return real(*args, **kwargs)

        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

        def __eq__(cls, other: object) -> bool:
            return other is cls or other is real

        def __hash__(cls) -> int:
            return hash(real)

        def __getattr__(cls, name: str) -> Any:
            return getattr(real, name)

    return Meta("device", (), {"__module__": "torch"})
