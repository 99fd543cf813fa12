"""One measured run of one ComfyUI tree, in the process that it is started in: ``gpu_probe.py TREE CASE OUT``.

The tree's own ``main.py`` sets the process up with ComfyUI's default arguments: its top level runs as ``__main__``, all
but the last block, which starts the server. So the allocator, dynamic VRAM and every switch are what a user gets. Then
weights are loaded by ``comfy.sd``, latents sampled by ``nodes.common_ksampler`` and decoded by ``comfy.sd.VAE``. The
model is sampled twice to warm up and then ``--repeats`` times; OUT becomes a JSON of digests, seconds and bytes.
With ``--wait`` it says "ready" before each step of a sampling and each decoding, with nothing left on the device, and
goes on when a line comes; seconds are without the waiting.

Weights are random and of a fixed seed. ``--make-weights`` writes them once, with the shapes of the tree's own classes,
and does nothing else; every other run reads those files, so that two trees get the same bytes.

It imports nothing of patchforge and runs on Python 3.10 and later. Exit status: 0, or 1 with a traceback.
"""
# torch and the tree may be imported only after its main.py; neither need be installed where this is checked:
# ruff: noqa: PLC0415
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import sys
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMAT = 3
SEED = 20260117
#: Distributions whose version can change a result or a time.
PACKAGES = ("torch", "torchvision", "torchsde", "numpy", "safetensors", "transformers", "comfy-kitchen", "comfy-aimdo")
WARM_UPS = 2
READY = "ready"
_HOOKS = "comfy.patchforge_xpu"
_POLL = 0.01


@dataclass(frozen=True)
class Workload:
    """One workload. ``dtype`` is that of the weights in the file; ``size`` is the images', in pixels."""

    size: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    dtype: str
    channels: int
    context: tuple[int, int]
    pooled: int
    model: dict[str, Any]
    batch: int = 1


