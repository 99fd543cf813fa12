"""Calls and processor seconds of one step of an SDXL-size UNet, in the tree that is the working folder; a line each.

Calls are those of Python's functions and of C's from Python: the same number each time, which no load disturbs.

Weights and inputs are on torch's meta device: every operation passes Python and the dispatcher, and none is computed.
So what hooks cost stands against the least that a step can cost, and not against the work of a GPU. With ``xpu`` the
hooks believe that these tensors are on an XPU, and do there what they do on one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAY, sys.argv = sys.argv[-1], ["main.py", "--cpu"]
sys.path.insert(0, str(Path.cwd()))

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ops  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.modules import attention  # noqa: E402
from comfy.ldm.modules.diffusionmodules import openaimodel  # noqa: E402

STEPS = 9


def unet() -> Any:
    """SDXL's UNet, 2.6 billion weights that take no memory."""
    openaimodel.SpatialTransformer.__init__.__globals__["optimized_attention"] = attention.attention_pytorch
    for name in ("optimized_attention", "optimized_attention_masked"):
        setattr(attention, name, attention.attention_pytorch)
    return openaimodel.UNetModel(
        image_size=32,
        in_channels=4,
        model_channels=320,
        out_channels=4,
        num_res_blocks=[2, 2, 2],
        channel_mult=[1, 2, 4],
        num_classes="sequential",
        adm_in_channels=2816,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        num_head_channels=64,
        transformer_depth=[0, 0, 2, 2, 10, 10],
        transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
        transformer_depth_middle=10,
        context_dim=2048,
        dtype=torch.float16,
        device=torch.device("meta"),
        operations=comfy.ops.disable_weight_init,
    ).eval()


def as_on_xpu() -> None:
    """Lets the hooks take tensors for an XPU's. Upstream's tree has none, and stays as it is."""
    try:
        from comfy.patchforge_xpu import attention as hook  # noqa: PLC0415
        from comfy.patchforge_xpu import devices  # noqa: PLC0415
        from comfy.patchforge_xpu.settings import state  # noqa: PLC0415
    except ImportError:
        return
    state.available, state.configured = True, True
    devices.names_xpu = lambda device: not isinstance(device, str)
    hook.is_xpu = lambda tensor: tensor.device.type == "meta"


def main() -> None:
    model = unet()
    if WAY == "xpu":
        as_on_xpu()
    given = {"device": "meta", "dtype": torch.float16}
    x, time_, text, more = (torch.empty(*size, **given) for size in ((2, 4, 128, 128), (2,), (2, 77, 2048), (2, 2816)))
    took = []
    with torch.inference_mode():
        for _ in range(STEPS + 2):
            start = time.process_time()
            model(x, time_, text, y=more)
            took.append(time.process_time() - start)
        print(calls(lambda: model(x, time_, text, y=more)))
    print(statistics.median(took[2:]))


def calls(step: Callable[[], object]) -> int:
    """How many calls a step makes."""
    made = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(None)
    return made


main()
