"""Asks a release, in its own tree on the emulated XPU, what becomes of the faults that users report; prints JSON.

The devices are an integrated one and a card after it. Runs on upstream's tree and on a patched one.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F

ARGUMENTS, sys.argv = sys.argv, ["main.py"]
sys.path.insert(0, str(Path.cwd()))
Answers = dict[str, Any]

OOM = {
    "level zero": "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "pi": "Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES) -5 (PI_ERROR_OUT_OF_RESOURCES)",
    "ipex": "XPU out of memory. Tried to allocate 5.12 GiB (GPU 0; 15.11 GiB total capacity)",
    "onednn": "could not create a primitive",
    "lost": "level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)",
    "other": "shape mismatch",
}
FUSED = torch.nn.functional.scaled_dot_product_attention
calls: list[tuple[str, bool]] = []


def spy(q: Any, k: Any, v: Any, attn_mask: Any = None, **options: Any) -> Any:
    """Torch's function; notes which known fault of the fused kernel a call would meet."""
    allowed = torch._C._get_overrideable_sdp_enabled()
    if q.device.type == "xpu" and q.shape[-1] == 64 and allowed:
        if attn_mask is not None and attn_mask.dim() > 2 and q.shape[-2] >= 17 and k.shape[-2] >= 129:
            calls.append(("device lost", True))
        elif attn_mask is None and k.shape[-2] <= 128:
            calls.append(("nan rows", True))
    return FUSED(q, k, v, attn_mask=attn_mask, **options)


def attention() -> Answers:
    """Reports 1 and 2: T5 as it is, a mask of rank 2, and SDXL's cross-attention."""
    import comfy.ops
    from comfy.ldm.modules import attention as upstream
    from comfy.text_encoders import t5

    settings: dict[str, Any] = {
        "num_layers": 1,
        "d_model": 128,
        "d_kv": 64,
        "num_heads": 2,
        "d_ff": 64,
        "vocab_size": 100,
    }
    settings |= {"dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "model_type": "t5"}
    vars(F)["scaled_dot_product_attention"] = spy
    with torch.no_grad():
        model = t5.T5(settings, torch.float16, "xpu", comfy.ops.manual_cast)
        for weight in model.parameters():
            weight.zero_()
        tokens = torch.ones(1, 256, dtype=torch.long, device="xpu")
        model(tokens, torch.ones(1, 256, device="xpu"))
        x = torch.randn(1, 200, 128, dtype=torch.float16, device="xpu")
        mask = torch.zeros(200, 200, dtype=torch.float16, device="xpu")
        masked = upstream.attention_pytorch(x, x, x, 2, mask=mask)
        plain = upstream.attention_pytorch(x, x[:, :77].contiguous(), x[:, :77].contiguous(), 2)
    F.scaled_dot_product_attention = FUSED
    exact, keys = x.cpu().double(), x[:, :77].cpu().double()
    reference = upstream.attention_pytorch(exact, keys, keys, 2)
    return {
        "met": sorted({name for name, _ in calls}),
        "bits": masked.cpu().view(torch.int16).sum().item(),
        "off": (plain.cpu().double() - reference).abs().max().item(),
    }


def recovery(management: Any) -> Answers:
    """Report 3: what the nodes do after an error of each text; how often the upscale node tries."""
    import comfy.sd

    management.load_models_gpu = management.load_model_gpu = lambda *_args, **_options: None
    answers: Answers = {"vae": {}, "upscale": {}, "interpolation": {}, "load": {}}
    for name, text in OOM.items():
        answers["vae"][name] = decoded(comfy.sd, text)
        answers["upscale"][name] = upscaled(text)
        answers["interpolation"][name] = interpolated(text)
        answers["load"][name] = bool(getattr(management, "is_oom", in_clause(management))(RuntimeError(text)))
    return answers


def in_clause(management: Any) -> Any:
    """What execution.py asks of an error that a node ended with, in releases before v0.17.0."""
    hooks = getattr(sys.modules.get("comfy"), "patchforge_xpu", None)
    types = hooks.oom_types if hooks else lambda kinds, _error: kinds
    return lambda error: isinstance(error, types(management.OOM_EXCEPTION, error))


def decoded(sd: Any, text: str) -> str:
    """``tiled`` where the VAE turned to tiles, else the error that came out."""

    class Vae(sd.VAE):  # type: ignore[misc]
        def __init__(self) -> None:
            self.device = torch.device("xpu", 1)
            self.output_device = torch.device("cpu")
            self.vae_dtype, self.latent_dim, self.latent_channels = torch.float32, 2, 4
            self.output_channels, self.upscale_ratio, self.extra_1d_channel = 3, 8, None
            self.patcher, self.first_stage_model, self.not_video = MagicMock(), MagicMock(), False
            self.patcher.get_free_memory = lambda *_args: 1 << 30
            self.first_stage_model.decode.side_effect = RuntimeError(text)
            self.first_stage_model.comfy_has_chunked_io = False
            self.memory_used_decode = lambda *_args: 1 << 20
            self.disable_offload, self.crop_input = False, True
            self.process_output = lambda image: image

        def throw_exception_if_invalid(self) -> None:
            pass

        def decode_tiled_(self, *_args: Any, **_options: Any) -> Any:
            return torch.zeros(1, 3, 8, 8)

        def __getattr__(self, _name: str) -> Any:
            return None

    try:
        Vae().decode(torch.zeros(1, 4, 8, 8))
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:100]
    return "tiled"


