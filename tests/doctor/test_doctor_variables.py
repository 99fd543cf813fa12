"""What is said of environment variables."""

from __future__ import annotations

import re

import pytest

from patchforge.doctor.facts import AMD, Facts, FactState, Gpu
from patchforge.doctor.variables import findings, shown
from tests.doctor.machines import B580, LUNAR_LAKE, NVIDIA_CARD, about, facts, interpreter, machine, states
from tests.support import ROOT

RADEON = Gpu("0000:01:00.0", AMD, 0x744C, "amdgpu")


@pytest.mark.parametrize(
    ("name", "value", "gpus", "state"),
    [
        ("ZE_AFFINITY_MASK", "0", (B580,), FactState.OK),
        ("ZE_AFFINITY_MASK", "1", (B580,), FactState.WRONG),
        ("ZE_AFFINITY_MASK", "1", (LUNAR_LAKE, B580), FactState.OK),
        ("ZE_AFFINITY_MASK", "0.1,5", (B580,), FactState.OK),
        ("ZE_AFFINITY_MASK", "gpu", (B580,), FactState.WRONG),
        ("ZE_AFFINITY_MASK", "", (B580,), FactState.WARNING),
        ("ZE_AFFINITY_MASK", "7", (), FactState.OK),
        ("ONEAPI_DEVICE_SELECTOR", "level_zero:gpu", (B580,), FactState.OK),
        ("ONEAPI_DEVICE_SELECTOR", "level_zero:0", (B580,), FactState.OK),
        ("ONEAPI_DEVICE_SELECTOR", "level_zero:1", (B580,), FactState.WRONG),
        ("ONEAPI_DEVICE_SELECTOR", "*:gpu", (B580,), FactState.OK),
        ("ONEAPI_DEVICE_SELECTOR", "opencl:*", (B580,), FactState.WRONG),
        ("ONEAPI_DEVICE_SELECTOR", "opencl:gpu;level_zero:*", (B580,), FactState.OK),
        ("ONEAPI_DEVICE_SELECTOR", "level_zero:cpu", (B580,), FactState.WRONG),
        ("ONEAPI_DEVICE_SELECTOR", "!opencl:*", (B580,), FactState.OK),
        ("ONEAPI_DEVICE_SELECTOR", "!level_zero:gpu", (B580,), FactState.WRONG),
        ("ONEAPI_DEVICE_SELECTOR", "!level_zero:0", (LUNAR_LAKE, B580), FactState.OK),
        ("ONEAPI_DEVICE_SELECTOR", "level_zero", (B580,), FactState.WRONG),
        ("ONEAPI_DEVICE_SELECTOR", "levelzero:0", (B580,), FactState.WRONG),
    ],
)
def test_filters(name: str, value: str, gpus: tuple[Gpu, ...], state: FactState) -> None:
    assert about(list(findings(facts(*gpus, **{name: value}))), name).state is state


def test_a_card_of_several_tiles_may_have_more_numbers() -> None:
    card = Gpu("0000:03:00.0", B580.vendor, 0x0BD5, "i915")
    assert about(list(findings(facts(card, ZE_AFFINITY_MASK="1"))), "ZE_AFFINITY_MASK").state is FactState.OK


@pytest.mark.parametrize(
    ("name", "value", "gpu", "state"),
    [
        ("CUDA_VISIBLE_DEVICES", "0", NVIDIA_CARD, FactState.OK),
        ("CUDA_VISIBLE_DEVICES", "", NVIDIA_CARD, FactState.WARNING),
        ("CUDA_VISIBLE_DEVICES", "-1", NVIDIA_CARD, FactState.WARNING),
        ("HIP_VISIBLE_DEVICES", "-1", RADEON, FactState.WARNING),
        ("HSA_OVERRIDE_GFX_VERSION", "11.0.0", RADEON, FactState.WARNING),
        ("CUDA_VISIBLE_DEVICES", "-1", B580, None),
        ("HIP_VISIBLE_DEVICES", "-1", NVIDIA_CARD, None),
        ("HSA_OVERRIDE_GFX_VERSION", "11.0.0", B580, None),
    ],
)
def test_filters_of_others_count_where_there_is_such_a_gpu(
    name: str, value: str, gpu: Gpu, state: FactState | None
) -> None:
    assert states(list(findings(facts(gpu, **{name: value})))).get(name) is state


@pytest.mark.parametrize(
    ("name", "value", "state"),
    [
        ("SYCL_CACHE_PERSISTENT", "1", FactState.OK),
        ("UR_L0_ENABLE_RELAXED_ALLOCATION_LIMITS", "1", FactState.OK),
        ("UR_L0_ENABLE_SYSMAN_ENV_DEFAULT", "0", FactState.OK),
        ("ZE_FLAT_DEVICE_HIERARCHY", "COMPOSITE", FactState.OK),
        ("ZE_FLAT_DEVICE_HIERARCHY", "flat", FactState.WARNING),
        ("PYTORCH_ENABLE_XPU_FALLBACK", "1", FactState.WARNING),
        ("PYTORCH_ENABLE_XPU_FALLBACK", "0", None),
        ("PYTORCH_DEBUG_XPU_FALLBACK", "1", FactState.OK),
        ("IGC_EnableDPEmulation", "1", FactState.WARNING),
        ("IPEX_TILE_AS_DEVICE", "1", FactState.WARNING),
        ("SYCL_DEVICE_FILTER", "gpu", FactState.WARNING),
        ("SYCL_PI_LEVEL_ZERO_BATCH_SIZE", "1", FactState.WARNING),
        ("PATCHFORGE_XPU_LEVEL", "O2", FactState.OK),
        ("PATCHFORGE_XPU_LEVL", "O2", FactState.WARNING),
        ("PATCHFORGE_EMULATE_XPU", "b580", FactState.WARNING),
        ("PATCHFORGE_CACHE", "/tmp", None),
    ],
)
def test_switches(name: str, value: str, state: FactState | None) -> None:
    assert states(list(findings(facts(B580, **{name: value})))).get(name) is state


def test_every_documented_variable_is_known() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"PATCHFORGE_[A-Z_]*[A-Z]", page.read_text("utf-8"))}
    assert {"PATCHFORGE_STATE", "PATCHFORGE_TRACEBACK", "PATCHFORGE_CACHE"} <= named
    told = [finding.text for name in sorted(named) for finding in findings(facts(B580, **{name: "1"}))]
    assert not [text for text in told if "no variable" in text]


@pytest.mark.parametrize("name", ["PATCHFORGE_STATE", "PATCHFORGE_CACHE", "PATCHFORGE_UPSTREAM"])
def test_paths_of_the_user_are_not_shown(name: str) -> None:
    assert shown({name: "/home/ann/x"}) == {}


def test_emulated_devices_are_not_counted_against_the_bus() -> None:
    torch = interpreter(device_0={"platform": "emulated XPU"})
    told = findings(Facts(machine(B580), torch, {"ZE_AFFINITY_MASK": "1"}))
    assert about(list(told), "ZE_AFFINITY_MASK").state is FactState.OK


def test_a_report_shows_no_other_variables() -> None:
    environment = {"GITHUB_TOKEN": "secret", "HOME": "/home/ann", "ZE_AFFINITY_MASK": "0", "PATCHFORGE_UPSTREAM": "x"}
    assert shown(environment) == {"ZE_AFFINITY_MASK": "0"}
