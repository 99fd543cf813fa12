"""Writes small models with random weights for the workflows of node packs, by the packs' own classes.

``python pack_weights.py PACK OUT NAME ...`` in ComfyUI's folder: PACK is the pack's folder, NAME a file in it that is
written under OUT, or one of ComfyUI's own folder where it begins with ``comfyui/``. It needs torch and the pack's
requirements, and of patchforge only ``weights.py`` beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def _rife(pack: Path) -> Any:
    sys.path.insert(0, str(pack))
    from vfi_models.rife.rife_arch import IFNet  # type: ignore[import-not-found]  # noqa: PLC0415

    return IFNet(arch_ver="4.7")


def _depth_anything(pack: Path) -> Any:
    sys.path.insert(0, str(pack / "src"))
    from custom_controlnet_aux.depth_anything_v2.dpt import (  # type: ignore[import-not-found]  # noqa: PLC0415
        DepthAnythingV2,
    )

    model = DepthAnythingV2(encoder="vits", features=64, out_channels=[48, 96, 192, 384])
    model.depth_head.scratch.output_conv2[2].bias.data.fill_(1.0)  # else its ReLU may leave zeros alone
    return model


def _save(model: Callable[[Path], Any]) -> Callable[[Path, Path], None]:
    def write(pack: Path, path: Path) -> None:
        import torch  # noqa: PLC0415

        torch.save(model(pack).state_dict(), path)

    return write


def _quantised(_: Path, path: Path) -> None:
    """The UNet of the other workflows: matrices of eight bits, the widest of four, all else float16."""
    import gguf  # noqa: PLC0415
    import weights  # type: ignore[import-not-found]  # noqa: PLC0415

    checkpoint = next(one for one in weights.WEIGHTS if one.name == "patchforge-sd15.safetensors")
    writer = gguf.GGUFWriter(str(path), "sd1")
    for key, tensor in zip(checkpoint.table(), weights.tensors(checkpoint), strict=True):
        if name := key.partition(_UNET)[2]:
            kind = gguf.GGMLQuantizationType.F16
            if tensor.dim() == 2:
                kind = gguf.GGMLQuantizationType.Q4_0 if ".ff." in name else gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_UNET = "model.diffusion_model."
COMFYUI = "comfyui"  #: the folder of files that belong into ComfyUI's own, not into the pack's
MODELS: dict[str, Callable[[Path, Path], None]] = {
    "ckpts/rife/rife47.pth": _save(_rife),
    "ckpts/depth-anything/Depth-Anything-V2-Small/depth_anything_v2_vits.pth": _save(_depth_anything),
    f"{COMFYUI}/models/unet/patchforge-sd15-Q8_0.gguf": _quantised,
}


def main(arguments: Sequence[str]) -> None:
    """The command; KeyError for an unknown name."""
    pack, out, *names = arguments
    sys.path.insert(0, str(Path.cwd()))
    import comfy.model_management  # noqa: F401, PLC0415 - packs ask it while they are imported
    import torch  # noqa: PLC0415

    for name in names:
        torch.manual_seed(0)
        path = Path(out, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        MODELS[name](Path(pack), path)


if __name__ == "__main__":
    main(sys.argv[1:])
