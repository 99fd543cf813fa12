"""Cases of torch alone, in a process of their own: ``probe.py COUNTING DEVICE``, with orders as lines of JSON.

COUNTING is the path of the trial pack's ``counting.py``, DEVICE is xpu, cuda or cpu. An order is ``{"do": "check",
"case": NAME}``, ``count`` or ``time``; the answer to each is one line, too, and the last thing that is done is that
standard input ends. It uses torch and nothing of patchforge; without torch its table of cases can be read.

``check`` compares with the same case on the CPU in float32, from the same inputs, which are drawn there. ``time`` runs
it often enough for a tenth of a second, waits for the device, and answers with the seconds of one.
"""
# torch is imported when a case is run:
# ruff: noqa: PLC0415

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

READY = "ready"
_RUN = 0.1  # seconds
_MOST = 10_000  # repetitions
#: How far results may be from the CPU's in float32, relative to the largest value: some roundoffs in a row.
_TOLERANCE = {"float32": 2e-3, "float16": 2e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class ProbeCase:
    """``make`` draws inputs with a function of shapes, in float32 on the CPU; ``run`` gets them on the device."""

    suite: str
    name: str
    dtype: str
    make: Callable[[Any], tuple[Any, ...]]
    run: Callable[..., Any]
    quick: bool = False


def _functional() -> Any:
    import torch

    return torch.nn.functional


def _attend(query: Any, key: Any, value: Any) -> Any:
    return _functional().scaled_dot_product_attention(query, key, value)


def _residual(value: Any, first: Any, second: Any, scale: Any, shift: Any) -> Any:
    """A UNet's residual block: norm, SiLU and convolution, twice."""
    functional = _functional()
    hidden = value
    for weight in (first, second):
        hidden = functional.group_norm(hidden, 8, scale, shift)
        hidden = functional.conv2d(functional.silu(hidden), weight, padding=1)
    return value + hidden


def _transformer(tokens: Any, text: Any, *weights: Any) -> Any:
    """A UNet's transformer block: attention to itself and to the text, and a gated feed-forward."""
    functional = _functional()
    own, out, to_text, up, down = weights
    width = tokens.shape[-1]

    def heads(value: Any) -> Any:
        return value.unflatten(-1, (-1, 40)).transpose(-3, -2)

    normal = functional.layer_norm(tokens, (width,))
    query, key, value = functional.linear(normal, own).chunk(3, dim=-1)
    attended = _attend(heads(query), heads(key), heads(value)).transpose(-3, -2).flatten(-2)
    tokens = tokens + functional.linear(attended, out)
    query = functional.linear(functional.layer_norm(tokens, (width,)), out)
    key, value = functional.linear(text, to_text).chunk(2, dim=-1)
    attended = _attend(heads(query), heads(key), heads(value)).transpose(-3, -2).flatten(-2)
    tokens = tokens + functional.linear(attended, out)
    inner, gate = functional.linear(functional.layer_norm(tokens, (width,)), up).chunk(2, dim=-1)
    return tokens + functional.linear(inner * functional.gelu(gate), down)


def _decoder(latent: Any, first: Any, second: Any) -> Any:
    """A VAE's decoder's end: larger, convolved, in colours."""
    functional = _functional()
    larger = functional.interpolate(functional.silu(functional.conv2d(latent, first, padding=1)), scale_factor=2)
    return functional.conv2d(larger, second, padding=1).clamp(-1, 1)


def _cases() -> list[ProbeCase]:
    """Every case; sizes are such that two cores need some milliseconds."""
    made: list[ProbeCase] = []

    def add(
        suite: str, name: str, shapes: tuple[tuple[int, ...], ...], run: Callable[..., Any], quick: str = ""
    ) -> None:
        def draw_all(draw: Any) -> tuple[Any, ...]:
            return tuple(draw(shape) for shape in shapes)

        made.extend(
            ProbeCase(suite, f"{name}-{dtype}", dtype, draw_all, run, dtype in quick.split()) for dtype in _TOLERANCE
        )

    add("tensor", "matmul-512", ((512, 512), (512, 512)), lambda left, right: left @ right, "float32 bfloat16")
    add("tensor", "batched-matmul", ((8, 128, 128), (8, 128, 128)), lambda left, right: left @ right)
    add("tensor", "add-multiply", ((1 << 20,), (1 << 20,)), lambda value, shift: value * 0.5 + shift, "float32")
    add("tensor", "softmax", ((256, 1024),), lambda value: value.softmax(-1))
    add("tensor", "layer-norm", ((256, 1024),), lambda value: _functional().layer_norm(value, (1024,)))
    add("tensor", "sum", ((1024, 1024),), lambda value: value.sum(-1))
    add("tensor", "transpose", ((1024, 1024),), lambda matrix: matrix.t().contiguous())
    add("tensor", "attention", tuple([(1, 8, 256, 40)] * 3), _attend, "float32")
    convolve = _convolution()
    add("conv", "conv2d-3x3", ((1, 64, 64, 64), (64, 64, 3, 3)), convolve(padding=1), "float32 bfloat16")
    add("conv", "conv2d-1x1", ((1, 128, 32, 32), (128, 128, 1, 1)), convolve())
    add("conv", "conv2d-strided", ((1, 64, 64, 64), (64, 64, 3, 3)), convolve(padding=1, stride=2))
    add("conv", "conv2d-grouped", ((1, 64, 64, 64), (64, 1, 3, 3)), convolve(padding=1, groups=64))
    add("conv", "conv-transposed", ((1, 64, 32, 32), (64, 64, 4, 4)), convolve("conv_transpose2d", stride=2, padding=1))
    add("conv", "conv3d", ((1, 16, 8, 32, 32), (16, 16, 3, 3, 3)), convolve("conv3d", padding=1))
    square = (64, 64, 3, 3)
    add("sd", "residual-block", ((1, 64, 32, 32), square, square, (64,), (64,)), _residual, "float32")
    add(
        "sd",
        "transformer-block",
        ((1, 256, 320), (1, 77, 768), (960, 320), (320, 320), (640, 768), (2560, 320), (320, 1280)),
        _transformer,
        "float32",
    )
    add("sd", "decoder-block", ((1, 64, 32, 32), square, (3, 64, 3, 3)), _decoder)
    return made


def _convolution() -> Callable[..., Callable[[Any, Any], Any]]:
    def of(name: str = "conv2d", **how: int) -> Callable[[Any, Any], Any]:
        return lambda value, weight: getattr(_functional(), name)(value, weight, **how)

    return of


CASES = tuple(_cases())


class _Bench:
    """The cases on one device."""

    def __init__(self, counting: Any, device: str) -> None:
        self.counting, self.device = counting, device
        self.cases = {case.name: case for case in CASES}
        self.repetitions: dict[str, int] = {}
        self.inputs: dict[str, tuple[Any, ...]] = {}

    def drawn(self, case: ProbeCase) -> tuple[Any, ...]:
        """On the CPU, in float32: of two dimensions and more with a variance that keeps results near 1."""
        import torch

        generator = torch.Generator().manual_seed(7)

        def draw(shape: tuple[int, ...]) -> Any:
            fan = 1
            for size in shape[1:]:
                fan *= size
            drawn = torch.randn(shape, generator=generator)
            return drawn * fan**-0.5 if len(shape) > 1 and shape[0] != 1 else drawn

        return case.make(draw)

    def ready(self, case: ProbeCase) -> tuple[Any, ...]:
        """On the device, in its type; kept for one case at a time."""
        import torch

        if case.name not in self.inputs:
            dtype = getattr(torch, case.dtype)
            self.inputs = {case.name: tuple(tensor.to(self.device, dtype) for tensor in self.drawn(case))}
        return self.inputs[case.name]

    def check(self, case: ProbeCase) -> dict[str, Any]:
        """How far the result is from the CPU's in float32, and where it is."""
        import torch

        with torch.inference_mode():
            result = case.run(*self.ready(case))
            wanted = case.run(*self.drawn(case))
            error = float((result.to("cpu", torch.float32) - wanted).abs().max() / wanted.abs().max())
        return {
            "device": result.device.type,
            "dtype": str(result.dtype).removeprefix("torch."),
            "error": error,
            "allowed": _TOLERANCE[case.dtype],
        }

    def count(self, case: ProbeCase) -> dict[str, Any]:
        import torch

        inputs = self.ready(case)
        with torch.inference_mode():
            case.run(*inputs)
            counting = self.counting.Counting(on_gpu=self.device != "cpu")
            counting.begin()
            counting.enter("case")
            case.run(*inputs)
            return {"counts": counting.end()["case"]}

    def time(self, case: ProbeCase) -> dict[str, Any]:
        import torch

        inputs = self.ready(case)
        with torch.inference_mode():
            repetitions = self.repetitions.get(case.name)
            if repetitions is None:
                seconds = self._seconds(case, inputs, 1)
                if seconds < _RUN:  # the first is slower than the next
                    seconds = self._seconds(case, inputs, 3) / 3
                repetitions = max(1, min(_MOST, round(_RUN / max(seconds, 1e-9))))
                self.repetitions[case.name] = repetitions
            return {"seconds": self._seconds(case, inputs, repetitions) / repetitions}

    def _seconds(self, case: ProbeCase, inputs: tuple[Any, ...], repetitions: int) -> float:
        self._wait()
        begin = time.perf_counter()
        for _ in range(repetitions):
            case.run(*inputs)
        self._wait()
        return time.perf_counter() - begin

    def _wait(self) -> None:
        import torch

        if self.device != "cpu":
            getattr(torch, self.device).synchronize()

    def about(self) -> dict[str, Any]:
        """What the device calls itself."""
        import torch

        if self.device == "cpu":
            return {"devices": []}
        properties = getattr(torch, self.device).get_device_properties(0)
        return {"devices": [{"name": properties.name, "driver": str(getattr(properties, "driver_version", ""))}]}


def main(arguments: list[str]) -> int:
    spec = importlib.util.spec_from_file_location("counting", arguments[0])
    if spec is None or spec.loader is None:
        return 2
    counting = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(counting)
    bench = _Bench(counting, arguments[1])
    answers, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps({READY: bench.about()}), file=answers, flush=True)
    while line := sys.stdin.readline(1 << 16):
        order = json.loads(line)
        try:
            answer = getattr(bench, order["do"])(bench.cases[order["case"]])
        except Exception as error:  # noqa: BLE001 - a case that a device cannot do is told, and the next comes
            answer = {"failed": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
