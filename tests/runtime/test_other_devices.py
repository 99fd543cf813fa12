"""CUDA, ROCm, MPS, DirectML and the CPU: every hook hands back what it was given and asks the hardware nothing."""

from __future__ import annotations

import argparse
import inspect
from typing import Any, NoReturn

import pytest
import torch
from patchforge.transforms.runtime import patchforge_xpu as pf
from patchforge.transforms.runtime.patchforge_xpu.settings import OPT_INS, reset

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
XPU = torch.device("xpu", 0)
OOM = RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)")
MODEL = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
TENSOR = torch.tensor([-0.0])


class Thing:
    """A value that only identity can recognise."""

    def __init__(self, *, true: bool) -> None:
        self.true = true

    def __bool__(self) -> bool:
        return self.true


YES, NO = Thing(true=True), Thing(true=False)


class Forbidden:
    """Stands for torch.cuda or torch.xpu: attributes may be read, nothing may be called but what is allowed."""

    def __init__(self, **allowed: Any) -> None:
        self.__dict__.update(allowed)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> NoReturn:
            raise AssertionError(f"{name} was called")

        return call


@pytest.fixture(params=["cuda", "hip", "cpu", "torch without torch.xpu"], autouse=True)
def _host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Other hosts, with everything switched on that can be."""
    monkeypatch.setattr(torch, "cuda", Forbidden())
    monkeypatch.setattr(torch, "xpu", Forbidden(is_available=lambda: False))
    if request.param in ("cuda", "hip"):
        monkeypatch.setattr(torch.version, request.param, "12.8")
    elif request.param != "cpu":
        monkeypatch.delattr(torch, "xpu")
    monkeypatch.setenv("PATCHFORGE_XPU_LEVEL", "O3")
    monkeypatch.setenv("PATCHFORGE_XPU_ENABLE", ",".join(OPT_INS))
    monkeypatch.setenv("PATCHFORGE_XPU_ATTENTION_LIMIT", "1")
    monkeypatch.setenv("PATCHFORGE_XPU_INTEGRATED", "1")
    reset()
    yield
    reset()


IDENTITY: dict[str, list[tuple[Any, ...]]] = {
    "choose_device": [(NO,), (False,)],
    "detect": [(NO,), (False,)],
    "asked": [(NO, device) for device in (CUDA, CPU, None, 0, "cuda", "mps", torch.device("xpu"))],
    "oom_types": [(MemoryError, OOM), ((KeyError, ValueError), OOM), (KeyError,)],
    "survive": [(print,)],
    "offload_streams": [(value, argparse.Namespace(async_offload=None)) for value in (YES, NO)],
    "non_blocking": [(value, device) for value in (YES, NO) for device in (CUDA, CPU, None)],
    "attention": [(torch.nn.functional.scaled_dot_product_attention,)],
    "positive_zero": [(TENSOR,)],
    "ipex_optimize": [(print,)],
    "ipex_opt_in": [(MODEL,)],
    "optimise_model": [(MODEL, CUDA), (MODEL, CPU)],
    "bf16": [(value, CUDA) for value in (YES, NO)],
    "fp64": [(value, CUDA) for value in (YES, NO)],
    "dynamic_vram_gate": [(value,) for value in (YES, NO)],
    "dynamic_vram_index": [(value, CUDA) for value in (YES, NO)],
    "current_device": [(YES,), (0,)],
    "lost_device": [({"devices": []},)],
    "autocast_device": [("cuda", TENSOR)],
    "stream_api": [(YES, CUDA), (YES, CPU), (YES, XPU)],
    "prefetch_devices": [(value, CUDA) for value in (YES, NO)],
}
SECOND_IS_UPSTREAMS = {"free_memory": (CUDA, YES, 0), "integrated_free_memory": (CUDA, YES)}


@pytest.mark.parametrize(("hook", "arguments"), [(name, each) for name, many in IDENTITY.items() for each in many])
def test_hooks_hand_back_the_very_object(hook: str, arguments: tuple[Any, ...]) -> None:
    assert getattr(pf, hook)(*arguments) is arguments[0]


@pytest.mark.parametrize("hook", SECOND_IS_UPSTREAMS)
def test_memory_hooks_hand_back_the_very_estimate(hook: str) -> None:
    arguments = SECOND_IS_UPSTREAMS[hook]
    assert getattr(pf, hook)(*arguments) is arguments[1]


@pytest.mark.parametrize(
    ("hook", "arguments"),
    [
        ("is_oom", (OOM,)),
        ("is_xpu", (CUDA,)),
        ("bf16_supported", (CUDA,)),
        ("dynamic_vram", ()),
        ("int8_compute", (CUDA,)),
        ("ipex_usable", ({}, MODEL)),
    ],
)
def test_questions_are_answered_no(hook: str, arguments: tuple[Any, ...]) -> None:
    assert getattr(pf, hook)(*arguments) is False


def test_actions_do_nothing() -> None:
    pf.empty_cache()
    pf.synchronize()
    pf.synchronize(CUDA)
    pf.enable_triton(Forbidden())
    with pf.device_context(CUDA), pf.device_context(torch.device("xpu", 1)):
        pass


def test_a_forbidden_torch_cuda_is_doubt_enough() -> None:
    assert pf.no_accelerator() is False


def test_forcing_an_absent_xpu_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHFORGE_PREFER_XPU", "1")
    assert pf.choose_device(NO) is NO


def test_every_public_function_is_tested_here() -> None:
    before_torch = {
        "add_flags",
        "add_oneapi_flag",
        "set_oneapi_selector",
        "select_devices",
        "start",
        "cuda_malloc_allowed",
    }
    questions = {"is_oom", "is_xpu", "bf16_supported", "dynamic_vram", "int8_compute", "ipex_usable"}
    actions = {"empty_cache", "synchronize", "device_context", "no_accelerator", "enable_triton"}
    public = {name for name, value in vars(pf).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert set(pf.__all__) == public
    assert set(pf.__all__) == IDENTITY.keys() | SECOND_IS_UPSTREAMS.keys() | before_torch | questions | actions
