"""Free memory, out-of-memory recognition, synchronisation and offloading on a faked XPU."""

from __future__ import annotations

import argparse
import os
import types
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from patchforge.transforms.runtime import patchforge_xpu as pf
from patchforge.transforms.runtime.patchforge_xpu import devices
from patchforge.transforms.runtime.patchforge_xpu.devices import is_integrated
from patchforge.transforms.runtime.patchforge_xpu.error_texts import MEMORY_TEXTS
from patchforge.transforms.runtime.patchforge_xpu.settings import VARIABLES, reset, state

GIB = 1 << 30
OOM_TEXT = "39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"
XPU, CPU = torch.device("xpu", 0), torch.device("cpu")
B580 = "Intel(R) Arc(TM) B580 Graphics"
IGPU = "Intel(R) Arc(TM) Graphics"


class Xpu:
    """torch.xpu that records what it is asked; ``free`` is what mem_get_info returns or raises."""

    def __init__(self, name: str = B580) -> None:
        self.calls: list[Any] = []
        self.free: Any = (4 * GIB, 12 * GIB)
        self.fails: Exception | None = None
        self.properties: Any = types.SimpleNamespace(name=name, total_memory=12 * GIB)

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, index: int) -> Any:
        self.calls.append(("properties", index))
        return self.properties

    def mem_get_info(self, device: Any) -> Any:
        if isinstance(self.free, Exception):
            raise self.free
        return self.free

    def synchronize(self, device: Any = None) -> None:
        self.calls.append(("synchronize", device))
        if self.fails:
            raise self.fails

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")


@pytest.fixture
def xpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    fake = Xpu()
    monkeypatch.setattr(torch, "xpu", fake)
    reset()
    yield fake
    reset()


def level(monkeypatch: pytest.MonkeyPatch, name: str, enable: str = "") -> None:
    monkeypatch.setenv("PATCHFORGE_XPU_LEVEL", name)
    monkeypatch.setenv("PATCHFORGE_XPU_ENABLE", enable)
    state.configured = False


# --- Free memory


@pytest.mark.parametrize("device", [XPU, "xpu:0", 0, None])
def test_the_drivers_answer_counts_where_it_is_lower(xpu: Xpu, device: Any) -> None:
    assert pf.free_memory(device, 9 * GIB, 3 * GIB) == 4 * GIB


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("The device doesn't support querying the available free memory."),
        NotImplementedError(),
        AttributeError("mem_get_info"),
        OSError("driver"),
        (0, 0),
        (1, -1),
        (-1, 12 * GIB),
        (13 * GIB, 12 * GIB),
        (10 * GIB, 12 * GIB),  # stale: torch alone holds 3 of the 12
        (4.0 * GIB, 12 * GIB),
        (True, 12 * GIB),
        (None, None),
        (4 * GIB,),
        None,
    ],
    ids=repr,
)
def test_an_answer_that_cannot_be_right_leaves_the_estimate(xpu: Xpu, answer: Any) -> None:
    xpu.free = answer
    estimate = 9 * GIB
    assert pf.free_memory(XPU, estimate, 3 * GIB) is estimate


def test_a_torch_without_mem_get_info_leaves_the_estimate(monkeypatch: pytest.MonkeyPatch, xpu: Xpu) -> None:
    monkeypatch.delattr(Xpu, "mem_get_info")
    assert pf.free_memory(XPU, 9 * GIB, 0) == 9 * GIB


def test_a_full_device_has_nothing_free(xpu: Xpu) -> None:
    xpu.free = (0, 12 * GIB)
    assert pf.free_memory(XPU, 9 * GIB, 3 * GIB) == 0


@given(st.integers(-5, 40), st.integers(-5, 40), st.integers(0, 30), st.integers(0, 30))
def test_free_memory_is_between_zero_and_the_estimate(free: int, total: int, size: int, reserved: int) -> None:
    reserved = min(reserved, size)
    with pytest.MonkeyPatch.context() as patch:
        fake = Xpu()
        fake.free = (free, total)
        patch.setattr(torch, "xpu", fake)
        reset()
        answer = pf.free_memory(XPU, size - reserved, reserved)
        reset()
    assert 0 <= answer <= size - reserved
    if total > 0 and 0 <= free <= total - reserved:
        assert answer == min(free, size - reserved)
    else:
        assert answer == size - reserved


