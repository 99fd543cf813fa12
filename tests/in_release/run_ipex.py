"""Runs each way to ipex.optimize on a release's own small models, with the real IPEX on the CPU; prints JSON.

The hooks believe that tensors of the CPU are an XPU's. Nothing of a GPU is shown by this: IPEX has other code for XPU.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

ARGUMENTS, sys.argv = sys.argv, ["main.py", "--cpu"]
warnings.simplefilter("ignore")

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import intel_extension_for_pytorch as ipex  # noqa: E402
import torch  # noqa: E402
from comfy import patchforge_xpu as hooks  # noqa: E402
from comfy.patchforge_xpu import choice, devices, models  # noqa: E402
from comfy.patchforge_xpu.settings import state  # noqa: E402

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Model = tuple[Any, tuple[Any, ...]]


def unet() -> Model:
    """SD 1.5's kind with two levels; its input, time and text."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    model = UNetModel(
        image_size=8,
        in_channels=4,
        model_channels=32,
        out_channels=4,
        num_res_blocks=[1, 1],
        channel_mult=[1, 2],
        num_heads=2,
        use_spatial_transformer=True,
        transformer_depth=[1, 1],
        transformer_depth_output=[1, 1, 1, 1],
        transformer_depth_middle=1,
        context_dim=16,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    return model, (torch.randn(1, 4, 8, 8), torch.tensor([3.0]), torch.randn(1, 7, 16))


def text_encoder() -> Model:
    """CLIP-L's kind with two layers."""
    import comfy.ops
    from comfy.clip_model import CLIPTextModel

    settings: dict[str, Any] = {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    settings |= {"hidden_act": "quick_gelu", "vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407}
    model = CLIPTextModel({**settings, "projection_dim": 32}, torch.float32, "cpu", comfy.ops.disable_weight_init)
    return model, (torch.randint(0, 49407, (1, 77)),)


class Decoder(torch.nn.Module):  # type: ignore[misc]
    """The decoder of SD 1.5's VAE, two levels."""

    def __init__(self) -> None:
        super().__init__()
        from comfy.ldm.models.autoencoder import AutoencoderKL

        settings: dict[str, Any] = {
            "double_z": True,
            "z_channels": 4,
            "resolution": 16,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 32,
        }
        settings |= {"ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
        self.vae = AutoencoderKL(ddconfig=settings, embed_dim=4)

    def forward(self, z: Any) -> Any:
        return self.vae.decode(z)


MODELS: dict[str, Callable[[], Model]] = {
    "UNet": unet,
    "text encoder": text_encoder,
    "VAE": lambda: (Decoder(), (torch.randn(1, 4, 8, 8),)),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "ipex.optimize, as releases call it": lambda model: ipex.optimize(
        model.eval(), inplace=True, graph_mode=True, concat_linear=True
    ),
    "ipex_optimize": lambda model: hooks.ipex_optimize(ipex.optimize)(
        model.eval(), inplace=True, graph_mode=True, concat_linear=True
    ),
    "ipex_opt_in": hooks.ipex_opt_in,
}


def filled(model: Any) -> Any:
    """The model with numbers in all weights, small enough to stay finite."""
    numbers = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=numbers) * 0.05)
    return model.eval()


def output(model: Any, given: tuple[Any, ...]) -> Any:
    """The first tensor that the model answers, in fp32; the error where it raises."""
    try:
        with torch.no_grad():
            dtype = next(model.parameters()).dtype
            answer = model(*given, dtype=dtype) if type(model).__name__ == "CLIPTextModel" else model(*given)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:160]
    return (answer[0] if isinstance(answer, tuple) else answer).float()


def picture(model: Any) -> Any:
    """Modules by identity and type, weights by name, shape, type and content."""
    modules = [(name, id(module), type(module).__name__) for name, module in model.named_modules()]
    weights = {n: (tuple(v.shape), str(v.dtype), v.double().sum().item()) for n, v in model.state_dict().items()}
    return modules, weights


def row(way: str, name: str, dtype: Any) -> dict[str, Any]:
    """What one way did to one model in one type."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("patchforge.xpu").addHandler(handler)
    state.warned.clear()
    model, given = MODELS[name]()
    model = filled(model).to(dtype)
    given = tuple(value.to(dtype) if value.is_floating_point() else value for value in given)
    expected, before = output(copy.deepcopy(model), given), picture(model)
    try:
        with torch.no_grad():
            made = WAYS[way](model)
        raised = ""
    except Exception as error:
        made, raised = model, " ".join(f"{type(error).__name__}: {error}".split())[:160]
    answer = output(model, given)
    off = answer if isinstance(answer, str) else float((answer - expected).abs().max() / expected.abs().max())
    logging.getLogger("patchforge.xpu").removeHandler(handler)
    return {
        "way": way,
        "model": name,
        "dtype": str(dtype).removeprefix("torch."),
        "raised": raised,
        "same object": made is model,
        "type": type(made).__name__,
        "same weights": picture(model)[1].keys() == before[1].keys()
        and all(picture(model)[1][key][:2] == value[:2] for key, value in before[1].items()),
        "off": off,
        "said": said,
    }


def broken(name: str, dtype: Any) -> dict[str, Any]:
    """What the hook leaves of a model where the real ipex.optimize did its work and then failed."""

    def half_way(model: Any, **options: Any) -> Any:
        ipex.optimize(model, **{**options, "weights_prepack": dtype is torch.float32, "graph_mode": True})
        raise RuntimeError("half-way")

    model, given = MODELS[name]()
    model = filled(model).to(dtype)
    given = tuple(value.to(dtype) if value.is_floating_point() else value for value in given)
    expected, before = output(model, given), picture(model)
    kept = hooks.ipex_optimize(half_way)(model) is model and picture(model) == before
    after = output(model, given)
    return {
        "model": name,
        "dtype": str(dtype).removeprefix("torch."),
        "undone": kept,
        "same bits": not isinstance(after, str) and torch.equal(after, expected),
    }


def rows() -> Iterator[dict[str, Any]]:
    for way in WAYS:
        for name in MODELS:
            for dtype in DTYPES:
                yield row(way, name, dtype)


def main() -> None:
    state.available, state.configured, state.level = True, True, 1
    state.enable = frozenset({"ipex"})
    for module in (devices, models):
        module.is_xpu = lambda device: device is not None
    models.chosen = choice.chosen = lambda: True
    torch.manual_seed(0)
    failures = [broken(name, dtype) for name in MODELS for dtype in DTYPES]
    versions = {"torch": torch.__version__, "ipex": ipex.__version__}
    print(json.dumps({"versions": versions, "rows": list(rows()), "failures": failures}))


main()
