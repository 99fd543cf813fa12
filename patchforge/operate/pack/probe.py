"""Two nodes for ``patchforge health --deep``: a tiny model with random weights, and what was sampled, as numbers."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import torch

Inputs = dict[str, dict[str, tuple[Any, ...]]]
_MOST = 1 << 24  # values of a model


class PatchforgeProbe:
    """A diffusion model of the shapes that are asked for, conditioning and an empty latent; made in memory."""

    RETURN_TYPES: ClassVar = ("MODEL", "CONDITIONING", "LATENT")
    FUNCTION: ClassVar = "make"
    CATEGORY: ClassVar = "patchforge"
    DESCRIPTION: ClassVar = "For patchforge health: a tiny model with random weights."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "shapes": ("STRING", {"default": "{}"}),
                "latent": ("STRING", {"default": "[1, 16, 16, 16]"}),
                "width": ("INT", {"default": 4096, "min": 1, "max": 8192}),
                "pooled": ("INT", {"default": 2048, "min": 1, "max": 8192}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1}),
            }
        }

    def make(self, shapes: str, latent: str, width: int, pooled: int, seed: int) -> tuple[Any, ...]:
        import comfy.sd  # noqa: PLC0415 - there when ComfyUI runs

        generator = torch.Generator(device="cpu").manual_seed(seed)
        wanted = {str(key): tuple(map(int, shape)) for key, shape in json.loads(shapes).items()}
        if sum(_size(shape) for shape in wanted.values()) > _MOST:
            raise ValueError(f"expected a model of at most {_MOST} values")
        weights = {key: _random(shape, generator) for key, shape in wanted.items()}
        model = comfy.sd.load_diffusion_model_state_dict(weights)
        if model is None:
            raise ValueError("ComfyUI does not know a model of these shapes")
        text = torch.randn((1, 77, width), generator=generator, device="cpu")
        vector = torch.randn((1, pooled), generator=generator, device="cpu")
        samples = torch.zeros(tuple(map(int, json.loads(latent)))[:5], device="cpu")
        return (model, [[text, {"pooled_output": vector}]], {"samples": samples})


class PatchforgeSeen:
    """Tells mean and deviation of a latent, and whether all of it are numbers. Saves nothing."""

    RETURN_TYPES: ClassVar = ()
    FUNCTION: ClassVar = "tell"
    CATEGORY: ClassVar = "patchforge"
    OUTPUT_NODE: ClassVar = True
    DESCRIPTION: ClassVar = "For patchforge health: what was sampled, as numbers."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {"required": {"samples": ("LATENT",)}}

    def tell(self, samples: dict[str, Any]) -> dict[str, Any]:
        values = samples["samples"].float().cpu()
        finite = bool(torch.isfinite(values).all())
        told = {"finite": finite, "mean": float(values.mean()) if finite else 0.0}
        return {"ui": {"patchforge": [{**told, "deviation": float(values.std()) if finite else 0.0}]}}


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """With the variance that keeps activations near 1."""
    if not shape:
        return torch.ones(shape, dtype=torch.float16)
    spread = 0.1 if len(shape) == 1 else _size(shape[1:]) ** -0.5
    middle = 1.0 if len(shape) == 1 else 0.0
    values = torch.rand(shape, generator=generator, device="cpu").sub_(0.5).mul_(2 * 3**0.5 * spread).add_(middle)
    return values.to(torch.float16)


NODE_CLASS_MAPPINGS = {"PatchforgeProbe": PatchforgeProbe, "PatchforgeSeen": PatchforgeSeen}