# --- Integrated GPUs


@pytest.mark.parametrize(
    ("name", "integrated"),
    [
        ("Intel(R) Arc(TM) A770 Graphics", False),
        ("Intel(R) Arc(TM) A370M Graphics", False),
        (B580, False),
        ("Intel(R) Arc(TM) Pro B50 Graphics", False),
        ("Intel(R) Data Center GPU Max 1550", False),
        ("Intel(R) Data Center GPU Flex 170", False),
        ("Intel(R) Iris(R) Xe MAX Graphics", False),
        ("Intel(R) Graphics [0x56a0]", False),
        ("Intel(R) Graphics [0xe20b]", False),
        (IGPU, True),
        ("Intel(R) Arc(TM) 140V GPU (16GB)", True),
        ("Intel(R) Arc(TM) 130T GPU", True),
        ("Intel(R) Arc(TM) B390 GPU", True),
        ("Intel(R) Iris(R) Xe Graphics", True),
        ("Intel(R) UHD Graphics 770", True),
        ("Intel(R) Graphics [0x7d55]", True),
        ("Intel(R) Graphics", True),
    ],
)
def test_names_tell_integrated_from_discrete(xpu: Xpu, name: str, integrated: bool) -> None:
    xpu.properties.name = name
    assert is_integrated(XPU) is integrated


@pytest.mark.parametrize(("name", "said"), [(B580, True), (IGPU, False), (IGPU, 0)])
def test_torchs_property_comes_before_the_name(xpu: Xpu, name: str, said: Any) -> None:
    xpu.properties = types.SimpleNamespace(name=name, total_memory=1, is_integrated_gpu=said)
    assert is_integrated(XPU) is bool(said)


@pytest.mark.parametrize(("size", "integrated"), [(12, False), (25, True)])
def test_a_nameless_device_is_told_by_its_size(
    monkeypatch: pytest.MonkeyPatch, xpu: Xpu, size: int, integrated: bool
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(total=32 * GIB))
    xpu.properties = types.SimpleNamespace(total_memory=size * GIB)
    assert is_integrated(XPU) is integrated


@pytest.mark.parametrize(("value", "name", "integrated"), [("0", IGPU, False), ("1", B580, True), ("", IGPU, True)])
def test_the_user_knows_better(
    monkeypatch: pytest.MonkeyPatch, xpu: Xpu, value: str, name: str, integrated: bool
) -> None:
    xpu.properties.name = name
    monkeypatch.setenv("PATCHFORGE_XPU_INTEGRATED", value)
    assert is_integrated(XPU) is integrated
    assert is_integrated(torch.device("cpu")) is False


def test_a_device_is_asked_once(xpu: Xpu) -> None:
    assert [is_integrated(device) for device in (XPU, 0, "xpu:0", None)] == [False] * 4
    assert xpu.calls == [("properties", 0)]
    is_integrated(torch.device("xpu", 1))
    assert xpu.calls == [("properties", 0), ("properties", 1)]


def test_unreadable_properties_are_upstreams_view(monkeypatch: pytest.MonkeyPatch, xpu: Xpu) -> None:
    monkeypatch.setattr(xpu, "current_device", lambda: 1 // 0)
    assert is_integrated(None) is False


@pytest.mark.parametrize(("name", "free"), [(IGPU, 10 * GIB), (B580, 55 * GIB)])
def test_integrated_memory_ends_where_the_ram_does(
    monkeypatch: pytest.MonkeyPatch, xpu: Xpu, name: str, free: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=10 * GIB))
    xpu.properties.name = name
    assert pf.integrated_free_memory(XPU, 55 * GIB) == free
    assert pf.integrated_free_memory(XPU, 3 * GIB) == 3 * GIB