class Failing:
    """A model that the upscale and the interpolation node take, and that fails whatever it is given."""

    scale = 2

    def __init__(self, text: str) -> None:
        self.text, self.tries = text, 0
        self.model = torch.nn.Linear(2, 2)
        self.load_device = torch.device("xpu", 1)
        self.patcher = self

    def to(self, *_args: Any) -> Failing:
        return self

    def model_dtype(self) -> Any:
        return torch.float32

    def memory_used_forward(self, *_args: Any) -> int:
        return 1 << 20

    def extract_features(self, frame: Any) -> Any:
        return frame

    def clear_cache(self) -> None:
        pass

    def __call__(self, *_args: Any, **_options: Any) -> Any:
        self.tries += 1
        raise RuntimeError(self.text)


def upscaled(text: str) -> int:
    """How often the upscale node tried before it gave up."""
    from comfy_extras import nodes_upscale_model

    node, model = nodes_upscale_model.ImageUpscaleWithModel, Failing(text)
    run = node.execute if hasattr(node, "execute") else node().upscale
    try:
        run(model, torch.zeros(1, 16, 16, 3))
    except RuntimeError as error:
        if str(error) != text:
            raise
    return model.tries


def interpolated(text: str) -> int | None:
    """How often the interpolation node tried for 8 frames between two; None in releases without it."""
    try:
        from comfy_extras import nodes_frame_interpolation
    except ImportError:
        return None
    loaded = Failing(text)
    loaded.model = model = Failing(text)
    try:
        nodes_frame_interpolation.FrameInterpolate.execute(loaded, torch.zeros(2, 16, 16, 3), 9)
    except RuntimeError as error:
        if str(error) != text:
            raise
    return model.tries


def devices(management: Any) -> Answers:
    """Report 6: the device of the start and of a thread for prompts."""
    used = [str(management.get_torch_device())]
    thread = threading.Thread(target=lambda: used.append(str(management.get_torch_device())))
    thread.start()
    thread.join()
    return {"start": used[0], "prompts": used[1]}


def lost(management: Any) -> Answers:
    """Report 7: what is said after a loss."""
    from emulator import faults

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    faults.fail("device-lost")
    survived = True
    try:
        torch.ones(2, device="xpu:1") + 1
    except RuntimeError:
        try:
            management.soft_empty_cache()
        except RuntimeError:
            survived = False
    faults.clear()
    return {"survived": survived, "told": any("restart" in text for text in said)}


def checkpointed() -> str:
    """Report 8: gradients through a checkpoint while memory fills up between forward and recomputation."""
    from comfy.ldm.modules import attention as upstream
    from torch.utils.checkpoint import checkpoint

    x = torch.rand(1, 4096, 16, device="xpu:1", requires_grad=True)  # scores of two heads: 128 MiB
    out = checkpoint(lambda t: upstream.attention_pytorch(t, t, t, 2), x, use_reentrant=False)
    total = torch.xpu.get_device_properties(1).total_memory
    real, torch.xpu.memory_allocated = torch.xpu.memory_allocated, lambda _device=None: total - (200 << 20)
    try:
        out.sum().backward()
    except Exception as error:
        return type(error).__name__
    finally:
        torch.xpu.memory_allocated = real
    return "ok"


def bf16(management: Any) -> str:
    """Report 10: the VAE's dtype on a GPU without bfloat16."""
    real = torch.xpu.get_device_properties

    def uhd(device: Any = None) -> Any:
        values = {name: getattr(real(device), name) for name in dir(real(device)) if not name.startswith("_")}
        without = ("has_bfloat16_conversions", "has_subgroup_matrix_multiply_accumulate")
        return SimpleNamespace(**{**values, **dict.fromkeys(without, False)})

    torch.xpu.get_device_properties = uhd
    try:
        device = management.get_torch_device()
        return "bf16" if management.should_use_bf16(device) else "no bf16"
    finally:
        torch.xpu.get_device_properties = real


def main() -> None:
    import comfy.model_management as management

    answers = {"devices": devices(management), "bf16": bf16(management), "attention": attention()}
    answers |= {"checkpoint": checkpointed(), "lost": lost(management), "recovery": recovery(management)}
    print(json.dumps(answers))


main()
