"""Every sampler and scheduler of the ComfyUI tree in the current folder, on a small model with weights of a fixed seed.

``python run_samplers.py [--same-seeds] [ComfyUI's flags]`` prints one line of JSON: the device, how many operations it
counted, a SHA-256 digest of every result, and which samplers asked ComfyUI's ``default_noise_sampler`` for noise.

Newer releases add 1 to that function's seed on the CPU only; ``--same-seeds`` takes this away.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

SAME_SEEDS = "--same-seeds"
STEPS, SEED = 4, 5
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": (1, 2),
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 16,
    "use_spatial_transformer": True,
    "legacy": False,
}


def model() -> Any:
    """A UNet of SD 1.5's kind, 2 levels deep, as a ModelPatcher."""
    import torch
    from comfy import model_management, model_patcher, supported_models

    config = supported_models.SD15(UNET)
    config.set_inference_dtype(torch.float32, None)
    made = config.get_model({})
    numbers = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for _, parameter in sorted(made.diffusion_model.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=numbers) * 0.1)
    return model_patcher.ModelPatcher(made, model_management.get_torch_device(), model_management.unet_offload_device())


def watch(*, same_seeds: bool) -> list[str]:
    """The list to which each use of ``default_noise_sampler`` adds a line from now on."""
    import torch
    from comfy.k_diffusion import sampling

    original, uses = sampling.default_noise_sampler, []
    x = torch.zeros(4)
    offset = not torch.equal(
        original(x, seed=SEED)(1, 0), torch.randn(4, generator=torch.Generator().manual_seed(SEED))
    )

    def watched(x: Any, seed: int | None = None) -> Any:
        uses.append(str(x.device))
        undo = offset and same_seeds and x.device.type == "cpu" and seed is not None
        return original(x, seed=seed - 1 if undo and seed is not None else seed)

    sampling.default_noise_sampler = watched
    return uses


def sampled(patcher: Any, uses: list[str]) -> tuple[dict[str, str], list[str]]:
    """Digests by sampler and scheduler, and which of them used ``default_noise_sampler``."""
    import torch
    from comfy import sample, samplers

    numbers = torch.Generator().manual_seed(SEED)
    latent = torch.zeros(1, 4, 8, 8)
    conditions = [[[torch.randn(1, 7, UNET["context_dim"], generator=numbers), {}]] for _ in range(2)]
    pairs = [(name, "normal") for name in samplers.SAMPLER_NAMES]
    pairs += [("euler", name) for name in samplers.SCHEDULER_NAMES if name != "normal"]
    digests, noisy = {}, []
    for pair in pairs:
        uses.clear()
        noise = sample.prepare_noise(latent, SEED)
        result = sample.sample(patcher, noise, STEPS, 4.0, *pair, *conditions, latent, seed=SEED, disable_pbar=True)
        if not torch.isfinite(result).all():
            raise SystemExit(f"{pair}: the result has NaN or infinity")
        digests[" ".join(pair)] = hashlib.sha256(result.cpu().numpy().tobytes()).hexdigest()
        if uses:
            noisy.append(" ".join(pair))
    return digests, noisy


def operations() -> int:
    """How many operations the emulated device has run; 0 where there is none."""
    faults = sys.modules.get("emulator.faults")
    return int(faults.operations()) if faults else 0


def main() -> None:
    """Sample, and print what came of it."""
    same_seeds = SAME_SEEDS in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != SAME_SEEDS]
    sys.path.insert(0, str(Path.cwd()))
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    torch.set_num_threads(1)
    uses = watch(same_seeds=same_seeds)
    with torch.inference_mode():
        patcher = model()
        digests, noisy = sampled(patcher, uses)
    device = str(patcher.load_device)
    print(json.dumps({"device": device, "operations": operations(), "digests": digests, "noisy": noisy}))


if __name__ == "__main__":
    main()