@pytest.mark.parametrize(
    ("cgroup", "files", "free"),
    [
        ("0::/", {"memory.max": "4", "memory.current": "1", "memory.stat": "inactive_file 0"}, 3),
        ("0::/", {"memory.max": "4", "memory.current": "3", "memory.stat": "inactive_file 2"}, 3),
        ("0::/", {"memory.max": "max", "memory.current": "3", "memory.stat": ""}, 10),
        ("0::/a/b", {"a/memory.max": "4", "a/memory.current": "3", "a/memory.stat": ""}, 1),
        ("0::/", {"memory.max": "4", "memory.current": "6", "memory.stat": ""}, 0),
        (
            "3:cpu,memory:/",
            {
                "memory/memory.limit_in_bytes": "4",
                "memory/memory.usage_in_bytes": "2",
                "memory/memory.stat": "total_inactive_file 1",
            },
            3,
        ),
        ("2:cpu:/", {}, 10),
        (None, {}, 10),
    ],
)
def test_a_containers_limit_is_the_end_of_integrated_memory(  # noqa: PLR0917
    monkeypatch: pytest.MonkeyPatch, xpu: Xpu, tmp_path: Path, cgroup: str | None, files: dict[str, str], free: int
) -> None:
    """Sizes are in GiB."""
    xpu.properties.name = IGPU
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=10 * GIB))
    monkeypatch.setattr(devices, "CGROUPS", (str(tmp_path), str(tmp_path)))
    if cgroup is not None:
        (tmp_path / "cgroup").write_text(cgroup + "\n", encoding="ascii")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        words = [str(int(word) * GIB) if word.isdigit() else word for word in text.split()]
        (tmp_path / name).write_text(" ".join(words) + "\n", encoding="ascii")
    assert pf.integrated_free_memory(XPU, 55 * GIB) == free * GIB


# --- Out of memory


@pytest.mark.parametrize(
    "text",
    [
        "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
        "level_zero backend failed with error: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)",
        "Native API failed. Native API returns: 38 (UR_RESULT_ERROR_OUT_OF_HOST_MEMORY)",
        "Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES) -5 (PI_ERROR_OUT_OF_RESOURCES)",
        "Native API failed. Native API returns: -6 (PI_ERROR_OUT_OF_HOST_MEMORY)",
        "Native API failed. Native API returns: -4 (PI_ERROR_MEM_OBJECT_ALLOCATION_FAILURE)",
        "Native API failed. Native API returns: -5 (CL_OUT_OF_RESOURCES) -5 (CL_OUT_OF_RESOURCES)",
        "oneDNN errcode -6,CL_OUT_OF_HOST_MEMORY",
        "ZE_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
        "Triton Error [ZE]: 0x70000003",
        "Allocation is out of device memory on current platform.",
        "Current platform can NOT allocate memory block with size larger than 4GB! Tried to allocate 5.00 GiB",
        "XPU out of memory. Tried to allocate 5.12 GiB (GPU 0; 15.11 GiB total capacity; 13.40 GiB already allocated)",
        "could not create a memory object",
        "could not create a primitive",
        "could not execute a primitive",
    ],
)
def test_every_layers_way_to_say_so_is_oom(xpu: Xpu, text: str) -> None:
    assert pf.is_oom(RuntimeError(text)) is True
    assert pf.is_oom(ValueError(text)) is False


@pytest.mark.parametrize(
    "text",
    [
        "20 (UR_RESULT_ERROR_DEVICE_LOST)",
        "shape mismatch",
        "DEVICE_LOST after UR_RESULT_ERROR_OUT_OF_RESOURCES",
        "Native API returns: -2 (PI_ERROR_DEVICE_NOT_AVAILABLE), then PI_ERROR_OUT_OF_RESOURCES",
        "UR_RESULT_ERROR_OUT_OF_RESOURCES_EXHAUSTED_BY_NAME_ONLY",
        "MY_PI_ERROR_OUT_OF_RESOURCES",
        "the log says: XPU out of memory",
        "Triton Error [ZE]: 0x70000001",
        "could not create a primitive descriptor for a convolution forward propagation primitive",
        "could not create a memory objective",
    ],
)
def test_what_merely_looks_alike_is_not(xpu: Xpu, text: str) -> None:
    assert pf.is_oom(RuntimeError(text)) is False


