"""What torch.compile makes of the models of the ComfyUI tree in the current folder.

``python run_compiled.py [ComfyUI's flags]`` prints one line of JSON: the device, and for each model and kind of layers
how many graphs Dynamo makes of it, why it breaks off between them, and the operators in each, in order.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from run_samplers import UNET  # type: ignore[import-not-found]

FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 16,
    "context_in_dim": 32,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
}


def models() -> dict[str, Any]:
    """By name: the class, its settings, and the shapes of its inputs."""
    from comfy.ldm.flux import model as flux
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    later = "txt_ids_dims" in getattr(flux.FluxParams, "__dataclass_fields__", ())
    inputs = {"x": (1, 4, 16, 16), "timesteps": (1,), "context": (1, 8, 16)}
    cases: dict[str, Any] = {"unet": (UNetModel, UNET | {"num_heads": 2}, inputs)}
    inputs = {"x": (1, 16, 8, 8), "timestep": (1,), "context": (1, 8, 32), "y": (1, 16), "guidance": (1,)}
    return cases | {"flux": (flux.Flux, FLUX | ({"txt_ids_dims": []} if later else {}), inputs)}


def main() -> None:
    """Prints the record of every model, with weights in the type of its inputs and in another."""
    sys.path.insert(0, str(Path.cwd()))
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.ops
    import torch
    from comfy import model_management

    device = model_management.get_torch_device()
    records = {}
    for name, (network, settings, shapes) in models().items():
        for layers, dtype in (("disable_weight_init", torch.float32), ("manual_cast", torch.float16)):
            made = network(**settings, device=device, dtype=dtype, operations=getattr(comfy.ops, layers)).eval()
            inputs = {key: torch.rand(shape, device=device) for key, shape in shapes.items()}
            torch._dynamo.reset()
            with torch.inference_mode():
                explained = torch._dynamo.explain(made.forward)(**inputs)
            records[f"{name} {layers}"] = {
                "graphs": explained.graph_count,
                "breaks": sorted(str(reason.reason) for reason in explained.break_reasons),
                "operators": [
                    [getattr(operator, "__name__", str(operator)) for operator in graph]
                    for graph in explained.ops_per_graph
                ],
            }
    print(json.dumps({"device": str(device), "hooks": "comfy.patchforge_xpu" in sys.modules, "models": records}))


if __name__ == "__main__":
    main()