_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "legacy": False,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
    "context_dim": 2048,
    "num_head_channels": 64,
}
# Segmind Vega, the smallest sibling that ComfyUI recognises: for trying this script out.
_UNET_TINY = {
    **_UNET,
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": -1,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
}
# Flux.1 dev, with 8 + 16 of its 19 + 38 blocks.
_FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 8,
    "depth_single_blocks": 16,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
}
_FLUX_TINY = {**_FLUX, "depth": 1, "depth_single_blocks": 1}
_VAE = {
    "double_z": True,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
CASES = {
    "sdxl": Workload(1024, 20, 7.0, "dpmpp_2m", "karras", "float16", 4, (77, 2048), 1280, _UNET),
    "sdxl-batch": Workload(1024, 8, 7.0, "dpmpp_2m", "karras", "float16", 4, (77, 2048), 1280, _UNET, batch=8),
    "sdxl-2048": Workload(2048, 20, 7.0, "dpmpp_2m", "karras", "float16", 4, (77, 2048), 1280, _UNET),
    "dit": Workload(1024, 20, 1.0, "euler", "simple", "bfloat16", 16, (256, 4096), 768, _FLUX),
    "sdxl-tiny": Workload(64, 2, 7.0, "dpmpp_2m", "karras", "float16", 4, (77, 2048), 1280, _UNET_TINY),
    "dit-tiny": Workload(64, 2, 1.0, "euler", "simple", "bfloat16", 16, (16, 4096), 768, _FLUX_TINY),
}


def main(arguments: list[str]) -> int:
    """Measures, or makes the weights; returns the exit status."""
    parser = argparse.ArgumentParser(description="One measured run of one ComfyUI tree.")
    parser.add_argument("tree", type=Path)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("out", type=Path, help="the JSON to write")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--make-weights", action="store_true", help="write the weights and stop")
    parser.add_argument("--repeats", type=int, default=3, help="measured samplings after the warm-ups")
    parser.add_argument("--device", choices=("cuda", "xpu", "cpu"), default="cuda", help="what ComfyUI has to choose")
    parser.add_argument("--wait", action="store_true", help="take turns: each begins with a line on standard input")
    options = parser.parse_args(arguments)
    out, weights = options.out.resolve(), options.weights.resolve()
    case = CASES[options.case]
    set_up(options.tree.resolve(), ["--cpu"] if options.device == "cpu" else [])
    files = {part: weights / f"{options.case}-{part}.safetensors" for part in ("model", "vae")}
    if options.make_weights:
        make_weights(case, files, options.device)
        record: dict[str, Any] = {part: path.stat().st_size for part, path in files.items()}
    else:
        record = measure(case, files, options.repeats, options.device, Turn(shared=options.wait))
    _write(out, {"format": FORMAT, "case": options.case, "seed": SEED, **record})
    return 0


class Turn:
    """Asks for the device, where it is shared; ``waited`` is how long it waited so far, in seconds."""

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared
        self.waited = 0.0

    def __call__(self) -> None:
        """Returns when it is this process's turn."""
        if not self.shared:
            return
        start = time.perf_counter()
        print(READY, flush=True)
        if not sys.stdin.readline():
            raise RuntimeError("no line came: nobody waits for this any more")
        self.waited += time.perf_counter() - start

    def clock(self) -> float:
        """Seconds, but for those that it waited."""
        return time.perf_counter() - self.waited


def set_up(tree: Path, flags: list[str]) -> None:
    """Runs the tree's main.py as ``__main__``, without its last block. RuntimeError when that block is not found."""
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before main.py: its settings would come too late")
    path = tree / "main.py"
    module = ast.parse(path.read_bytes(), str(path))
    last = module.body.pop()
    if not isinstance(last, ast.If) or "start_comfyui" not in ast.unparse(last):
        raise RuntimeError(f"the last statement of {path.name} does not start the server")
    os.chdir(tree)
    sys.argv = ["main.py", *flags]
    sys.path[0] = str(tree)  # was the folder of this script
    exec(compile(module, str(path), "exec"), {"__name__": "__main__", "__file__": str(path)})  # noqa: S102


def make_weights(case: Workload, files: dict[str, Path], place: str) -> None:
    """Writes random weights, each tensor from its own name's seed, scaled so that activations keep their size."""
    import comfy.ops
    import torch
    from comfy.ldm.flux.model import Flux
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from safetensors.torch import save_file

    lazy: Any = sys.modules.get("comfy.memory_management")
    if lazy is not None:
        lazy.aimdo_enabled = False  # with it, layers have no shapes before a file is loaded

    def value(name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        generator = torch.Generator(place).manual_seed(SEED ^ zlib.crc32(name.encode()))
        noise = torch.randn(shape, generator=generator, device=place)
        if len(shape) > 1:
            noise /= math.sqrt(math.prod(shape[1:]))
        else:
            noise = noise * 0.05 + (0.0 if name.endswith("bias") else 1.0)
        return noise.to(dtype).cpu()

    meta = {"device": "meta", "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
    network = Flux if "image_model" in case.model else UNetModel
    with torch.device("meta"):
        vae = AutoencoderKL(ddconfig={**_VAE, "z_channels": case.channels}, embed_dim=case.channels)
    for part, built in (("model", network(**_known(network, case.model), **meta)), ("vae", vae)):
        dtype = getattr(torch, case.dtype)
        state = {name: value(name, tensor.shape, dtype) for name, tensor in built.state_dict().items()}
        files[part].parent.mkdir(parents=True, exist_ok=True)
        save_file(state, files[part])


def _known(network: type, config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with the one entry that later releases ask for as well."""
    parameters = sys.modules[network.__module__].__dict__.get("FluxParams")
    if parameters is not None and "txt_ids_dims" in parameters.__dataclass_fields__:
        return {**config, "txt_ids_dims": []}
    return config


def measure(case: Workload, files: dict[str, Path], repeats: int, expected: str, turn: Turn) -> dict[str, Any]:
    """Loads, samples and decodes; ``turn`` is called before each step of a sampling and before each decoding.

    RuntimeError when a result is not finite or ComfyUI chose another kind of device.
    """
    import comfy.model_management
    import comfy.sd
    import comfy.utils
    import nodes
    import torch

    management = comfy.model_management
    device = management.get_torch_device()
    if device.type != expected:
        raise RuntimeError(f"a {expected} device was expected, ComfyUI chose {device}")

    def inputs(name: str, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(SEED ^ zlib.crc32(name.encode())))

    def conditioning(name: str) -> list[Any]:
        return [[inputs(name, 1, *case.context), {"pooled_output": inputs(name + " pooled", 1, case.pooled)}]]

    positive, negative = conditioning("positive"), conditioning("negative")
    empty = {"samples": torch.zeros(case.batch, case.channels, case.size // 8, case.size // 8)}
    stages: dict[str, Any] = {}
    calls: list[float] = []  # when the network was called
    card = _card(device)
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(files["model"]))
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(files["vae"])))

        def step(*_: Any) -> None:
            if turn.shared and card:
                card.synchronize(device)
            turn()
            calls.append(turn.clock())

        model.model.diffusion_model.register_forward_pre_hook(step)

        def sample() -> torch.Tensor:
            result = nodes.common_ksampler(
                model, SEED, case.steps, case.cfg, case.sampler, case.scheduler, positive, negative, dict(empty)
            )
            samples: torch.Tensor = result[0]["samples"]
            return samples

        latent, stages["sampling"] = _stage(sample, repeats, device, turn)
        stages["step"] = _steps(calls, repeats)
        _, stages["decode"] = _stage(lambda: vae.decode(latent), repeats, device, turn)
    return {
        "stages": stages,
        "hooks_imported": _HOOKS in sys.modules,
        "comfyui": _comfyui_version(),
        "model": {
            "class": type(model.model).__name__,
            "parameters": sum(p.numel() for p in model.model.diffusion_model.parameters()),
            "dtype": str(model.model.get_dtype()),
            "patcher": type(model).__name__,
            "vae_dtype": str(vae.vae_dtype),
        },
        **_surroundings(device),
    }


def _steps(calls: list[float], repeats: int) -> dict[str, Any]:
    """Seconds from each call of the network to the next within the measured samplings: a pause spoils only one."""
    each = len(calls) // (WARM_UPS + repeats)
    measured = [calls[start : start + each] for start in range(WARM_UPS * each, len(calls), each)]
    seconds = [after - before for sampling in measured for before, after in itertools.pairwise(sampling)]
    return {"sha256": [], "seconds": seconds, "peak_bytes": {}}


def _stage(work: Callable[[], Any], repeats: int, device: Any, turn: Turn) -> tuple[Any, dict[str, Any]]:
    """``work`` twice to warm up and ``repeats`` times measured; its last result, and digests, seconds and bytes.

    The digests are of every result in order, the warm-ups' first: they may differ from the others, since weights are
    loaded meanwhile, and must do so in the same way in another process.
    """
    card = _card(device)
    digests: list[str] = []
    seconds: list[float] = []

    def timed() -> Any:
        if card:
            card.synchronize(device)
        start = turn.clock()
        result = work()
        if card:
            card.synchronize(device)
        seconds.append(turn.clock() - start)
        digests.append(_digest(_finite(result)))
        return result

    if card:
        card.reset_peak_memory_stats(device)
    turn()
    with _watched(device) as on_card:
        timed()
    for _ in range(WARM_UPS - 1 + repeats):
        turn()
        result = timed()
    peaks = {}
    if card:
        peaks["allocated"] = card.max_memory_allocated(device)
        peaks["reserved"] = card.max_memory_reserved(device)
        peaks["on_card"] = on_card[0]
    return result, {
        "sha256": digests,
        "shape": list(result.shape),
        "spread": float(result.float().std()),
        "seconds": seconds[WARM_UPS:],
        "peak_bytes": peaks,
    }


def _card(device: Any) -> Any:
    """The device's module, such as torch.cuda; None for the CPU."""
    import torch

    return None if device.type == "cpu" else getattr(torch, device.type)


@contextlib.contextmanager
def _watched(device: Any) -> Iterator[list[int]]:
    """The most bytes by which the device's used memory rose, seen every 10 ms. Not where time is measured: it costs."""
    card, most, stop = _card(device), [0], threading.Event()
    if card is None:
        yield most
        return
    before, _ = card.mem_get_info(device)

    def watch() -> None:
        while not stop.wait(_POLL):
            free, _ = card.mem_get_info(device)
            most[0] = max(most[0], before - free)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def _finite(result: Any) -> Any:
    if not bool(result.isfinite().all()) or float(result.float().std()) == 0.0:
        raise RuntimeError("the result is not finite, or the same everywhere: equal bytes would prove nothing")
    return result


def _digest(result: Any) -> str:
    import torch

    plain = result.detach().cpu().contiguous()
    head = f"{plain.dtype} {tuple(plain.shape)}\n".encode()
    return hashlib.sha256(head + plain.view(torch.uint8).numpy().tobytes()).hexdigest()


def _surroundings(device: Any) -> dict[str, Any]:
    import comfy.model_management
    import torch

    memory_management = sys.modules.get("comfy.memory_management")
    record: dict[str, Any] = {
        "device": {"type": device.type, "name": platform.processor() or platform.machine()},
        "dynamic_vram": bool(getattr(memory_management, "aimdo_enabled", False)),
        "vram_state": comfy.model_management.vram_state.name,
        "attention": _attention(),
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda, **_versions()},
    }
    record["versions"]["torch"] = torch.__version__
    if device.type != "cpu":
        properties = _card(device).get_device_properties(device)
        record["device"] = {"type": device.type, "name": properties.name, "total_bytes": properties.total_memory}
    if device.type == "cuda":
        record["device"]["capability"] = f"{properties.major}.{properties.minor}"
        record["allocator"] = torch.cuda.get_allocator_backend()
        record["versions"]["cudnn"] = torch.backends.cudnn.version()
    return record


def _attention() -> str:
    from comfy.ldm.modules import attention

    name: str = getattr(attention.optimized_attention, "__name__", "unknown")
    return name


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _comfyui_version() -> str:
    import comfyui_version

    return str(comfyui_version.__version__)


def _write(out: Path, record: dict[str, Any]) -> None:
    fresh = out.with_name(f".{out.name}.new")
    fresh.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    fresh.replace(out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
