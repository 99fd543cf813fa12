"""Nodes for the trial's workflows: conditioning without a text encoder, video frames, device work of a pack's own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

Inputs = dict[str, dict[str, tuple[Any, ...]]]


class PatchforgeConditioning:
    """Random conditioning of ``tokens`` by ``width`` and a pooled vector; made on the CPU, so the same everywhere."""

    RETURN_TYPES: ClassVar = ("CONDITIONING",)
    FUNCTION: ClassVar = "make"
    CATEGORY: ClassVar = "patchforge"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "tokens": ("INT", {"default": 77, "min": 1, "max": 512}),
                "width": ("INT", {"default": 2048, "min": 1, "max": 8192}),
                "pooled": ("INT", {"default": 1280, "min": 1, "max": 8192}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1}),
            }
        }

    def make(self, tokens: int, width: int, pooled: int, seed: int) -> tuple[Any]:
        generator = torch.Generator(device="cpu").manual_seed(seed)
        text = torch.randn((1, tokens, width), generator=generator, device="cpu")
        vector = torch.randn((1, pooled), generator=generator, device="cpu")
        return ([[text, {"pooled_output": vector}]],)


class PatchforgeFrames:
    """A video latent (1, channels, frames, height, width) as a batch of image latents."""

    RETURN_TYPES: ClassVar = ("LATENT",)
    FUNCTION: ClassVar = "split"
    CATEGORY: ClassVar = "patchforge"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {"required": {"samples": ("LATENT",)}}

    def split(self, samples: dict[str, Any]) -> tuple[Any]:
        return ({"samples": samples["samples"][0].movedim(1, 0).contiguous()},)


class PatchforgeBlur:
    """A blur that goes to the device and back by itself, as the nodes of many packs do."""

    RETURN_TYPES: ClassVar = ("IMAGE",)
    FUNCTION: ClassVar = "blur"
    CATEGORY: ClassVar = "patchforge"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {
            "required": {
                "image": ("IMAGE",),
                "radius": ("INT", {"default": 3, "min": 1, "max": 31}),
                "sigma": ("FLOAT", {"default": 1.5, "min": 0.1, "max": 10.0, "step": 0.1}),
            }
        }

    def blur(self, image: torch.Tensor, radius: int, sigma: float) -> tuple[torch.Tensor]:
        import comfy.model_management as management  # noqa: PLC0415 - there when ComfyUI runs

        device = management.get_torch_device()
        at = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
        kernel = torch.exp(-(at**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).repeat(image.shape[-1], 1, 1)
        work = image.movedim(-1, 1).to(device)
        for axis, padding in ((-1, (radius, radius, 0, 0)), (-2, (0, 0, radius, radius))):
            work = torch.nn.functional.pad(work, padding, mode="replicate")
            work = torch.nn.functional.conv2d(work, kernel.unsqueeze(1 if axis == -1 else -1), groups=image.shape[-1])
        return (work.movedim(1, -1).cpu(),)


NODE_CLASS_MAPPINGS = {
    "PatchforgeConditioning": PatchforgeConditioning,
    "PatchforgeFrames": PatchforgeFrames,
    "PatchforgeBlur": PatchforgeBlur,
}
