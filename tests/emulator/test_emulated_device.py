"""The emulated XPU against the CPU: the same bits, the checks of a device, its memory, its faults."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulator import build, environment, presets
from emulator.worker import on

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=f"no emulated XPU: {build.missing()}")


def same(one: Any, other: Any) -> bool:
    """Whether two results have the same bits, NaNs included; ``other`` is on the emulated XPU."""
    import torch

    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    assert other.device.type == "xpu"
    assert one.stride() == other.stride()
    moved = other.cpu()
    if one.dtype != moved.dtype or one.shape != moved.shape:
        return False
    return bool(torch.equal(_bits(one), _bits(moved)))


def _bits(tensor: Any) -> Any:
    import torch

    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().contiguous().view(kinds[tensor.element_size()]) if tensor.dtype != torch.bool else tensor


def compare(function: Any, *arguments: Any) -> None:
    import torch

    moved = [value.xpu() if isinstance(value, torch.Tensor) else value for value in arguments]
    assert same(function(*arguments), function(*moved))


# --- Results --------------------------------------------------------------------------------------------------------


@on("b580")
def test_pointwise_and_reductions() -> None:
    import torch

    x, y = torch.randn(33, 17), torch.randn(33, 17)
    for function in (torch.add, torch.mul, torch.div, torch.maximum, torch.atan2, torch.where):
        arguments = (x > 0, x, y) if function is torch.where else (x, y)
        compare(function, *arguments)
    for name in ("sin", "exp", "softmax", "sum", "mean", "var", "amax", "cumsum", "sort", "argsort", "std", "norm"):
        function = getattr(torch, name)
        compare(function, *((x, -1) if name in {"softmax", "cumsum", "amax"} else (x,)))
    compare(lambda a: (a * 2 + 1).clamp(-1, 1).round(), x)
    compare(lambda a: torch.topk(a, 5), x)
    compare(lambda a: a.sum(dtype=torch.float64), x)


@on("b580")
def test_linear_algebra() -> None:
    import torch

    x, w, b = torch.randn(5, 64, 32), torch.randn(48, 32), torch.randn(48)
    compare(torch.nn.functional.linear, x, w, b)
    compare(torch.matmul, x, w.t())
    compare(torch.bmm, x, x.transpose(1, 2))
    compare(lambda a, c: torch.einsum("bij,kj->bik", a, c), x, w)
    compare(torch.linalg.inv, torch.randn(6, 6) + 6 * torch.eye(6))
    for kind in (torch.bfloat16, torch.float16):
        compare(torch.nn.functional.linear, x.to(kind), w.to(kind), b.to(kind))


@on("b580")
def test_networks() -> None:
    import torch
    from torch.nn import functional as f

    x = torch.randn(2, 8, 24, 20)
    compare(lambda a, w, b: f.conv2d(a, w, b, padding=1), x, torch.randn(16, 8, 3, 3), torch.randn(16))
    compare(lambda a, w: f.conv2d(a, w, stride=2, groups=4), x, torch.randn(8, 2, 3, 3))
    compare(lambda a, w: f.conv_transpose2d(a, w, stride=2), x, torch.randn(8, 4, 2, 2))
    compare(f.conv1d, torch.randn(2, 8, 30), torch.randn(4, 8, 3))
    compare(f.conv3d, torch.randn(1, 3, 6, 6, 6), torch.randn(4, 3, 2, 2, 2))
    compare(lambda a, w, b: f.group_norm(a, 4, w, b), x, torch.randn(8), torch.randn(8))
    compare(lambda a, w, b: f.layer_norm(a, (20,), w, b), x, torch.randn(20), torch.randn(20))
    compare(lambda a, w: f.rms_norm(a, (20,), w), x, torch.randn(20))
    for name in ("silu", "gelu", "relu", "sigmoid", "tanh", "mish"):
        compare(getattr(f, name), x)
    for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area"):
        compare(lambda a, mode=mode: f.interpolate(a, (12, 33), mode=mode), x)
    compare(lambda a: f.avg_pool2d(a, 2), x)
    compare(lambda a: f.max_pool2d(a, 2), x)
    compare(lambda a: f.pad(a, (1, 2, 3, 4), mode="reflect"), x)
    compare(lambda a: f.pixel_shuffle(a, 2), x)
    compare(f.embedding, torch.arange(9).view(3, 3), torch.randn(10, 4))


@on("b580")
def test_channels_last() -> None:
    import torch

    x, w = torch.randn(2, 8, 12, 12), torch.randn(16, 8, 3, 3)
    last = torch.channels_last
    compare(lambda a, c: torch.conv2d(a.to(memory_format=last), c.to(memory_format=last)), x, w)
    moved = x.xpu().to(memory_format=last)
    assert moved.is_contiguous(memory_format=last)
    compare(lambda a: torch.empty_like(a.to(memory_format=last)).copy_(a), x)


@on("b580")
def test_attention() -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attention

    q, k, v = (torch.randn(2, 4, n, 32) for n in (19, 23, 23))
    compare(attention, q, k, v)
    compare(attention, q, k, v, torch.randn(19, 23))
    compare(attention, q, k, v, torch.rand(2, 1, 19, 23) > 0.2)
    compare(lambda a, b, c: attention(a, b, c, is_causal=True), q, k, v)
    compare(lambda a, b, c: attention(a, b, c, scale=0.5), q.half(), k.half(), v.half())
    compare(attention, *(t.bfloat16() for t in (q, k, v)))


@on("b580")
def test_attention_and_convolution_have_gradients() -> None:
    import torch

    def gradients(device: str) -> list[Any]:
        made = torch.Generator().manual_seed(1)
        x = torch.randn(1, 4, 8, 8, generator=made).to(device).requires_grad_()
        w = torch.randn(4, 4, 3, 3, generator=made).to(device).requires_grad_()
        y = torch.conv2d(x, w, padding=1).flatten(2)
        torch.nn.functional.scaled_dot_product_attention(y, y, y).square().sum().backward()
        return [x.grad, w.grad]

    for one, other in zip(gradients("cpu"), gradients("xpu"), strict=True):
        assert other.device.type == "xpu"
        torch.testing.assert_close(one, other.cpu(), rtol=1e-4, atol=1e-3)


@on("b580")
def test_recurrent_networks() -> None:
    import torch

    x = torch.randn(5, 2, 6)
    for kind in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN):
        model = kind(6, 8, num_layers=2, bidirectional=True).requires_grad_(False)
        expected, states = model(x)
        found, moved = model.xpu()(x.xpu())
        assert same(expected, found)
        assert same(states, moved)
    for cell in (torch.nn.LSTMCell(6, 8), torch.nn.GRUCell(6, 8)):
        with torch.no_grad():
            assert same(cell(x[0]), cell.xpu()(x[0].xpu()))
    with pytest.raises(RuntimeError, match="same device"):
        torch.nn.LSTM(6, 8).requires_grad_(False).xpu()(x)
    with pytest.raises(NotImplementedError, match="gradients of aten::lstm"):
        torch.nn.LSTM(6, 8).xpu()(x.xpu())


@on("b580")
def test_indexing_and_views() -> None:
    import torch

    x = torch.randn(6, 8, 10)
    compare(lambda a: a[1:4, ::2, [0, 3, 5]], x)
    compare(lambda a: a[a > 0], x)
    compare(lambda a: a[..., None].squeeze(-1).permute(2, 0, 1).flip(0), x)
    compare(lambda a, i: a.gather(1, i), x, torch.randint(0, 8, (6, 3, 10)))
    compare(lambda a, i: a.index_select(2, i), x, torch.tensor([1, 1, 9]))
    compare(lambda a: a.unfold(1, 3, 2), x)
    compare(lambda a: torch.cat([a, a[:2]], 0).chunk(2, 1), x)
    compare(lambda a: a.view(48, 10).t().reshape(20, 24).roll(3, 0), x)
    compare(lambda a: torch.nonzero(a > 1), x)
    compare(lambda a: a.masked_fill(a < 0, float("nan")), x)
    compare(lambda a: torch.view_as_complex(a.view(6, 8, 5, 2)).conj().resolve_conj().real, x)
    assert x.xpu()[torch.tensor([0, 2])].shape == (2, 8, 10)  # indices may stay on the CPU, as on CUDA


@on("b580")
def test_views_share_memory_and_results_of_in_place_operators_are_their_argument() -> None:
    import torch

    x = torch.zeros(4, 6, device="xpu")
    view = x.view(24)[3:9]
    view.add_(1)
    assert x.sum().item() == 6
    assert view.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert x.mul_(2) is x
    assert x.squeeze_() is x
    assert x.t_().shape == (6, 4)
    out = torch.empty(0, device="xpu")
    assert torch.add(x, 1, out=out) is out
    assert out.shape == (6, 4)
    assert out.resize_(30).shape == (30,)
    assert x.detach().set_(out).shape == (30,)
    x[0] = 5
    x.data = torch.ones(2, device="xpu")
    assert x.tolist() == [1, 1]


@on("b580")
def test_casts() -> None:
    import torch

    x = torch.randn(500) * 30
    kinds = [
        torch.bfloat16,
        torch.float16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.int8,
        torch.float64,
        torch.bool,
    ]
    for kind in kinds:
        compare(lambda a, kind=kind: a.to(kind), x)
        compare(lambda a, kind=kind: a.to(kind).float(), x)
        assert same(x.to(kind), x.to("xpu", kind))
    assert torch.equal(x.xpu().to("cpu", torch.float16), x.half())
    assert torch.equal(x.xpu().view(torch.int32).cpu(), x.view(torch.int32))


@on("b580")
def test_autocast() -> None:
    import torch

    layer, x = torch.nn.Linear(16, 8), torch.randn(4, 16)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = layer(x)
    with torch.autocast("xpu", torch.bfloat16), torch.no_grad():
        found = copy.deepcopy(layer).xpu()(x.xpu())
    assert found.dtype is torch.bfloat16
    assert same(expected, found)


@on("b580")
def test_modules_and_checkpoints() -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.GroupNorm(2, 8), torch.nn.Flatten())
    x = torch.randn(2, 3, 9, 9)
    with torch.inference_mode():
        expected = model(x)
    file = io.BytesIO()
    moved = copy.deepcopy(model).xpu()
    torch.save(moved.state_dict(), file)
    for place in ("cpu", "xpu", None):
        file.seek(0)
        fresh = copy.deepcopy(model).xpu()
        for parameter in fresh.parameters():
            parameter.data.zero_()
        fresh.load_state_dict(torch.load(file, map_location=place))
        with torch.inference_mode():
            assert same(expected, fresh(x.xpu()))
    empty = copy.deepcopy(model).to("meta").to_empty(device="xpu")
    empty.load_state_dict(model.state_dict())
    assert same(model[0].weight.detach(), empty[0].weight.detach())


@on("b580")
def test_safetensors() -> None:
    import tempfile

    import torch

    safetensors = pytest.importorskip("safetensors.torch")
    weights = {"a": torch.randn(3, 4), "b": torch.randn(5).to(torch.float8_e4m3fn)}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "weights.safetensors")
        safetensors.save_file({name: value.xpu() for name, value in weights.items()}, file)
        for name, value in safetensors.load_file(file, device="xpu:0").items():
            assert same(weights[name], value)


@on("b580")
def test_random_numbers_are_the_devices_own() -> None:
    import torch

    from emulator import faults

    def draw(device: str) -> Any:
        return torch.randn(8, generator=torch.Generator(device).manual_seed(7), device=device).cpu()

    assert torch.equal(draw("xpu"), draw("xpu"))
    assert not torch.equal(draw("cpu"), draw("xpu"))
    faults.same_random_numbers()
    assert torch.equal(draw("cpu"), draw("xpu"))
    faults.same_random_numbers(wanted=False)
    torch.manual_seed(3)
    state = torch.xpu.get_rng_state()
    first = torch.rand(5, device="xpu")
    torch.xpu.set_rng_state(state)
    assert torch.equal(first, torch.rand(5, device="xpu"))
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(2, device="xpu", generator=torch.Generator())


# --- Checks of a device ---------------------------------------------------------------------------------------------


@on("two")
def test_tensors_of_two_devices_do_not_mix() -> None:
    import torch

    x = torch.ones(3)
    mixes: list[Callable[[], Any]] = [
        lambda: x.xpu() + x,
        lambda: x + x.xpu(),
        lambda: torch.cat([x.xpu(), x]),
        lambda: torch.nn.functional.linear(x.xpu(), torch.ones(2, 3)),
        lambda: x.to("xpu:0") + x.to("xpu:1"),
        lambda: torch.nn.functional.embedding(torch.tensor([1]), torch.ones(3, 3, device="xpu")),
    ]
    for mix in mixes:
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            mix()
    assert (x.xpu() * torch.tensor(2.0)).device.type == "xpu"  # a CPU scalar may
    with pytest.raises(TypeError, match="numpy"):
        x.xpu().numpy()


@on("two")
def test_two_devices() -> None:
    import torch

    assert torch.xpu.device_count() == 2
    assert [torch.xpu.get_device_properties(index).has_fp64 for index in range(2)] == [False, True]
    assert torch.zeros(1, device="xpu").device == torch.device("xpu", 0)
    with torch.xpu.device(1):
        assert torch.zeros(1, device="xpu").device == torch.device("xpu", 1)
    before = torch.xpu.memory_allocated(1)
    kept = torch.ones(1 << 20, device="xpu:0").to("xpu:1")
    assert torch.xpu.memory_allocated(1) - before == kept.nbytes
    assert torch.equal(kept.to("xpu:0").cpu(), kept.cpu())
    with pytest.raises(RuntimeError, match="out of range"):
        torch.zeros(1, device="xpu:2")


@on("a770")
def test_a_device_without_fp64() -> None:
    import torch

    with pytest.raises(RuntimeError, match="fp64"):
        torch.ones(2, device="xpu") + torch.ones(2, device="xpu", dtype=torch.float64)
    with pytest.raises(RuntimeError, match="fp64"):
        torch.ones(2, device="xpu").double()
    assert (torch.ones(2, device="xpu") * 2.5).tolist() == [2.5, 2.5]


@on("b580")
def test_streams_and_events() -> None:
    import torch

    stream, default = torch.xpu.Stream(), torch.xpu.current_stream()
    assert stream != default
    assert len({stream, default}) == 2
    start, end = torch.xpu.Event(enable_timing=True), torch.xpu.Event(enable_timing=True)
    start.record()
    with torch.xpu.stream(stream):
        assert torch.xpu.current_stream() == stream
        stream.wait_stream(default)
        torch.ones(4, device="xpu").record_stream(stream)
        end.record()
    end.synchronize()
    assert torch.xpu.current_stream() == default
    assert end.query()
    assert start.elapsed_time(end) >= 0
    stream.synchronize()


@on("b580")
def test_accelerator_and_pinned_memory() -> None:
    import torch

    assert torch.accelerator.current_accelerator() == torch.device("xpu")
    assert torch.accelerator.device_count() == 1
    assert not torch.cuda.is_available()
    pinned = torch.ones(10).pin_memory()
    assert pinned.is_pinned()
    assert pinned.device.type == "cpu"
    assert not torch.ones(10).is_pinned()
    assert same(pinned, pinned.to("xpu", non_blocking=True))
    torch.accelerator.synchronize()
    assert torch.accelerator.memory_allocated() == torch.xpu.memory_allocated()


# --- Memory ---------------------------------------------------------------------------------------------------------


def _memory() -> tuple[int, int, int]:
    import torch

    return torch.xpu.memory_allocated(), torch.xpu.memory_reserved(), torch.xpu.mem_get_info()[0]


@on("b580")
def test_memory_returns_to_its_start() -> None:
    import torch

    torch.xpu.empty_cache()
    before = _memory()
    x = torch.ones(8 << 20, device="xpu")
    y = torch.nn.functional.silu(x).half()
    assert _memory()[0] - before[0] == x.nbytes + y.nbytes
    assert before[2] - _memory()[2] >= x.nbytes * 2  # what silu made is cached
    del x, y
    assert _memory()[0] == before[0]
    assert _memory()[1] > before[1]
    torch.xpu.empty_cache()
    assert _memory() == before
    assert torch.xpu.max_memory_allocated() >= 64 << 20
    torch.xpu.reset_peak_memory_stats()
    assert torch.xpu.max_memory_allocated() == before[0]


@on("b580", "memory=64M")
def test_a_full_device_is_an_out_of_memory_error() -> None:
    import torch

    assert torch.xpu.get_device_properties().total_memory == 64 << 20
    kept = torch.empty(40 << 20, dtype=torch.uint8, device="xpu")
    with pytest.raises(torch.OutOfMemoryError, match="XPU out of memory"):
        torch.empty(40 << 20, dtype=torch.uint8, device="xpu")
    with pytest.raises(torch.OutOfMemoryError):
        kept + 1
    assert torch.xpu.memory_stats()["num_ooms"] == 2
    del kept
    assert torch.empty(60 << 20, dtype=torch.uint8, device="xpu").device.type == "xpu"


@on("b580")
def test_memory_of_another_process_and_memory_info() -> None:
    import torch

    from emulator import faults

    total = torch.xpu.get_device_properties().total_memory
    faults.other_process(total - (32 << 20))
    assert torch.xpu.mem_get_info()[0] <= 32 << 20
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(64 << 20, dtype=torch.uint8, device="xpu")
    faults.other_process(0)
    faults.memory_info("stale")
    before = torch.xpu.mem_get_info()
    kept = torch.empty(64 << 20, dtype=torch.uint8, device="xpu")
    assert torch.xpu.mem_get_info() == before
    faults.memory_info("nonsense")
    assert torch.xpu.mem_get_info()[0] > total
    faults.memory_info("raises")
    with pytest.raises(RuntimeError, match="querying the available free memory"):
        torch.xpu.mem_get_info()
    del kept


@on("b580")
def test_memory_fraction() -> None:
    import torch

    torch.xpu.empty_cache()
    torch.xpu.set_per_process_memory_fraction(0.001)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(64 << 20, dtype=torch.uint8, device="xpu")
    torch.xpu.set_per_process_memory_fraction(1.0)
    assert torch.empty(64 << 20, dtype=torch.uint8, device="xpu").numel() == 64 << 20


# --- Faults ---------------------------------------------------------------------------------------------------------


@on("b580")
def test_faults_at_an_operation() -> None:
    import torch

    from emulator import faults

    x = torch.ones(2, device="xpu")
    for error in ("out-of-device-memory", "out-of-resources", "out-of-host-memory"):
        faults.fail(error, after=3)
        x + 1
        x + 1
        with pytest.raises(RuntimeError, match=f"UR_RESULT_ERROR_{error.upper().replace('-', '_')}") as caught:
            x + 1
        assert type(caught.value) is RuntimeError
        assert (x + 1).tolist() == [2, 2]
    faults.fail_allocation(2)
    torch.empty(2, device="xpu")
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(2, device="xpu")


@on("b580")
def test_a_lost_device_stays_lost() -> None:
    import torch

    from emulator import faults

    x = torch.ones(2, device="xpu")
    faults.fail("device-lost")
    for call in (lambda: x + 1, lambda: x * 2, x.cpu, torch.xpu.synchronize):
        with pytest.raises(RuntimeError, match="UR_RESULT_ERROR_DEVICE_LOST"):
            call()
    faults.clear()
    assert (x + 1).tolist() == [2, 2]
    faults.fail_synchronize("out-of-resources")
    with pytest.raises(RuntimeError, match="UR_RESULT_ERROR_OUT_OF_RESOURCES"):
        torch.xpu.synchronize()
    torch.xpu.synchronize()
    faults.fail_empty_cache("out-of-resources")
    with pytest.raises(RuntimeError, match="UR_RESULT_ERROR_OUT_OF_RESOURCES"):
        torch.xpu.empty_cache()
    torch.xpu.empty_cache()


@on("b580", "coverage=refuse")
def test_operators_that_fall_back_are_refused() -> None:
    import torch

    from emulator import faults

    faults.refuse_fallbacks()
    square = torch.eye(3, device="xpu")
    for call in (torch.linalg.eigvals, torch.linalg.cholesky, torch.linalg.svd, torch.linalg.eigh):
        with pytest.raises(NotImplementedError, match="emulated XPU"):
            call(square)
    assert (square @ square).sum().item() == 3


@on("b580")
def test_operators_are_counted() -> None:
    import torch

    from emulator import faults

    x = torch.ones(2, 3, device="xpu")
    before = faults.operations()
    x.view(6).t()
    assert faults.operations() == before
    x + 1
    assert faults.operations() == before + 1
    torch.ones(2, 3) + 1
    assert faults.operations() == before + 1


@on("two")
def test_operators_are_counted_by_device() -> None:
    import torch

    from emulator import faults

    def counts() -> tuple[int, int, int]:
        return faults.operations(), faults.operations(0), faults.operations(1)

    x = torch.ones(3, device="xpu:1")
    total, first, second = counts()
    x + 1
    assert counts() == (total + 1, first, second + 1)
    y = x.to("xpu:0")
    assert counts() == (total + 2, first + 1, second + 1)
    y.cpu()
    assert counts() == (total + 3, first + 2, second + 1)
    faults.fail("out-of-resources")
    with pytest.raises(RuntimeError, match="OUT_OF_RESOURCES"):
        x + 1
    faults.clear()
    assert counts() == (total + 4, first + 2, second + 1)
    with pytest.raises(RuntimeError, match="out of range"):
        faults.operations(2)


@on("b580")
def test_an_operator_nobody_has_is_not_implemented() -> None:
    import torch

    with pytest.raises(NotImplementedError, match="XPU"):
        torch.ops.aten._cudnn_rnn_flatten_weight([torch.ones(2, device="xpu")], 1, 1, 1, 1, 1, 1, False, False)


# --- Loading --------------------------------------------------------------------------------------------------------


def _python(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, cwd=ROOT)


def test_nothing_is_emulated_without_the_variable() -> None:
    env = environment("b580")
    del env["PATCHFORGE_EMULATE_XPU"]
    done = _python("import torch, sys; print(torch.xpu.is_available(), 'emulator' in sys.modules)", env)
    assert done.stdout.split() == ["False", "False"], done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "count"),
    [
        ("ZE_AFFINITY_MASK", "1", 1),
        ("ZE_AFFINITY_MASK", "0,1", 2),
        ("ONEAPI_DEVICE_SELECTOR", "level_zero:0", 1),
        ("ONEAPI_DEVICE_SELECTOR", "opencl:*", 0),
    ],
)
def test_device_filters(variable: str, value: str, count: int) -> None:
    code = "import torch; n = torch.xpu.device_count(); print(n, *(torch.xpu.get_device_name(i) for i in range(n)))"
    done = _python(code, environment("two", base={**os.environ, variable: value}))
    assert done.stdout.split()[:1] == [str(count)], done.stderr
    assert ("B580" in done.stdout) == (count > 0 and value != "level_zero:0")


def test_the_environment_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="expected one of a770"):
        environment("a999")
    with pytest.raises(ValueError, match="unknown option"):
        environment("a770", "speed=fast")
    assert presets.parse_options("memory=600M;fault=device-lost@5").fault == ("device-lost", 5)


def test_the_emulator_is_not_installed() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert "patchforge" in packages
    assert not [name for name in packages if name.split(".")[0] == "emulator"]


@on("b580")
def test_the_version_is_that_of_a_build_with_xpu() -> None:
    import importlib.util

    import torch

    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    said = Path(spec.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    assert "xpu = 'emulated'" in said
    assert torch.version.xpu == "emulated"
    assert torch.version.cuda is None


@on("b580", "cuda=declared")
def test_cuda_is_declared_and_cannot_compute() -> None:
    import torch

    assert torch.cuda.is_available()
    assert torch.version.cuda
    assert torch.ones(2, device="xpu").sum().item() == 2
    with pytest.raises((AssertionError, RuntimeError)):
        torch.ones(2, device="cuda")
