"""Writes small models with random weights for the workflows of node packs, by the packs' own classes.

``python pack_weights.py PACK OUT NAME ...`` in ComfyUI's folder: PACK is the pack's folder, NAME a file in it that is
written under OUT. It needs torch and the pack's requirements, and nothing of patchforge.
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


MODELS: dict[str, Callable[[Path], Any]] = {
    "ckpts/rife/rife47.pth": _rife,
    "ckpts/depth-anything/Depth-Anything-V2-Small/depth_anything_v2_vits.pth": _depth_anything,
}


def main(arguments: Sequence[str]) -> None:
    """The command; KeyError for an unknown name."""
    pack, out, *names = arguments
    sys.path.insert(0, str(Path.cwd()))
    import comfy.model_management  # noqa: F401, PLC0415 - packs ask it while they are imported
    import torch  # noqa: PLC0415

    for name in names:
        torch.manual_seed(0)
        weights = MODELS[name](Path(pack)).state_dict()
        path = Path(out, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(weights, path)


if __name__ == "__main__":
    main(sys.argv[1:])