def tried(text: str, most: int = 6) -> int:
    """How often a handler like that of the upscale node tries, where each attempt fails with ``text``."""
    attempts = 0
    while attempts < most:
        try:
            attempts += 1
            raise RuntimeError(text)  # noqa: TRY301 (a real try statement is the point)
        except RuntimeError as error:
            answers = {pf.is_oom(error), pf.is_oom(error)}
            if answers != {True}:  # also where the same error got two answers
                break
    return attempts


def test_what_may_be_the_driver_deserves_one_retry_in_each_handler(xpu: Xpu) -> None:
    for _ in range(3):
        assert tried("could not create a primitive") == 2
        assert tried("40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)") == 6
        assert tried("shape mismatch") == 1


def test_every_text_has_its_layer_and_source() -> None:
    assert all(known.layer and known.source and known.retries > 0 for known in MEMORY_TEXTS)


def test_a_lost_device_is_told_once_and_lasts(xpu: Xpu, caplog: pytest.LogCaptureFixture) -> None:
    stats = {"system": {}, "devices": [{"name": "xpu:0", "type": "xpu"}, {"name": "cuda:0", "type": "cuda"}]}
    assert pf.lost_device(stats) is stats
    xpu.fails = RuntimeError("level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)")
    for _ in range(2):
        pf.survive(xpu.synchronize)()
        assert pf.is_oom(xpu.fails) is False
    assert len(caplog.records) == 1
    assert "restarted" in caplog.text
    assert "goes on" not in caplog.text
    told = pf.lost_device(stats)
    assert "restarted" in told["devices"][0]["lost"]
    assert told["devices"][1] is stats["devices"][1]


def test_the_prompt_that_loses_the_device_says_so(xpu: Xpu, caplog: pytest.LogCaptureFixture) -> None:
    assert pf.is_oom(RuntimeError("Native API returns: -2 (PI_ERROR_DEVICE_NOT_AVAILABLE)")) is False
    assert "restarted" in caplog.text


def test_the_opt_in_ends_the_process_for_its_manager(monkeypatch: pytest.MonkeyPatch, xpu: Xpu) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    level(monkeypatch, "O1", "exit-when-lost")
    pf.is_oom(RuntimeError("UR_RESULT_ERROR_OUT_OF_RESOURCES"))
    assert ended == []
    pf.is_oom(RuntimeError("UR_RESULT_ERROR_DEVICE_LOST"))
    assert ended == [69]


class OtherError(Exception):
    pass


def caught_by(error: Exception, types_: Any) -> str:
    """Which clause of a real try statement takes ``error``, raised while another exception is being handled."""
    try:
        raise OtherError(OOM_TEXT)  # noqa: TRY301 (a real try statement is the point)
    except OtherError:
        try:
            try:
                raise error
            except pf.oom_types(types_) as caught:
                return "oom" if caught is error else "wrong exception"
        except Exception as caught:
            return "passed" if caught is error else "wrong exception"


@pytest.mark.parametrize("types_", [torch.OutOfMemoryError, (torch.OutOfMemoryError, KeyError)])
def test_an_except_clause_takes_what_it_took_and_the_drivers_oom(xpu: Xpu, types_: Any) -> None:
    assert caught_by(torch.OutOfMemoryError("XPU out of memory"), types_) == "oom"
    assert caught_by(RuntimeError("40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)"), types_) == "oom"
    assert caught_by(RuntimeError("shape mismatch"), types_) == "passed"
    assert caught_by(OtherError(), types_) == "passed"


def test_isinstance_takes_the_exception_it_is_given(xpu: Xpu) -> None:
    error = RuntimeError(OOM_TEXT)
    assert isinstance(error, pf.oom_types(torch.OutOfMemoryError, error))
    assert pf.oom_types(torch.OutOfMemoryError, RuntimeError("shape")) is torch.OutOfMemoryError
    assert pf.oom_types(torch.OutOfMemoryError) is torch.OutOfMemoryError


def test_widening_ends_with_the_exception(xpu: Xpu) -> None:
    assert caught_by(RuntimeError(OOM_TEXT), KeyError) == "oom"
    assert caught_by(RuntimeError("shape"), KeyError) == "passed"


