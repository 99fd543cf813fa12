"""Calls that torch's fused attention is known to fail never reach it, and all others are left as they are."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo  # looks at torch.xpu once, which must be the real one then
from patchforge.transforms.runtime import patchforge_xpu as pf
from patchforge.transforms.runtime.patchforge_xpu import devices
from patchforge.transforms.runtime.patchforge_xpu.attention_faults import FAULTS
from patchforge.transforms.runtime.patchforge_xpu.settings import VARIABLES, reset, state

attention: Any = sys.modules[pf.attention.__module__]
SDPA = torch.nn.functional.scaled_dot_product_attention
B580, A770, MAX = (
    "Intel(R) Arc(TM) B580 Graphics",
    "Intel(R) Arc(TM) A770 Graphics",
    "Intel(R) Data Center GPU Max 1550",
)
LUNAR_LAKE = "Intel(R) Arc(TM) Graphics 140V GPU (16GB)"


class Xpu:
    """torch.xpu with one device, which counts how often it is asked."""

    def __init__(self, name: str) -> None:
        self.asked = 0
        self.properties = types.SimpleNamespace(name=name, total_memory=12 << 30)

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, _index: int) -> Any:
        self.asked += 1
        return self.properties

    def memory_allocated(self, _device: Any) -> int:
        self.asked += 1
        return 0


class Spy:
    """An sdpa that remembers each call's mask and whether the fused kernel was allowed."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...] | None, bool]] = []

    def __call__(self, q: Any, k: Any, v: Any, attn_mask: Any = None, **options: Any) -> Any:
        fused = torch._C._get_overrideable_sdp_enabled()
        self.calls.append((None if attn_mask is None else tuple(attn_mask.shape), fused))
        return SDPA(q, k, v, attn_mask=attn_mask, **options)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets up a device of some name under some torch."""
    real = devices.names_xpu

    def set_up(name: str = B580, version: str = "2.13.0+xpu", way: str = "") -> Xpu:
        for variable in VARIABLES:
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("PATCHFORGE_XPU_ATTENTION", way)
        monkeypatch.setattr(torch, "__version__", version)
        fake = Xpu(name)
        monkeypatch.setattr(torch, "xpu", fake)
        monkeypatch.setattr(devices, "names_xpu", lambda d: isinstance(d, torch.Tensor) or real(d))
        reset()
        return fake

    yield set_up
    reset()


def called(  # noqa: PLR0917
    heads: int, queries: int, keys: int, mask: Any = None, width: int = 64, dtype: torch.dtype = torch.float16
) -> tuple[Any, Spy]:
    """The result and the calls for one attention."""
    numbers = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, n, width, generator=numbers).to(dtype) for n in (queries, keys, keys))
    mask = mask.to(dtype) if mask is not None and mask.is_floating_point() else mask
    spy = Spy()
    result = pf.attention(spy)(q, k, v, attn_mask=mask)
    torch.testing.assert_close(result, SDPA(q, k, v, attn_mask=mask), rtol=0.02, atol=0.02)
    return result, spy


def test_a_mask_of_leading_ones_goes_in_as_rank_2(device: Any) -> None:
    device(A770)
    _, spy = called(2, 200, 200, torch.randn(1, 1, 200, 200))
    assert spy.calls == [((200, 200), True)]
    _, spy = called(2, 200, 200, torch.randn(1, 1, 1, 200))
    assert spy.calls == [((1, 200), True)]
    _, spy = called(2, 200, 200, torch.rand(1, 200, 200) > 0.1)
    assert spy.calls == [((200, 200), True)]


def test_a_mask_that_differs_by_head_goes_to_the_math_back_end(device: Any) -> None:
    device(A770)
    mask = torch.randn(1, 2, 256, 256)
    assert called(2, 256, 256, mask)[1].calls == [((1, 2, 256, 256), False)]
    assert torch._C._get_overrideable_sdp_enabled(), "the choice ends with the call"


@pytest.mark.parametrize(
    ("queries", "keys", "width", "version", "safe"),
    [
        (17, 129, 64, "2.13.0+xpu", False),
        (17, 129, 64, "2.7.1+xpu", False),
        (17, 129, 64, "2.14.2+xpu", False),
        (17, 129, 64, "2.15.0+xpu", True),
        (17, 129, 64, "2.15.0a0+git1", True),
        (17, 129, 64, "2.6.0+xpu", True),
        (16, 129, 64, "2.13.0+xpu", True),
        (17, 128, 64, "2.13.0+xpu", True),
        (17, 129, 128, "2.13.0+xpu", True),
        (17, 129, 32, "2.13.0+xpu", True),
    ],
)
def test_only_the_shapes_and_versions_that_are_known_are_moved(  # noqa: PLR0917
    device: Any, queries: int, keys: int, width: int, version: str, safe: bool
) -> None:
    device(MAX, version)
    mask = torch.randn(1, 2, queries, keys)
    assert called(2, queries, keys, mask, width)[1].calls == [((1, 2, queries, keys), safe)]


@pytest.mark.parametrize(
    ("name", "version", "keys", "fused"),
    [
        (B580, "2.13.0+xpu", 77, False),
        (B580, "2.14.1+xpu", 77, False),
        (LUNAR_LAKE, "2.13.0+xpu", 77, False),
        (B580, "2.12.1+xpu", 77, True),
        (B580, "2.15.0+xpu", 77, True),
        (B580, "2.13.0+xpu", 1024, True),
        (A770, "2.13.0+xpu", 77, True),
        (MAX, "2.13.0+xpu", 77, True),
    ],
)
def test_few_keys_on_xe2_go_to_the_math_back_end(device: Any, name: str, version: str, keys: int, fused: bool) -> None:
    device(name, version)
    assert called(2, 256, keys)[1].calls == [(None, fused)]


@pytest.mark.parametrize(("dtype", "fused"), [(torch.bfloat16, False), (torch.float16, False), (torch.float32, True)])
def test_rows_of_nan_are_of_half_precision_and_a_lost_device_of_any(
    device: Any, dtype: torch.dtype, fused: bool
) -> None:
    """T5 attends in float32, whatever its weights are."""
    device(B580)
    assert called(2, 256, 77, dtype=dtype)[1].calls == [(None, fused)]
    assert called(2, 256, 256, torch.randn(1, 2, 256, 256), dtype=dtype)[1].calls == [((1, 2, 256, 256), False)]


def test_the_math_back_end_sums_in_fp32_and_leaves_upstreams_choice(device: Any) -> None:
    device(way="math")
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    seen: list[bool] = []

    def sdpa(q: Any, *_rest: Any, **_options: Any) -> Any:
        seen.append(torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed())
        return q

    try:
        q = torch.zeros(1, 1, 4, 64)
        pf.attention(sdpa)(q, q, q)
        assert seen == [False]
        assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed() is True
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


@pytest.mark.parametrize(("way", "fused"), [("auto", True), ("math", False), ("sliced", True), ("fused", True)])
def test_the_way_can_be_chosen(device: Any, way: str, fused: bool) -> None:
    device(A770, way=way)
    assert called(2, 64, 64)[1].calls == [(None, fused)]


def test_sliced_trusts_no_fused_kernel(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device(MAX, "2.15.0+xpu", way="sliced")
    monkeypatch.setattr(state, "attention_limit", 2 * 64 * 4 * 40)
    state.configured, state.attention = True, "sliced"
    assert len(called(2, 64, 64, width=64)[1].calls) == 2


def test_fused_leaves_everything_to_torch(device: Any) -> None:
    device(A770, way="fused")
    assert pf.attention(SDPA) is SDPA


def test_the_device_is_asked_once(device: Any) -> None:
    fake = device(A770)
    for _ in range(5):
        called(1, 64, 64, torch.randn(1, 1, 64, 64))
    assert fake.asked == 1


def test_slices_do_not_change_while_gradients_are_recorded(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = device(A770)
    row = 128 << 20
    q = types.SimpleNamespace(shape=(1, 32, 64, 40), dtype=torch.float16, device=torch.device("xpu", 0))
    k = types.SimpleNamespace(shape=(1, 32, row // 32 // 4, 40))
    before = attention._rows(q, k, {})
    monkeypatch.setattr(fake, "memory_allocated", lambda _device: 11 << 30)
    assert attention._rows(q, k, {}) == before == 32
    with torch.no_grad():
        assert attention._rows(q, k, {}) == 4


def test_every_fault_has_a_source_and_an_end() -> None:
    for fault in FAULTS:
        assert fault.sources
        assert fault.torch[0] < fault.torch[1] <= (2, 15)


def test_a_compiled_graph_leaves_suspect_attention_out(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device(A770)
    monkeypatch.setattr(attention, "_compiling", lambda: True)
    spy = Spy()
    assert pf.attention(spy) is spy
    monkeypatch.setattr(state, "suspect", attention.suspect())
    assert pf.attention(spy) is not spy
