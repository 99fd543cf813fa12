"""Attention, model optimisations, capabilities, devices and streams on a faked XPU."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from hypothesis import given, settings
from hypothesis import strategies as st
from patchforge.transforms.runtime import patchforge_xpu as pf
from patchforge.transforms.runtime.patchforge_xpu import devices
from patchforge.transforms.runtime.patchforge_xpu.attention import _default_limit, _fused, _rows, kernel_of
from patchforge.transforms.runtime.patchforge_xpu.models import triton_wanted
from patchforge.transforms.runtime.patchforge_xpu.settings import VARIABLES, reset, state

XPU, CPU = torch.device("xpu", 0), torch.device("cpu")
NAMES_XPU = devices.names_xpu
SDPA = torch.nn.functional.scaled_dot_product_attention


class Xpu:
    """torch.xpu whose device has ``properties``."""

    Stream = object

    def __init__(self) -> None:
        self.device = 0
        self.history: list[int] = []
        self.allocated = 0
        self.bf16: Any = True
        self.properties: Any = types.SimpleNamespace(name="Intel(R) Arc(TM) B580 Graphics", total_memory=12 << 30)

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return self.device

    def set_device(self, index: int) -> None:
        self.history.append(index)
        self.device = index

    def get_device_properties(self, index: int) -> Any:
        return self.properties

    def memory_allocated(self, device: Any) -> int:
        return self.allocated

    def is_bf16_supported(self) -> bool:
        if isinstance(self.bf16, Exception):
            raise self.bf16
        return bool(self.bf16)


def prepare(patch: pytest.MonkeyPatch, level: str = "O1", enable: str = "", limit: str = "") -> Xpu:
    """An XPU, on which CPU tensors are said to be."""
    for name in VARIABLES:
        patch.delenv(name, raising=False)
    patch.setenv("PATCHFORGE_XPU_LEVEL", level)
    patch.setenv("PATCHFORGE_XPU_ENABLE", enable)
    patch.setenv("PATCHFORGE_XPU_ATTENTION_LIMIT", limit)
    fake = Xpu()
    patch.setattr(torch, "xpu", fake)
    tensors_are_xpu(patch, lambda _: True)
    reset()
    return fake


def tensors_are_xpu(patch: pytest.MonkeyPatch, answer: Callable[[Any], bool]) -> None:
    """Let ``answer`` say of CPU tensors whether they are on an XPU; devices are what they are."""
    patch.setattr(
        devices, "names_xpu", lambda device: answer(device) if isinstance(device, torch.Tensor) else NAMES_XPU(device)
    )


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    with torch._dynamo.config.patch(suppress_errors=False):
        yield
    reset()


class Recorder:
    """An sdpa that remembers how many queries each call had, and with which options."""

    def __init__(self) -> None:
        self.queries: list[int] = []
        self.options: list[dict[str, Any]] = []

    def __call__(self, q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> Any:
        self.queries.append(q.shape[-2])
        self.options.append(kwargs)
        return SDPA(q, k, v, *args, **kwargs)


# --- Attention


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[Any], dict[str, Any], int]:
    """Arguments of an attention call in all its forms, and a limit in bytes that makes chunks of some queries."""
    size = st.integers(1, 4)
    batch, heads = draw(size), draw(size)
    queries, keys = draw(st.integers(1, 23)), draw(st.integers(1, 9))
    width, values = draw(st.sampled_from([4, 8, 64])), draw(st.sampled_from([4, 6]))
    outer = [batch, heads] if draw(st.booleans()) else [batch]
    torch.manual_seed(draw(st.integers(0, 99)))
    q, k, v = (torch.randn(*outer, n, w) for n, w in ((queries, width), (keys, width), (keys, values)))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["scale"] = draw(st.sampled_from([0.1, 0.7]))
    arguments = [q, k, v]
    shape = draw(
        st.sampled_from([None, [queries, keys], [1, keys], [*outer, queries, keys], [batch, *[1] * len(outer), keys]])
    )
    mask = None
    if shape is not None:
        shape = shape[-len(outer) - 2 :]
        mask = (
            torch.randn(shape) if draw(st.booleans()) else torch.rand(shape).lt(0.5).logical_or(torch.eye(1, keys) > 0)
        )
    if draw(st.booleans()):
        arguments += [mask, 0.0, False][: draw(st.integers(1, 3))]
    elif mask is not None or draw(st.booleans()):
        options.update(attn_mask=mask, dropout_p=0.0, is_causal=False)
    rows = draw(st.integers(1, queries + 2))
    return arguments, options, rows * q[..., 0, 0].numel() * keys * 4


@settings(max_examples=200, deadline=None)
@given(calls())
def test_chunks_give_what_the_whole_gives(call: tuple[list[Any], dict[str, Any], int]) -> None:
    arguments, options, limit = call
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, limit=str(limit))
        recorder = Recorder()
        chunked = pf.attention(recorder)(*arguments, **options)
    q, k = arguments[:2]
    row = q[..., 0, 0].numel() * k.shape[-2] * 4
    assert sum(recorder.queries) == q.shape[-2]
    assert max(recorder.queries) * row <= limit
    torch.testing.assert_close(chunked, SDPA(*arguments, **options))


def test_grouped_queries_keep_their_option(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, limit="200")
    q, k, v = torch.randn(1, 4, 7, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    recorder = Recorder()
    chunked = pf.attention(recorder)(q, k, v, scale=0.3, enable_gqa=True)
    assert recorder.queries == [2, 2, 2, 1]
    assert all(options["enable_gqa"] for options in recorder.options)
    torch.testing.assert_close(chunked, SDPA(q, k, v, scale=0.3, enable_gqa=True))


@pytest.mark.parametrize("options", [{"is_causal": True}, {"dropout_p": 0.5}])
def test_causal_attention_and_dropout_stay_whole(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    prepare(monkeypatch, limit="1")
    recorder = Recorder()
    pf.attention(recorder)(*(torch.randn(1, 1, 6, 4) for _ in range(3)), **options)
    assert recorder.queries == [6]
    assert recorder.options == [options]


def test_positional_causal_attention_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, limit="1")
    recorder = Recorder()
    pf.attention(recorder)(*(torch.randn(1, 1, 6, 4) for _ in range(3)), None, 0.0, True)
    assert recorder.queries == [6]


def test_calls_by_keyword_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, limit="1")
    q, k, v = (torch.randn(1, 1, 6, 4) for _ in range(3))
    torch.testing.assert_close(pf.attention(SDPA)(query=q, key=k, value=v), SDPA(q, k, v))


def test_tensors_elsewhere_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, limit="1")
    tensors_are_xpu(monkeypatch, lambda tensor: tensor.device.type == "xpu")
    recorder = Recorder()
    pf.attention(recorder)(*(torch.randn(1, 1, 6, 4) for _ in range(3)))
    assert recorder.queries == [6]


@pytest.mark.parametrize(("level", "limit", "way"), [("O0", "", ""), ("O0", "1", "math"), ("O1", "1", "fused")])
def test_attention_is_upstreams_where_it_is_off(
    monkeypatch: pytest.MonkeyPatch, level: str, limit: str, way: str
) -> None:
    prepare(monkeypatch, level, limit=limit)
    monkeypatch.setenv("PATCHFORGE_XPU_ATTENTION", way)
    assert pf.attention(SDPA) is SDPA


def test_a_limit_of_0_slices_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, limit="0")
    recorder = Recorder()
    pf.attention(recorder)(*(torch.randn(1, 1, 6, 4) for _ in range(3)))
    assert recorder.queries == [6]


def test_attention_inside_a_compiled_graph_is_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    reset()
    monkeypatch.setattr(state, "available", True)  # the compiler itself looks into torch.xpu, which stays real
    monkeypatch.setattr(sys.modules[f"{pf.__name__}.attention"], "_attention", lambda *args, **kwargs: 1 // 0)
    seen = Recorder()

    @torch.compile(backend="eager", fullgraph=True)  # type: ignore[untyped-decorator]
    def function(q: Any, k: Any, v: Any) -> Any:
        return pf.attention(SDPA)(q, k, v)

    q, k, v = (torch.randn(1, 1, 6, 4) for _ in range(3))
    torch.testing.assert_close(function(q, k, v), SDPA(q, k, v))
    monkeypatch.setattr(sys.modules[f"{pf.__name__}.attention"], "_compiling", lambda: True)
    assert pf.attention(seen) is seen


@pytest.mark.parametrize(
    ("total", "allocated", "limit"),
    [(12, 0, 4 << 30), (12, 8, 2 << 30), (12, 12, 64 << 20), (None, 0, 4 << 30)],
)
def test_default_limit_follows_what_is_left(
    monkeypatch: pytest.MonkeyPatch, total: int | None, allocated: int, limit: int
) -> None:
    fake = prepare(monkeypatch)
    fake.allocated = allocated << 30
    fake.properties = types.SimpleNamespace(total_memory=total << 30) if total else None
    with torch.inference_mode():
        assert _default_limit(XPU) == limit
    assert _default_limit(XPU) == 4 << 30, "a recomputation must slice as the forward pass did"


def shaped(*shape: int, dtype: torch.dtype = torch.float16) -> Any:
    return types.SimpleNamespace(shape=shape, dtype=dtype, device=XPU)


def test_without_a_limit_large_scores_are_chunked_and_small_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)
    large, small = shaped(1, 32, 16384, 40), shaped(1, 8, 1024, 40)
    assert _rows(large, large, {}) == (4 << 30) // (32 * 16384 * 4)
    assert _rows(small, small, {}) == 1024


@pytest.mark.parametrize(
    ("name", "width", "mask", "dtype", "version", "fused"),
    [
        ("Intel(R) Arc(TM) B580 Graphics", 64, None, torch.float16, "2.10.0+xpu", True),
        ("Intel(R) Arc(TM) B580 Graphics", 128, None, torch.bfloat16, "2.7.1", True),
        ("Intel(R) Arc(TM) B580 Graphics", 40, None, torch.float16, "2.10.0", False),
        ("Intel(R) Arc(TM) B580 Graphics", 64, object(), torch.float16, "2.10.0", False),
        ("Intel(R) Arc(TM) B580 Graphics", 64, None, torch.float32, "2.10.0", False),
        ("Intel(R) Arc(TM) B580 Graphics", 64, None, torch.float16, "2.6.0", False),
        ("Intel(R) Arc(TM) A770 Graphics", 64, None, torch.float16, "2.10.0", False),
        ("Intel(R) Arc(TM) A310 LP Graphics", 64, None, torch.float16, "2.10.0", False),
        ("Intel(R) Data Center GPU Flex 170", 64, None, torch.float16, "2.10.0", False),
        ("Intel(R) Data Center GPU Max 1550", 64, None, torch.float16, "2.10.0", True),
    ],
)
def test_fused_kernels_are_left_alone(  # noqa: PLR0917
    monkeypatch: pytest.MonkeyPatch, name: str, width: int, mask: Any, dtype: torch.dtype, version: str, fused: bool
) -> None:
    fake = prepare(monkeypatch, limit="1M")
    fake.properties.name = name
    monkeypatch.setattr(torch, "__version__", version)
    q = shaped(1, 8, 4096, width, dtype=dtype)
    assert (_rows(q, q, {}, fused=_fused(kernel_of(XPU), q, mask)) == 4096) is fused


def test_a_device_without_matrix_units_has_no_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = prepare(monkeypatch)
    fake.properties.has_subgroup_matrix_multiply_accumulate = False
    assert _fused(kernel_of(XPU), shaped(1, 8, 64, 64), None) is False


# --- Values


def test_positive_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.tensor([-0.0, 0.0, -1.5, float("inf"), float("nan")])
    prepare(monkeypatch)
    fixed = pf.positive_zero(values)
    assert not torch.signbit(fixed[:2]).any()
    torch.testing.assert_close(fixed, values, equal_nan=True, rtol=0, atol=0)
    prepare(monkeypatch, "O0")
    assert pf.positive_zero(values) is values


# --- IPEX


@pytest.mark.parametrize(
    ("dtype", "level", "usable"),
    [
        (torch.float16, "O1", True),
        (torch.float8_e4m3fn, "O1", False),
        (torch.int8, "O1", False),
        (torch.uint8, "O1", False),
        (torch.float8_e4m3fn, "O0", True),
    ],
)
def test_ipex_is_kept_from_quantised_models(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, level: str, usable: bool
) -> None:
    prepare(monkeypatch, level)
    model = torch.nn.Linear(2, 2)
    model.bias = torch.nn.Parameter(torch.zeros(2).to(dtype), requires_grad=False)
    assert pf.ipex_usable({"ipex": 1}, model) is usable
    assert pf.ipex_usable({}, model) is False
    assert pf.ipex_usable({"ipex": 1}, None) is False


def test_ipex_is_kept_from_partially_loaded_models(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)
    model = torch.nn.Linear(2, 2)
    tensors_are_xpu(monkeypatch, lambda tensor: tensor is model.weight)
    assert pf.ipex_usable({"ipex": 1}, model) is False


def blocks() -> Any:
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(2)).eval()


def picture(model: Any) -> Any:
    """All that a model is: its modules by identity, their types, and the bytes and identity of its weights."""
    modules = {name: (id(module), type(module)) for name, module in model.named_modules()}
    weights = {name: (id(value), value.tolist()) for name, value in model.state_dict(keep_vars=True).items()}
    return modules, weights, {key: id(value) for key, value in vars(model).items()}


def test_ipex_optimize_is_asked_for_nothing_that_makes_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)
    seen: list[dict[str, Any]] = []

    def optimize(model: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return model

    model = blocks()
    assert pf.ipex_optimize(optimize)(model, graph_mode=True, concat_linear=True) is model
    off = "replace_dropout_with_identity conv_bn_folding linear_bn_folding graph_mode weights_prepack concat_linear"
    assert seen == [{"inplace": True, **dict.fromkeys(off.split(), False)}]


def test_ipex_optimize_serves_versions_without_some_options(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)
    seen: list[bool] = []

    def optimize(model: Any, inplace: bool, conv_bn_folding: bool) -> Any:
        seen.append(conv_bn_folding)
        return model

    model = blocks()
    assert pf.ipex_optimize(optimize)(model, inplace=True) is model
    assert seen == [False]


def half_way(model: Any, error: Exception | None = None) -> Any:
    """What ipex.optimize does to a model in place before it fails: all kinds of changes that were seen in it."""
    model[1] = torch.nn.Identity()
    model.add_module("more", torch.nn.Identity())
    model[0].weight.data = torch.zeros(1, 1, 2, 1, 1)
    model[0].bias = torch.nn.Parameter(torch.zeros(2))
    model[0].__class__ = torch.nn.Conv3d
    model.forward = lambda x: x
    del model[2].running_mean
    if error is not None:
        raise error


@pytest.mark.parametrize("error", [RuntimeError("no"), TypeError("int is not iterable"), AssertionError()])
def test_what_ipex_did_before_it_failed_is_undone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    prepare(monkeypatch)
    model, tries = blocks(), []
    hook = model[0].register_forward_hook(lambda *_: None)
    before = picture(model)

    def optimize(model: Any, **kwargs: Any) -> Any:
        tries.append(1)
        half_way(model, error)

    assert pf.ipex_optimize(optimize)(model) is model
    assert len(tries) == 1
    assert "ipex.optimize failed" in caplog.text
    assert picture(model) == before
    hook.remove()
    assert not model[0]._forward_hooks, "a hook's handle still knows its module"


def another(model: Any) -> Any:
    half_way(model)
    return torch.nn.Sequential(model)


def reshaped(model: Any) -> Any:
    model[0].weight.data = torch.zeros(1, 1, 2, 1, 1)
    return model


@pytest.mark.parametrize("made", [another, reshaped, lambda model: model.half()])
def test_another_model_or_other_weights_are_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, made: Callable[[Any], Any]
) -> None:
    prepare(monkeypatch)
    model = blocks()
    before = picture(model)
    assert pf.ipex_optimize(lambda model, **_: made(model))(model) is model
    assert picture(model) == before
    assert "another model" in caplog.text


@pytest.mark.parametrize(
    ("enable", "version", "calls_"),
    [("ipex", "2.8.0+xpu", 1), ("ipex", "2.9.0", 0), ("ipex", "2.10.0", 0), ("", "2.8.0", 0)],
)
def test_ipex_opt_in(monkeypatch: pytest.MonkeyPatch, enable: str, version: str, calls_: int) -> None:
    prepare(monkeypatch, enable=enable)
    monkeypatch.setattr(torch, "__version__", version)
    seen: list[Any] = []

    def optimize(model: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return model

    ipex = types.SimpleNamespace(optimize=optimize)
    monkeypatch.setitem(sys.modules, "intel_extension_for_pytorch", ipex)
    model = torch.nn.Linear(2, 2)
    assert pf.ipex_opt_in(model) is model
    assert len(seen) == calls_
    assert model.training is not bool(calls_)


def test_ipex_opt_in_without_ipex_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    prepare(monkeypatch, enable="ipex")
    monkeypatch.setattr(torch, "__version__", "2.8.0")
    monkeypatch.setitem(sys.modules, "intel_extension_for_pytorch", None)
    model = torch.nn.Linear(2, 2)
    assert pf.ipex_opt_in(model) is model
    assert "ipex has no effect" in caplog.text


# --- Layout and compilation


class Net(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.diffusion_model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.Flatten(), torch.nn.Linear(5, 2))


@pytest.mark.parametrize(
    ("level", "enable", "layout", "compiled"),
    [
        ("O0", "channels-last,compile", False, 0),
        ("O1", "", False, 0),
        ("O1", "channels-last", True, 0),
        ("O1", "compile", False, 1),
        ("O2", "", True, 0),
        ("O3", "", True, 1),
    ],
)
def test_models_are_optimised_as_the_level_says(
    monkeypatch: pytest.MonkeyPatch, level: str, enable: str, layout: bool, compiled: int
) -> None:
    prepare(monkeypatch, level, enable)
    count: list[int] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: count.append(1))
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    assert pf.optimise_model(model, XPU) is model
    assert pf.optimise_model(model, XPU) is model
    assert len(count) == compiled
    assert torch._dynamo.config.suppress_errors is bool(compiled)
    assert model.diffusion_model[0].weight.is_contiguous(memory_format=torch.channels_last) is layout
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_models_elsewhere_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, "O3")
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: pytest.fail("compiled"))
    model = Net()
    assert pf.optimise_model(model, CPU) is model
    assert model.diffusion_model[0].weight.is_contiguous()


def test_weights_elsewhere_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, "O2")
    tensors_are_xpu(monkeypatch, lambda _: False)
    model = pf.optimise_model(Net(), XPU)
    assert model.diffusion_model[0].weight.is_contiguous()


def test_failing_optimisations_are_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    prepare(monkeypatch, "O3")
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: 1 // 0)
    model = Net()
    assert pf.optimise_model(model, XPU) is model
    assert "compile failed" in caplog.text


# --- Capabilities


@pytest.mark.parametrize(
    ("enable", "properties", "expected"),
    [
        ("", {"has_bfloat16_conversions": False, "has_subgroup_matrix_multiply_accumulate": False}, False),
        ("", {"has_bfloat16_conversions": True}, True),
        ("bf16-strict", {"has_bfloat16_conversions": False, "has_subgroup_matrix_multiply_accumulate": False}, False),
        ("bf16-strict", {"has_bfloat16_conversions": True, "has_subgroup_matrix_multiply_accumulate": False}, True),
        ("bf16-strict", {"has_bfloat16_conversions": False, "has_subgroup_matrix_multiply_accumulate": True}, True),
        ("bf16-strict", {}, True),
    ],
)
def test_bf16(monkeypatch: pytest.MonkeyPatch, enable: str, properties: dict[str, bool], expected: bool) -> None:
    fake = prepare(monkeypatch, enable=enable)
    fake.properties = types.SimpleNamespace(**properties)
    assert pf.bf16(True, XPU) is expected
    assert pf.bf16_supported(XPU) is expected
    assert pf.bf16(False, XPU) is False
    assert pf.bf16(True, CPU) is True


@pytest.mark.parametrize(("answer", "expected"), [(True, True), (False, False), (RuntimeError(), True)])
def test_bf16_supported_is_torchs_answer(monkeypatch: pytest.MonkeyPatch, answer: Any, expected: bool) -> None:
    prepare(monkeypatch).bf16 = answer
    assert pf.bf16_supported(XPU) is expected


@pytest.mark.parametrize(
    ("enable", "has", "expected"),
    [("", True, False), ("fp64", True, True), ("fp64", False, False), ("fp64", None, False)],
)
def test_fp64(monkeypatch: pytest.MonkeyPatch, enable: str, has: bool | None, expected: bool) -> None:
    fake = prepare(monkeypatch, enable=enable)
    fake.properties = types.SimpleNamespace() if has is None else types.SimpleNamespace(has_fp64=has)
    assert pf.fp64(False, XPU) is expected
    assert pf.fp64(False, None) is expected
    assert pf.fp64(False, CPU) is False


@pytest.mark.parametrize(
    ("enable", "module", "expected"),
    [("triton", types.ModuleType("triton"), True), ("triton", None, False), ("", types.ModuleType("triton"), False)],
)
def test_triton(monkeypatch: pytest.MonkeyPatch, enable: str, module: Any, expected: bool) -> None:
    prepare(monkeypatch, enable=enable)
    monkeypatch.setitem(sys.modules, "triton", module)
    assert triton_wanted() is expected
    enabled: list[str] = []
    pf.enable_triton(types.SimpleNamespace(enable=enabled.append))
    assert enabled == ["triton"] * expected
    state.args = types.SimpleNamespace(disable_triton_backend=True)
    pf.enable_triton(types.SimpleNamespace(enable=lambda name: pytest.fail("the user disabled it")))


def test_a_kitchen_that_cannot_enable_triton_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(monkeypatch, enable="triton")
    monkeypatch.setitem(sys.modules, "triton", types.ModuleType("triton"))
    pf.enable_triton(object())
    assert "triton has no effect" in caplog.text


@pytest.mark.parametrize(
    ("enable", "installed", "expected"),
    [
        ("dynamic-vram", {"comfy_aimdo_xpu"}, True),
        ("dynamic-vram", {"comfy_aimdo_xpu_runtime"}, True),
        ("dynamic-vram", {"comfy_aimdo"}, False),
        ("", {"comfy_aimdo_xpu"}, False),
    ],
)
def test_dynamic_vram(monkeypatch: pytest.MonkeyPatch, enable: str, installed: set[str], expected: bool) -> None:
    prepare(monkeypatch, enable=enable)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)
    assert pf.dynamic_vram() is expected
    assert pf.dynamic_vram_index(None, XPU) is (XPU.index if expected else None)
    assert pf.dynamic_vram_gate(False) is expected
    assert pf.dynamic_vram_index(None, CPU) is None
    assert pf.dynamic_vram_index(3, CPU) == 3


def test_where_cuda_computes_nothing_global_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, enable="triton,dynamic-vram")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "triton", types.ModuleType("triton"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    assert (triton_wanted(), pf.dynamic_vram()) == (False, False)


# --- Devices and streams


def test_autocast_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pf.autocast_device("cuda", torch.zeros(1)) == "cuda"
    prepare(monkeypatch)
    assert pf.autocast_device("cuda", torch.zeros(1)) == "xpu"


@pytest.mark.parametrize(
    ("device", "history"),
    [(torch.device("xpu", 1), [1, 0]), (XPU, []), (torch.device("xpu"), []), (torch.device("cuda", 1), []), (CPU, [])],
)
def test_device_context_sets_and_restores(monkeypatch: pytest.MonkeyPatch, device: Any, history: list[int]) -> None:
    fake = prepare(monkeypatch)
    seen: list[int] = []

    def work() -> None:
        with pf.device_context(device):
            seen.extend(fake.history)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert seen == history[:1]
    assert fake.history == history


def test_stream_api(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = prepare(monkeypatch, "O0")
    assert pf.stream_api(torch.cuda, XPU) is fake
    assert pf.stream_api(torch.cuda, torch.device("cuda", 0)) is torch.cuda


@pytest.mark.parametrize(("level", "expected"), [("O0", False), ("O1", False), ("O2", True), ("O3", True)])
def test_prefetch(monkeypatch: pytest.MonkeyPatch, level: str, expected: bool) -> None:
    prepare(monkeypatch, level)
    assert pf.prefetch_devices(False, XPU) is expected
    assert pf.prefetch_devices(False, CPU) is False
    assert pf.prefetch_devices(True, torch.device("cuda", 0)) is True