# --- Synchronisation


def test_a_failing_synchronize_is_logged_once(xpu: Xpu, caplog: pytest.LogCaptureFixture) -> None:
    xpu.fails = RuntimeError("UR_RESULT_ERROR_OUT_OF_RESOURCES")
    pf.survive(xpu.synchronize)()
    pf.survive(xpu.synchronize)()
    assert len(caplog.records) == 1
    assert "UR_RESULT_ERROR_OUT_OF_RESOURCES" in caplog.text


def test_survive_passes_results_and_other_errors(xpu: Xpu) -> None:
    assert pf.survive(lambda a, b: a - b)(5, b=3) == 2
    xpu.fails = KeyError("bug")
    with pytest.raises(KeyError):
        pf.survive(xpu.synchronize)()


def test_empty_cache_synchronizes_first_and_survives(xpu: Xpu) -> None:
    xpu.fails = RuntimeError("lost")
    pf.empty_cache()
    assert xpu.calls == [("synchronize", None), "empty_cache"]


@pytest.mark.parametrize(
    ("device", "called"), [(XPU, True), (None, True), (torch.device("cpu"), False), ("cuda", False)]
)
def test_synchronize_is_for_xpus(xpu: Xpu, device: Any, called: bool) -> None:
    pf.synchronize(device)
    assert xpu.calls == [("synchronize", device)] * called


def test_synchronize_lets_errors_pass(xpu: Xpu) -> None:
    xpu.fails = RuntimeError(OOM_TEXT)
    with pytest.raises(RuntimeError):
        pf.synchronize(XPU)


# --- Offloading


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, 2),
        ({"async_offload": None}, 2),
        ({"async_offload": False}, 2),
        ({"async_offload": 0}, 0),
        ({"async_offload": 4}, 0),
        ({"async_offload": True}, 0),
        ({"async_offload": None, "disable_async_offload": True}, 0),
        ({"cpu": True}, 0),
    ],
)
def test_streams_are_two_unless_the_user_said_something(
    monkeypatch: pytest.MonkeyPatch, xpu: Xpu, given_: dict[str, Any], expected: int
) -> None:
    level(monkeypatch, "O1", "async-offload")
    args = state.args = argparse.Namespace(**given_)
    assert pf.offload_streams(0, args) == expected


@pytest.mark.parametrize(
    ("name", "lvl", "enable", "wanted"),
    [
        (B580, "O1", "", False),
        (B580, "O2", "", True),
        (B580, "O1", "async-offload,non-blocking", True),
        (IGPU, "O1", "async-offload,non-blocking", False),
        (IGPU, "O3", "", False),
    ],
)
def test_offloading_opt_ins_are_for_discrete_cards(  # noqa: PLR0917
    monkeypatch: pytest.MonkeyPatch, xpu: Xpu, name: str, lvl: str, enable: str, wanted: bool
) -> None:
    level(monkeypatch, lvl, enable)
    xpu.properties.name = name
    assert pf.offload_streams(0, argparse.Namespace()) == (2 if wanted else 0)
    assert pf.non_blocking(False, XPU) is wanted
    assert pf.non_blocking(True, XPU) is wanted  # v0.3.46 to v0.3.50 say True
    assert pf.non_blocking(True, torch.device("cpu")) is False


# --- O0


def test_o0_is_inert(monkeypatch: pytest.MonkeyPatch, xpu: Xpu) -> None:
    level(monkeypatch, "O0", "async-offload,non-blocking")
    xpu.properties.name = IGPU
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1))
    error = RuntimeError(OOM_TEXT)
    assert pf.free_memory(XPU, 9 * GIB, 0) == 9 * GIB
    assert pf.integrated_free_memory(XPU, 9 * GIB) == 9 * GIB
    assert pf.is_oom(error) is False
    assert pf.oom_types(KeyError, error) is KeyError
    assert pf.survive(print) is print
    assert pf.offload_streams(0, argparse.Namespace()) == 0
    assert pf.non_blocking(True, XPU) is True
    pf.empty_cache()
    pf.synchronize()
    assert xpu.calls == []
