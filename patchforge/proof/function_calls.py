"""Puts questions to one imported ``model_management``: every function of it, with values chosen by parameter name."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import types
from collections.abc import Iterator
from typing import Any

from patchforge.proof.fake_torch import Fakes, lacking
from patchforge.proof.recording import canonical
from patchforge.proof.scenarios import GIB

MODULE = "comfy.model_management"
#: Functions that change what later questions see; asked last, in this order.
LATE = [
    "load_model_gpu",
    "load_models_gpu",
    "loaded_models",
    "use_more_memory",
    "offloaded_memory",
    "cleanup_models",
    "cleanup_models_gc",
    "free_memory",
    "unload_model_clones",
    "unload_model_and_clones",
    "unload_all_models",
    "reset_cast_buffers",
    "interrupt_current_processing",
    "processing_interrupted",
    "throw_exception_if_processing_interrupted",
]


class Patcher:
    """Stands for a loaded model: says how big it is and records what is asked of it. Sizes in bytes."""

    CANONICAL = True
    parent = None
    clone_base_uuid = "patcher"
    SIZE = 8 * GIB

    def __init__(self, fakes: Fakes, device: object) -> None:
        self._log, self._torch, self.load_device = fakes.log, fakes.torch, device
        self.offload_device = self.current_device = fakes.torch.device("cpu")
        self.model = fakes.torch.nn.Linear(2, 2)
        self.model.lowvram_patch_counter, self.model.current_weight_patches_uuid = 0, None
        self._loaded = 0

    def __repr__(self) -> str:
        return f"patcher({self.load_device})"

    def _say(self, what: str, *values: object) -> None:
        self._log.calls.append(f"{self!r}.{what}({', '.join(map(canonical, values))})")

    def is_dynamic(self) -> bool:
        return False

    def is_clone(self, other: object) -> bool:
        return other is self

    def clone_has_same_weights(self, _clone: object) -> bool:
        return False

    def model_size(self) -> int:
        return self.SIZE

    def loaded_size(self) -> int:
        return self._loaded

    def loaded_ram_size(self) -> int:
        return self.SIZE - self._loaded

    def lowvram_patch_counter(self) -> int:
        return 0

    def memory_required(self, _shape: object) -> int:
        return GIB

    def model_mmap_residency(self, *, free: bool = False) -> tuple[int, int]:
        self._say("model_mmap_residency", {"free": free})
        return 0, self.SIZE

    def pinned_memory_size(self) -> int:
        return 0

    def model_dtype(self) -> object:
        return self._torch.float16

    def current_loaded_device(self) -> object:
        return self.load_device if self._loaded else self.offload_device

    def get_nested_additional_models(self) -> list[object]:
        return []

    def model_patches_models(self) -> list[object]:
        return []

    def model_patches_to(self, target: object) -> None:
        self._say("model_patches_to", target)

    def patch_model(self, *values: object, **named: object) -> object:
        self._say("patch_model", *values, named)
        self._loaded = self.SIZE
        return self.model

    def patch_model_lowvram(self, *values: object, **named: object) -> object:
        self._say("patch_model_lowvram", *values, named)
        self._loaded = self.SIZE // 2
        return self.model

    def unpatch_model(self, *values: object, **named: object) -> None:
        self._say("unpatch_model", *values, named)
        self._loaded = 0

    def partially_load(self, device: object, extra: float = 0, **named: object) -> int:
        self._say("partially_load", device, extra, named)
        added = int(min(extra, self.SIZE - self._loaded))
        self._loaded += added
        return added

    def partially_unload(self, device: object, memory: float = 0, **named: object) -> int:
        self._say("partially_unload", device, memory, named)
        freed = int(min(memory, self._loaded))
        self._loaded -= freed
        return freed

    def detach(self, *values: object, **named: object) -> None:
        self._say("detach", *values, named)
        self._loaded = 0

    unpatch = model_unload = detach


class Asker:
    """Puts questions to one imported ``model_management``: every function, with values chosen by parameter name."""

    def __init__(self, fakes: Fakes, module: types.ModuleType) -> None:
        self._fakes, self._module, self._torch = fakes, module, fakes.torch
        self.not_asked: dict[str, str] = {}
        self.lacks: dict[str, str] = {}  #: what the faked machine lacks, to a question that wanted it
        devices = [self._torch.device("cpu")]
        for backend in fakes.backends:
            devices += [self._torch.device(backend.kind, number) for number in range(len(backend.cards))]
        if fakes.machine.mps:
            devices.append(self._torch.device("mps"))
        self._devices = devices
        self._patchers = [Patcher(fakes, device) for device in devices]
        self._values = self._by_parameter()
        self._special = self._by_function()

    def answers(self) -> list[dict[str, object]]:
        """One entry a question: its text, the function, the answer and the calls that it made."""
        names = sorted(name for name, value in vars(self._module).items() if self._is_own(value))
        ordered = [name for name in names if name not in LATE] + [name for name in LATE if name in names]
        return [self._ask(name, chosen) for name in ordered for chosen in self._choices(name)]

    def _is_own(self, value: object) -> bool:
        return inspect.isfunction(value) and value.__module__ == MODULE and not value.__name__.startswith("_")

    def _choices(self, name: str) -> Iterator[dict[str, object]]:
        columns: list[list[tuple[str, object]]] = []
        for parameter in inspect.signature(getattr(self._module, name)).parameters.values():
            values = self._column(name, parameter)
            if values is None:
                self.not_asked[name] = f"no values for parameter {parameter.name!r}"
                return
            columns.append(values)
        for row in itertools.product(*columns):
            yield {key: value for key, value in row if value is not inspect.Parameter.empty}

    def _column(self, name: str, parameter: inspect.Parameter) -> list[tuple[str, object]] | None:
        omitted = (parameter.name, inspect.Parameter.empty)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return [omitted]
        optional = parameter.default is not parameter.empty
        known = {**self._values, **self._special.get(name, {})}.get(parameter.name)
        if isinstance(parameter.default, bool):
            known = [not parameter.default]
        if known is None and not optional:
            return None
        return ([omitted] if optional else []) + [(parameter.name, value) for value in known or []]

    def _by_parameter(self) -> dict[str, list[object]]:
        torch, devices = self._torch, self._devices
        half, brain, full, eight = torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn
        weight = torch.ones(4)
        values: dict[str, list[Any]] = {
            "device dev inference_device load_device": devices,
            "offload_device": devices[:1],
            "dtype weight_dtype fallback_dtype": [full, half, brain, eight],
            "supported_dtypes": [[brain, full]],
            "allowed_dtypes": [[half, brain], [brain, full]],
            "model_params parameters": [10**9, 12 * 10**9],
            "size shortfall model_size extra_memory": [0, 2 * GIB, 60 * GIB],
            "memory_required minimum_memory_required": [2 * GIB],
            "loaded active evict_active registrations force_full_load": [False, True],
            "subsets keep_loaded loaded_models": [[]],
            "stream offload_stream r ref current_prompt": [None],
            "option": ["default", "cpu", "gpu:0", "gpu:1", "gpu:9", "gpu:x", "other"],
            "type": ["cpu", "cuda", "xpu", "mps"],
            "min_rdna_version": [3, 4],
            "gpu_arch": ["gfx1100", "gfx1030"],
            "weight tensor": [weight],
            "tensors": [[weight]],
            "storage": [weight.untyped_storage()],
            "key": ["weight"],
            "module": [torch.nn.Linear(2, 2)],
            "value": [False],
            "e": self._errors(),
            "model": self._patchers,
            "models": [[patcher] for patcher in self._patchers],
        }
        return {name: chosen for names_, chosen in values.items() for name in names_.split()}

    def _by_function(self) -> dict[str, dict[str, list[object]]]:
        devices = self._devices
        return {
            "archive_model_dtypes": {"model": [self._torch.nn.Linear(2, 2)]},
            "cast_to": {"dtype": [self._torch.float16]},
            "get_cast_buffer": {"size": [1024]},
            "get_autocast_device": {"dev": [*devices, None]},
            "get_torch_device_name": {"device": [*devices, 0]},
            "load_models_gpu_orig": {"memory_required": [0]},
            "load_models_gpu_thread": {"force_patch_weights": [False], "memory_required": [0]},
            "sync_stream": {"stream": [None]},
            "current_stream": {"device": [*devices, None]},
            "is_device_type": {"device": [*devices, None]},
        }

    def _errors(self) -> list[object]:
        memory = "Tried to allocate 2.00 GiB. GPU out of memory"
        accelerator = getattr(self._torch, "AcceleratorError", RuntimeError)
        return [
            self._torch.cuda.OutOfMemoryError(memory),
            accelerator("out of memory"),
            accelerator("an illegal memory access was encountered"),
            RuntimeError(memory),
            RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
            RuntimeError("level_zero backend failed with error: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)"),
            RuntimeError("shapes cannot be multiplied"),
            ValueError(memory),
        ]

    def _ask(self, name: str, chosen: dict[str, object]) -> dict[str, object]:
        self._fakes.reset()
        self._fakes.log.take()
        arguments = ", ".join(f"{key}={canonical(value)}" for key, value in chosen.items())
        try:
            answer = self._answered(getattr(self._module, name)(**chosen))
        except BaseException as error:  # noqa: BLE001 - an answer too; upstream's interrupt is a BaseException
            answer = f"! {canonical(error)}"
            if lacks := lacking(error):
                self.lacks.setdefault(lacks, f"{name}({arguments})")
        return {
            "question": f"{name}({arguments})",
            "function": name,
            "answer": answer,
            "calls": self._fakes.log.take(),
        }

    @staticmethod
    def _answered(value: object) -> str:
        if isinstance(value, contextlib.AbstractContextManager) and isinstance(value, contextlib.ContextDecorator):
            with value as entered:
                return f"context {canonical(entered)}"
        return canonical(list(value) if isinstance(value, types.GeneratorType) else value)
