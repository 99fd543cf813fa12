"""The runtime module's hooks on the emulated XPU: real tensors, real out-of-memory errors, a device that gets lost."""

from __future__ import annotations

from typing import Any

import pytest

from emulator import build
from emulator.worker import on

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=f"no emulated XPU: {build.missing()}")

GIB = 1 << 30


def runtime(**settings: Any) -> Any:
    """The runtime module as at the start of a process that has these settings."""
    from patchforge.transforms.runtime import patchforge_xpu
    from patchforge.transforms.runtime.patchforge_xpu.settings import configure, reset, state

    reset()
    configure()
    for name, value in settings.items():
        setattr(state, name, value)
    return patchforge_xpu


@on("b580")
def test_free_memory_is_not_what_another_process_holds() -> None:
    import torch

    from emulator import faults

    hooks, device = runtime(), torch.device("xpu", 0)
    total = torch.xpu.get_device_properties(device).total_memory
    reserved = torch.xpu.memory_reserved(device)
    estimate = total - reserved
    faults.other_process(8 * GIB)
    assert hooks.free_memory(device, estimate, reserved) == torch.xpu.mem_get_info(device)[0] == estimate - 8 * GIB
    assert hooks.free_memory(torch.device("cpu"), estimate, reserved) == estimate
    for mode in ("nonsense", "raises"):
        faults.memory_info(mode)
        assert hooks.free_memory(device, estimate, reserved) == estimate
    faults.memory_info("stale")
    kept = torch.empty(9 * GIB // 8, dtype=torch.uint8, device=device)
    faults.other_process(0)
    assert hooks.free_memory(device, estimate, total) == estimate  # more is reserved than the answer says is used
    del kept


@on("lunar-lake")
def test_an_integrated_device_has_no_more_memory_than_the_machine() -> None:
    import torch

    psutil = pytest.importorskip("psutil")
    hooks = runtime()
    from patchforge.transforms.runtime.patchforge_xpu.memory import is_integrated

    assert is_integrated(torch.device("xpu", 0))
    assert hooks.integrated_free_memory(torch.device("xpu", 0), 1 << 50) <= psutil.virtual_memory().total


@on("two")
def test_discrete_devices_are_not_integrated_and_contexts_change_the_device() -> None:
    import torch

    hooks = runtime()
    from patchforge.transforms.runtime.patchforge_xpu.memory import is_integrated

    assert not is_integrated(torch.device("xpu", 1))
    with hooks.device_context(torch.device("xpu", 1)):
        assert torch.empty(1, device="xpu").device.index == 1
    assert torch.xpu.current_device() == 0
    assert hooks.stream_api(torch.cuda, torch.device("xpu", 1)) is torch.xpu


@on("b580")
def test_level_zeros_errors_are_out_of_memory_and_a_lost_device_is_not() -> None:
    import torch

    from emulator import faults

    hooks, x = runtime(), torch.ones(2, device="xpu")
    for error in ("out-of-device-memory", "out-of-resources", "out-of-host-memory"):
        faults.fail(error)
        with pytest.raises(RuntimeError, match="UR_RESULT_ERROR") as caught:
            x + 1
        assert hooks.is_oom(caught.value)
        assert isinstance(caught.value, hooks.oom_types(torch.OutOfMemoryError, caught.value))
    faults.fail("device-lost")
    with pytest.raises(RuntimeError, match="DEVICE_LOST") as lost:
        x + 1
    assert not hooks.is_oom(lost.value)
    assert hooks.survive(torch.xpu.synchronize)() is None
    hooks.empty_cache()
    with pytest.raises(RuntimeError, match="DEVICE_LOST"):
        hooks.synchronize(torch.device("xpu"))


@on("b580")
def test_attention_in_chunks_is_the_same() -> None:
    import torch

    from emulator import faults

    attention = torch.nn.functional.scaled_dot_product_attention
    chunked = runtime(attention_limit=1 << 20).attention(attention)
    q, k, v = (torch.randn(2, 4, n, 40, device="xpu") for n in (300, 333, 333))
    masks = [None, torch.randn(300, 333), torch.rand(2, 1, 300, 333) > 0.1, torch.randn(2, 1, 1, 333)]
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        for mask in masks:
            moved = None if mask is None else mask.to("xpu", mask.dtype if mask.dtype is torch.bool else kind)
            arguments = [tensor.to(kind) for tensor in (q, k, v)]
            before = faults.operations()
            found = chunked(*arguments, attn_mask=moved)
            assert faults.operations() - before > 4
            whole = attention(*arguments, attn_mask=moved)
            torch.testing.assert_close(found, whole, rtol=1e-2, atol=1e-3)  # the CPU kernel rounds by block


@on("b580")
def test_channels_last_keeps_values_and_names() -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Conv2d(8, 4, 1), torch.nn.Linear(6, 6))
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        expected = model(x)
        moved = model.xpu()
        assert runtime(level=2).optimise_model(moved, torch.device("xpu", 0)) is moved
        assert moved[0].weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(expected, moved(x.xpu()).cpu())


@on("b580")
def test_positive_zero_and_autocast_device() -> None:
    import torch

    hooks, x = runtime(), torch.tensor([-0.0, 1.0, float("nan")], device="xpu")
    assert torch.signbit(hooks.positive_zero(x)).tolist() == [False, False, False]
    assert hooks.autocast_device("cuda", x) == "xpu"
    assert hooks.autocast_device("cuda", x.cpu()) == "cuda"
