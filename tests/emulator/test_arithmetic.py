"""The self-test of an XPU's arithmetic, on the emulated one: right where the device is, and naming what is not."""

from __future__ import annotations

from typing import Any

import pytest

from emulator import build
from emulator.worker import on

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=f"no emulated XPU: {build.missing()}")


def trial(*broken: str, dtype: str = "float16", value: float = 0.0) -> Any:
    """The findings and the advice where ``broken`` functions give ``value`` on the XPU in one dtype."""
    import torch
    from patchforge.transforms.runtime.patchforge_xpu import arithmetic

    places = {
        "linear": (torch.nn.functional, "linear"),
        "matmul": (torch, "matmul"),
        "convolution": (torch.nn.functional, "conv2d"),
        "attention": (torch.nn.functional, "scaled_dot_product_attention"),
    }

    def spoilt(real: Any) -> Any:
        def call(*args: Any) -> Any:
            out = real(*args)
            wrong = out.device.type == "xpu" and out.dtype == getattr(torch, dtype)
            return torch.full_like(out, value) if wrong else out

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in broken:
            owner, function = places[name]
            patch.setattr(owner, function, spoilt(getattr(owner, function)))
        wrong = arithmetic.wrong_results(0)
    return wrong, arithmetic.advice(wrong) if wrong else ""


@on("b580")
def test_a_device_in_order_is_right() -> None:
    assert trial() == ({}, "")


@on("b580")
def test_zeros_nan_and_wrong_numbers_are_named_with_the_flag_that_avoids_them() -> None:
    assert trial("linear", "matmul") == (
        {"float16 linear": "all zero", "float16 matmul": "all zero"},
        "update the driver, or start with --xpu-precision bf16",
    )
    wrong, do = trial("matmul", dtype="bfloat16", value=float("nan"))
    assert wrong == {"bfloat16 matmul": "not finite"}
    assert do.endswith("--xpu-precision fp32")
    wrong, do = trial("attention", value=3.0)
    assert wrong["float16 attention"].startswith("off by")
    assert do.endswith("--xpu-attention math")


@on("b580")
def test_help_gpu_says_so() -> None:
    import contextlib
    import io
    from types import SimpleNamespace

    import torch
    from patchforge.transforms.runtime import patchforge_xpu as pf
    from patchforge.transforms.runtime.patchforge_xpu.settings import reset

    real, said = torch.nn.functional.linear, io.StringIO()

    def zeros(*args: Any) -> Any:
        out = real(*args)
        return torch.zeros_like(out) if out.device.type == "xpu" and out.dtype == torch.float16 else out

    reset()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(torch.nn.functional, "linear", zeros)
        with pytest.raises(SystemExit):
            pf.start(SimpleNamespace(help_gpu=True))
    line = next(line for line in said.getvalue().splitlines() if "wrong results" in line)
    assert line.startswith("xpu:0 fp16: wrong results (linear all zero)")
    assert line.endswith("--xpu-precision bf16")


@on("b580")
def test_the_int8_gate_opens_where_a_product_ran_and_was_right() -> None:
    import torch
    from patchforge.transforms.runtime import patchforge_xpu as pf
    from patchforge.transforms.runtime.patchforge_xpu.settings import reset

    from emulator import faults

    device = torch.device("xpu", 0)
    reset()
    assert pf.int8_compute(device) is True
    before = faults.operations()
    assert pf.int8_compute(device) is pf.int8_compute(None) is True
    assert faults.operations() == before, "tried once"
    assert pf.int8_compute(torch.device("cpu")) is False

    real = torch._int_mm
    answers: list[Any] = [lambda a, b: real(a, b) + 1, lambda a, b: (_ for _ in ()).throw(RuntimeError("no kernel"))]
    for answer in answers:
        reset()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "_int_mm", answer)
            assert pf.int8_compute(device) is False
        assert pf.int8_compute(device) is False, "and is remembered"
