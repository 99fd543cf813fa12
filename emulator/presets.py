# SPDX-License-Identifier: GPL-3.0-or-later
"""The devices that can be emulated, and the options of a run.

Names, sizes and properties imitate what users' logs show of these cards; no such card was seen. What is not known is
left at torch's default for a property that a device does not report (0 or False).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

MIB, GIB = 1 << 20, 1 << 30


@dataclasses.dataclass(frozen=True)
class PresetProperties:
    """What torch.xpu.get_device_properties returns; attributes as in torch 2.13, sizes in bytes."""

    name: str
    total_memory: int
    device_id: int
    gpu_eu_count: int
    gpu_subslice_count: int
    has_fp64: bool = True
    is_integrated_gpu: bool = False
    sub_group_sizes: tuple[int, ...] = (16, 32)
    has_fp16: bool = True
    has_atomic64: bool = True
    has_bfloat16_conversions: bool = True
    has_subgroup_matrix_multiply_accumulate: bool = True
    has_subgroup_matrix_multiply_accumulate_tensor_float32: bool = True
    has_subgroup_2d_block_io: bool = True
    max_work_group_size: int = 1024
    max_num_sub_groups: int = 64
    platform_name: str = "emulated XPU"
    vendor: str = "Intel(R) Corporation"
    driver_version: str = "emulated"
    version: str = "emulated"
    type: str = "gpu"
    architecture: int = 0
    uuid: bytes = bytes(16)
    local_mem_size: int = 64 << 10
    last_level_cache_size: int = 0
    memory_clock_rate: int = 0
    memory_bus_width: int = 0

    @property
    def max_compute_units(self) -> int:
        return self.gpu_eu_count


_A770 = PresetProperties(
    "Intel(R) Arc(TM) A770 Graphics",
    15473 * MIB,
    0x56A0,
    512,
    32,
    has_fp64=False,
    sub_group_sizes=(8, 16, 32),
    has_subgroup_matrix_multiply_accumulate_tensor_float32=False,
    has_subgroup_2d_block_io=False,
)
_B580 = PresetProperties("Intel(R) Arc(TM) B580 Graphics", 11605 * MIB, 0xE20B, 160, 20)
_LUNAR_LAKE = PresetProperties(
    "Intel(R) Arc(TM) Graphics 140V GPU (16GB)", 28 * GIB, 0x64A0, 64, 8, is_integrated_gpu=True
)
_MAX_1550 = PresetProperties("Intel(R) Data Center GPU Max 1550", 64 * GIB, 0x0BD5, 512, 64)

PRESETS: dict[str, tuple[PresetProperties, ...]] = {
    "a770": (_A770,),
    "b580": (_B580,),
    "lunar-lake": (_LUNAR_LAKE,),
    "max-1550": (_MAX_1550,),
    "two": (_A770, _B580),
}


@dataclasses.dataclass(frozen=True)
class EmulatorOptions:
    """How a run differs from an undisturbed one."""

    memory: int | None = None
    other_process: int = 0
    memory_info: str = "honest"
    fault: tuple[str, int] | None = None
    same_random_numbers: bool = False
    refuse_fallbacks: bool = False
    torchvision_schemas: bool = False
    cuda_declared: bool = False
    missing: tuple[str, ...] = ()


def devices(preset: str) -> tuple[PresetProperties, ...]:
    """The devices of a preset; ``b580+lunar-lake`` puts presets side by side.

    Raises ValueError for a name that is not known.
    """
    found: list[PresetProperties] = []
    for name in preset.split("+"):
        if name not in PRESETS:
            raise ValueError(
                f"PATCHFORGE_EMULATE_XPU={preset!r}: expected one of {', '.join(PRESETS)}, or several with +"
            )
        found.extend(PRESETS[name])
    return tuple(found)


def parse_size(text: str) -> int:
    """``600M``, ``2G`` or a number of bytes; raises ValueError for other text."""
    match = re.fullmatch(r"(\d+)([MG]?)", text.strip())
    if match is None:
        raise ValueError(f"expected a number of bytes, or one with M or G, and found {text!r}")
    return int(match[1]) * {"": 1, "M": MIB, "G": GIB}[match[2]]


def _parse_fault(text: str) -> tuple[str, int]:
    name, _, number = text.partition("@")
    return name, int(number or 1)


def parse_options(text: str) -> EmulatorOptions:
    """Options out of ``memory=600M;other=1G;memory-info=raises;fault=device-lost@5;rng=cpu;cuda=declared``.

    Raises ValueError for a name or value that is not known.
    """
    parsers: dict[str, tuple[str, Callable[[str], Any]]] = {
        "memory": ("memory", parse_size),
        "other": ("other_process", parse_size),
        "memory-info": ("memory_info", str),
        "fault": ("fault", _parse_fault),
        "rng": ("same_random_numbers", lambda value: value == "cpu"),
        "coverage": ("refuse_fallbacks", lambda value: value == "refuse"),
        "torchvision": ("torchvision_schemas", lambda value: value == "schemas"),
        "cuda": ("cuda_declared", lambda value: value == "declared"),
        "missing": ("missing", lambda value: tuple(name.strip() for name in value.split(",") if name.strip())),
    }
    found: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, _, value = item.partition("=")
        if name not in parsers:
            raise ValueError(f"PATCHFORGE_EMULATE_XPU_OPTIONS: unknown option {name!r}; known: {', '.join(parsers)}")
        field, parse = parsers[name]
        found[field] = parse(value)
    return dataclasses.replace(EmulatorOptions(), **found)
