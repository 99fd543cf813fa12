"""Machines that are not here: a CPU build of torch made to answer as CUDA, ROCm, MPS or XPU would.

The proof's interpreter imports this beside the real torch. docs/dynamic-proof.md says what is faked and what is not.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import os
import platform
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from patchforge.proof.backends import Backend, CardProperties, nothing
from patchforge.proof.recording import CallLog, spelled
from patchforge.proof.scenarios import FakedCard, FakedMachine

OPTIONAL = ("xformers", "torch_directml", "torch_npu", "torch_mlu", "intel_extension_for_pytorch")


class Fakes:
    """Puts a machine in the place of the real one, for the life of this process.

    ``scratch`` is an empty folder that gets a stand-in for torch's own (its version, ROCm's kernel images).
    RuntimeError when torch has an accelerator, or was built for ROCm or XPU.
    """

    def __init__(self, machine: FakedMachine, tree: str, scratch: Path) -> None:
        import torch  # noqa: PLC0415 - only in the proof's interpreter

        if torch.cuda.is_available() or torch.version.hip or torch.xpu._is_compiled():  # noqa: SLF001
            raise RuntimeError(f"torch {torch.__version__} is not a CPU build, nor a CUDA build without a GPU")
        self.torch: Any = torch
        self.machine, self.scratch, self.log = machine, scratch, CallLog(tree)
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

    def started(self) -> None:
        """The release has started: what is the current device now is so at the beginning of each question."""
        for backend in self.backends:
            backend.first = backend.current

    def reset(self) -> None:
        """Current devices back to those that the start left."""
        for backend in self.backends:
            backend.current = backend.first

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

    def _backend(self, kind: str, cards: tuple[FakedCard, ...]) -> None:
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
            self._replace(self.torch.mps, name, nothing if present else getattr(self.torch.mps, name))

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
                log.calls.append(f"{recorded.__module__}.{name}({', '.join(spelled(args, kwargs))})")
            return real(*args, **{**kwargs, "device": "cpu"})

        return create

    def _host(self) -> None:
        machine = self.machine
        with contextlib.suppress(ImportError):  # a release that wants psutil says so itself
            self._memory(importlib.import_module("psutil"))
        mac = ("15.1", ("", "", ""), "arm64") if machine.mps else ("", ("", "", ""), "")
        platform.mac_ver = lambda *_args, **_kwargs: mac
        self._gpus(glob.glob)
        exists = os.path.exists
        os.path.exists = lambda path: path != "/proc/swaps" and exists(path)
        self._replace(subprocess, "check_output", self._nvidia_smi)

    def _gpus(self, real: Callable[..., list[str]]) -> None:
        """The system tells of the machine's GPUs, and of no others: Linux lists them under /sys/class/drm."""
        for number, vendor in enumerate(self.machine.vendors):
            device = self.scratch / "drm" / f"card{number}" / "device"
            device.mkdir(parents=True)
            (device / "vendor").write_text(f"0x{vendor}\n", encoding="ascii")
        drm = str(self.scratch / "drm")
        replaced: Any = lambda path, **options: real(path.replace("/sys/class/drm", drm), **options)  # noqa: E731
        glob.glob = replaced

    def _memory(self, psutil: Any) -> None:
        ram, available = self.machine.ram, self.machine.ram_available
        psutil.virtual_memory = lambda: CardProperties(name="ram", total=ram, available=available, percent=25.0)
        psutil.swap_memory = lambda: CardProperties(name="swap", total=0, used=0, free=0, percent=0.0)

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


def lacking(error: BaseException | None) -> str:
    """What of the faked machine an AttributeError is about, as ``torch.xpu.name``; "" for any other error.

    Also where a release raised an error of its own because of that one.
    """
    while error is not None:
        owner = getattr(error, "obj", None)
        if isinstance(error, AttributeError) and owner is not None:
            name = owner.__name__ if isinstance(owner, types.ModuleType) else type(owner).__name__
            if hasattr(type(owner), "CANONICAL") or name.partition(".")[0] == "torch":
                return f"{name}.{error.name}"
        error = error.__cause__ or error.__context__
    return ""


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
