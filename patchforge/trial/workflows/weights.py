"""Writes models with random weights, and input images, for the trial's workflows.

``python weights.py FOLDER [NAME ...]`` fills FOLDER/models and FOLDER/input: all tiny files, or those named. It needs
torch and nothing of patchforge. The same file always has the same bytes; one that exists is left alone. No more than
one tensor is in memory. Exit status 2 for an unknown name.

The key names and shapes are what ComfyUI's model detection reads: of tiny models with few blocks, of those of real size
with all that the published ones have. Values are uniform with the variance that keeps activations near 1, so that
images have texture and half precision does not overflow.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

FORMAT = 2  #: changes when any file does: part of the folder name where they are kept
_TIME = 1280  # width of a UNet's time embedding
_BASE = 320  # a UNet's model_channels: what the detection of SD1.5 and SDXL asks for


class ShapeTable(dict[str, tuple[int, ...]]):
    """Shapes by key."""

    def conv(self, name: str, out: int, into: int, size: int = 3, *, bias: bool = True) -> None:
        self[f"{name}.weight"] = (out, into, size, size)
        if bias:
            self[f"{name}.bias"] = (out,)

    def linear(self, name: str, out: int, into: int, *, bias: bool = True) -> None:
        self[f"{name}.weight"] = (out, into)
        if bias:
            self[f"{name}.bias"] = (out,)

    def norm(self, name: str, width: int) -> None:
        self[f"{name}.weight"] = self[f"{name}.bias"] = (width,)

    def under(self, prefix: str, other: Mapping[str, tuple[int, ...]]) -> None:
        self.update({f"{prefix}.{key}": shape for key, shape in other.items()})


@dataclass(frozen=True)
class Weights:
    """One file of weights: where it goes, its shapes, and what differs from the usual values.

    ``gains`` multiply the weights of keys with that prefix; ``constants`` are the values of whole tensors.
    """

    folder: str  #: below models/
    name: str
    table: Callable[[], ShapeTable]
    gains: Mapping[str, float] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return sum(map(math.prod, self.table().values()))


@dataclass(frozen=True)
class _Unet:
    """A UNet's levels: channels as multiples of 320, residual blocks and transformers per block, and in the middle."""

    levels: tuple[int, ...]
    blocks: int
    depths: tuple[int, ...]
    middle: int
    context: int
    linear: bool = False  #: whether a transformer's projections are linear, as in SDXL
    adm: int = 0  #: width of the vector condition


SD15 = _Unet(levels=(1, 2), blocks=1, depths=(1, 1), middle=1, context=768)
SDXL = _Unet(levels=(1, 1, 1), blocks=2, depths=(0, 1, 2), middle=2, context=2048, linear=True, adm=2816)
REAL_SD15 = replace(SD15, levels=(1, 2, 4, 4), blocks=2, depths=(1, 1, 1, 0))
REAL_SDXL = replace(SDXL, levels=(1, 2, 4), depths=(0, 2, 10), middle=10)


def _residual(out: int, into: int) -> ShapeTable:
    table = ShapeTable()
    table.norm("in_layers.0", into)
    table.conv("in_layers.2", out, into)
    table.linear("emb_layers.1", out, _TIME)
    table.norm("out_layers.0", out)
    table.conv("out_layers.3", out, out)
    if out != into:
        table.conv("skip_connection", out, into, 1)
    return table


def _transformer(unet: _Unet, width: int, depth: int) -> ShapeTable:
    table = ShapeTable()
    table.norm("norm", width)
    for name in ("proj_in", "proj_out"):
        (table.linear(name, width, width) if unet.linear else table.conv(name, width, width, 1))
    for index in range(depth):
        block = f"transformer_blocks.{index}"
        for attention, context in (("attn1", width), ("attn2", unet.context)):
            table.linear(f"{block}.{attention}.to_q", width, width, bias=False)
            table.linear(f"{block}.{attention}.to_k", width, context, bias=False)
            table.linear(f"{block}.{attention}.to_v", width, context, bias=False)
            table.linear(f"{block}.{attention}.to_out.0", width, width)
        table.linear(f"{block}.ff.net.0.proj", 8 * width, width)
        table.linear(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            table.norm(f"{block}.{norm}", width)
    return table


def _down(unet: _Unet) -> tuple[ShapeTable, list[int]]:
    """The half of a UNet that a ControlNet has too, and the widths of its blocks."""
    table = ShapeTable()
    table.linear("time_embed.0", _TIME, _BASE)
    table.linear("time_embed.2", _TIME, _TIME)
    table.conv("input_blocks.0.0", _BASE, 4)
    widths = [_BASE]
    for level, (factor, depth) in enumerate(zip(unet.levels, unet.depths, strict=True)):
        for _ in range(unet.blocks):
            block, width = f"input_blocks.{len(widths)}", factor * _BASE
            table.under(f"{block}.0", _residual(width, widths[-1]))
            if depth:
                table.under(f"{block}.1", _transformer(unet, width, depth))
            widths.append(width)
        if level < len(unet.levels) - 1:
            table.conv(f"input_blocks.{len(widths)}.0.op", widths[-1], widths[-1])
            widths.append(widths[-1])
    table.under("middle_block.0", _residual(widths[-1], widths[-1]))
    table.under("middle_block.1", _transformer(unet, widths[-1], unet.middle))
    table.under("middle_block.2", _residual(widths[-1], widths[-1]))
    return table, widths


def _unet(unet: _Unet) -> ShapeTable:
    table, skips = _down(unet)
    if unet.adm:
        table.linear("label_emb.0.0", _TIME, unet.adm)
        table.linear("label_emb.0.2", _TIME, _TIME)
    width, number = skips[-1], 0
    for level in reversed(range(len(unet.levels))):
        out, depth = unet.levels[level] * _BASE, unet.depths[level]
        for index in range(unet.blocks + 1):
            block = f"output_blocks.{number}"
            table.under(f"{block}.0", _residual(out, width + skips.pop()))
            if depth:
                table.under(f"{block}.1", _transformer(unet, out, depth))
            if level and index == unet.blocks:
                table.conv(f"{block}.{2 if depth else 1}.conv", out, out)
            width, number = out, number + 1
    table.norm("out.0", _BASE)
    table.conv("out.2", 4, _BASE)
    return table


def _controlnet(unet: _Unet = SD15) -> ShapeTable:
    table, widths = _down(unet)
    hint = (3, 16, 16, 32, 32, 96, 96, 256, _BASE)
    for index, (into, out) in enumerate(pairwise(hint)):
        table.conv(f"input_hint_block.{2 * index}", out, into)
    for index, width in enumerate(widths):
        table.conv(f"zero_convs.{index}.0", width, width, 1)
    table.conv("middle_block_out.0", widths[-1], widths[-1], 1)
    return table


def _clip_l() -> ShapeTable:
    table, width = ShapeTable(), 768
    table["embeddings.token_embedding.weight"] = (49408, width)
    table["embeddings.position_embedding.weight"] = (77, width)
    for index in range(12):
        layer = f"encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            table.linear(f"{layer}.self_attn.{name}", width, width)
        table.linear(f"{layer}.mlp.fc1", 4 * width, width)
        table.linear(f"{layer}.mlp.fc2", width, 4 * width)
        table.norm(f"{layer}.layer_norm1", width)
        table.norm(f"{layer}.layer_norm2", width)
    table.norm("final_layer_norm", width)
    return table


def _vae_residual(out: int, into: int) -> ShapeTable:
    table = ShapeTable()
    table.norm("norm1", into)
    table.conv("conv1", out, into)
    table.norm("norm2", out)
    table.conv("conv2", out, out)
    if out != into:
        table.conv("nin_shortcut", out, into, 1)
    return table


def _vae_middle(width: int) -> ShapeTable:
    table = ShapeTable()
    table.under("mid.block_1", _vae_residual(width, width))
    table.norm("mid.attn_1.norm", width)
    for name in ("q", "k", "v", "proj_out"):
        table.conv(f"mid.attn_1.{name}", width, width, 1)
    table.under("mid.block_2", _vae_residual(width, width))
    return table


def _vae_coder(levels: Sequence[tuple[int, int]], blocks: int, stem: str, resample: str) -> ShapeTable:
    """``levels``: number and width in the order they run; all but the last change the resolution."""
    table, width = ShapeTable(), levels[0][1]
    for number, out in levels:
        for index in range(blocks):
            table.under(f"{stem}.{number}.block.{index}", _vae_residual(out, width))
            width = out
        if number != levels[-1][0]:
            table.conv(f"{stem}.{number}.{resample}.conv", out, out)
    return table


def _vae(latent: int = 4) -> ShapeTable:
    """ComfyUI takes only the number of latent channels from the file; the widths are those of SD1.5."""
    table, widths = ShapeTable(), (128, 256, 512, 512)
    table.conv("encoder.conv_in", widths[0], 3)
    table.under("encoder", _vae_coder(list(enumerate(widths)), 2, "down", "downsample"))
    table.under("encoder", _vae_middle(widths[-1]))
    table.norm("encoder.norm_out", widths[-1])
    table.conv("encoder.conv_out", 2 * latent, widths[-1])
    table.conv("quant_conv", 2 * latent, 2 * latent, 1)
    table.conv("post_quant_conv", latent, latent, 1)
    table.conv("decoder.conv_in", widths[-1], latent)
    table.under("decoder", _vae_middle(widths[-1]))
    table.under("decoder", _vae_coder(list(enumerate(widths))[::-1], 3, "up", "upsample"))
    table.norm("decoder.norm_out", widths[0])
    table.conv("decoder.conv_out", 3, widths[0])
    return table


def _sd15(unet: _Unet = SD15) -> ShapeTable:
    table = ShapeTable()
    table.under("model.diffusion_model", _unet(unet))
    table.under("cond_stage_model.transformer.text_model", _clip_l())
    table.under("first_stage_model", _vae())
    return table


def _taesd(latent: int) -> ShapeTable:
    """The tiny autoencoder's encoder and decoder as two lists of layers; "block" is three convolutions."""
    table, width = ShapeTable(), 64
    table["vae_scale"] = table["vae_shift"] = ()
    blocks = [3, 4, 5, 7, 8, 9, 11, 12, 13]
    table.conv("taesd_encoder.0", width, 3)
    for index in (2, 6, 10):
        table.conv(f"taesd_encoder.{index}", width, width, bias=False)
    table.conv("taesd_encoder.14", latent, width)
    table.conv("taesd_decoder.1", width, latent)
    for index in (7, 12, 17):
        table.conv(f"taesd_decoder.{index}", width, width, bias=False)
    table.conv("taesd_decoder.19", 3, width)
    decoder = [f"taesd_decoder.{index}" for index in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)]
    for block in [f"taesd_encoder.{index}" for index in (1, *blocks)] + decoder:
        for index in (0, 2, 4):
            table.conv(f"{block}.conv.{index}", width, width)
    return table


def _dit(depth: int = 2, latent: int = 16, patch: int = 2, positions: int = 64) -> ShapeTable:
    """SD3: ComfyUI takes 64 channels per block from the number of blocks."""
    table, width = ShapeTable(), 64 * depth
    table["pos_embed"] = (1, positions * positions, width)
    table.conv("x_embedder.proj", width, latent, patch)
    table.linear("context_embedder", width, 4096)
    for name, into in (("t_embedder", 256), ("y_embedder", 2048)):
        table.linear(f"{name}.mlp.0", width, into)
        table.linear(f"{name}.mlp.2", width, width)
    for index in range(depth):
        for side in ("x_block", "context_block"):
            block, last = f"joint_blocks.{index}.{side}", side == "context_block" and index == depth - 1
            table.linear(f"{block}.adaLN_modulation.1", (2 if last else 6) * width, width)
            table.linear(f"{block}.attn.qkv", 3 * width, width)
            if not last:
                table.linear(f"{block}.attn.proj", width, width)
                table.linear(f"{block}.mlp.fc1", 4 * width, width)
                table.linear(f"{block}.mlp.fc2", width, 4 * width)
    table.linear("final_layer.adaLN_modulation.1", 2 * width, width)
    table.linear("final_layer.linear", patch * patch * latent, width)
    return table


def _wan(depth: int = 2, width: int = 128, latent: int = 16) -> ShapeTable:
    """Wan 2.1, text to video: 128 channels per head."""
    table = ShapeTable()
    table["patch_embedding.weight"], table["patch_embedding.bias"] = (width, latent, 1, 2, 2), (width,)
    for name, into in (("text_embedding", 4096), ("time_embedding", 256)):
        table.linear(f"{name}.0", width, into)
        table.linear(f"{name}.2", width, width)
    table.linear("time_projection.1", 6 * width, width)
    for index in range(depth):
        block = f"blocks.{index}"
        table[f"{block}.modulation"] = (1, 6, width)
        for attention in ("self_attn", "cross_attn"):
            for name in ("q", "k", "v", "o"):
                table.linear(f"{block}.{attention}.{name}", width, width)
            table[f"{block}.{attention}.norm_q.weight"] = table[f"{block}.{attention}.norm_k.weight"] = (width,)
        table.norm(f"{block}.norm3", width)
        table.linear(f"{block}.ffn.0", 4 * width, width)
        table.linear(f"{block}.ffn.2", width, 4 * width)
    table["head.modulation"] = (1, 2, width)
    table.linear("head.head", 4 * latent, width)
    return table


def _upscaler(width: int = 16, growth: int = 32, blocks: int = 1) -> ShapeTable:
    """ESRGAN, four times the size. Its growth is 32 in every file that spandrel reads."""
    table = ShapeTable()
    table.conv("model.0", width, 3)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for index in range(5):
                out = growth if index < 4 else width
                table.conv(f"model.1.sub.{block}.RDB{dense}.conv{index + 1}.0", out, width + index * growth)
    table.conv(f"model.1.sub.{blocks}", width, width)
    for layer, out in ((3, width), (6, width), (8, width), (10, 3)):
        table.conv(f"model.{layer}", out, width)
    return table


def _interpolation(head: int = 4, width: int = 16) -> ShapeTable:
    """RIFE with five narrow blocks."""
    table = ShapeTable()
    for index, into in enumerate((3, 16, 16)):
        table.conv(f"encode.cnn{index}", 16, into)
    table["encode.cnn3.weight"], table["encode.cnn3.bias"] = (16, head, 4, 4), (head,)
    for index in range(5):
        block, into = f"blocks.{index}", 7 + 2 * head if index == 0 else 20 + 2 * head
        table.conv(f"{block}.conv0.0.0", width // 2, into)
        table.conv(f"{block}.conv0.1.0", width, width // 2)
        for layer in range(8):
            table.conv(f"{block}.convblock.{layer}.conv", width, width)
            table[f"{block}.convblock.{layer}.beta"] = (1, width, 1, 1)
        table[f"{block}.lastconv.0.weight"], table[f"{block}.lastconv.0.bias"] = (width, 52, 4, 4), (52,)
    return table


def _lora(rank: int = 4) -> ShapeTable:
    """Every attention of the SD1.5 UNet and of CLIP-L."""
    models = (("lora_unet_", "", _unet(SD15)), ("lora_te_", "text_model.", _clip_l()))
    table = ShapeTable()
    for prefix, root, model in models:
        for key, shape in model.items():
            if key.endswith(("to_q.weight", "to_v.weight", "q_proj.weight", "v_proj.weight")):
                name = prefix + (root + key.removesuffix(".weight")).replace(".", "_")
                table[f"{name}.lora_up.weight"] = (shape[0], rank)
                table[f"{name}.lora_down.weight"] = (rank, shape[1])
                table[f"{name}.alpha"] = ()
    return table


WEIGHTS = (
    Weights("checkpoints", "patchforge-sd15.safetensors", _sd15),
    Weights("diffusion_models", "patchforge-sdxl.safetensors", lambda: _unet(SDXL)),
    Weights("diffusion_models", "patchforge-sd3.safetensors", _dit),
    Weights("diffusion_models", "patchforge-wan.safetensors", _wan),
    *(
        Weights(
            "vae",
            f"patchforge-taesd-{latent}.safetensors",
            lambda latent=latent: _taesd(latent),  # type: ignore[misc]
            gains={"taesd_decoder.19.weight": 0.4},
            constants={"vae_scale": 1.0, "vae_shift": 0.0, "taesd_decoder.19.bias": 0.5},
        )
        for latent in (4, 16)
    ),
    Weights("controlnet", "patchforge-controlnet.safetensors", _controlnet),
    Weights("loras", "patchforge-lora.safetensors", _lora),
    Weights("upscale_models", "patchforge-x4.safetensors", _upscaler, constants={"model.10.bias": 0.5}),
    Weights("frame_interpolation", "patchforge-rife.safetensors", _interpolation),
)


#: The same models with all blocks and widths that the published ones have: SD 1.5, SDXL, SD3 medium, ESRGAN. SDXL and
#: SD3 get the VAE that is made for them. Each is the file of that tiny one.
REAL: Mapping[str, Weights] = {
    "patchforge-sd15.safetensors": Weights("checkpoints", "patchforge-real-sd15.safetensors", lambda: _sd15(REAL_SD15)),
    "patchforge-sdxl.safetensors": Weights(
        "diffusion_models", "patchforge-real-sdxl.safetensors", lambda: _unet(REAL_SDXL)
    ),
    "patchforge-sd3.safetensors": Weights(
        "diffusion_models", "patchforge-real-sd3.safetensors", lambda: _dit(depth=24, positions=192)
    ),
    "patchforge-taesd-4.safetensors": Weights("vae", "patchforge-real-vae-4.safetensors", _vae),
    "patchforge-taesd-16.safetensors": Weights("vae", "patchforge-real-vae-16.safetensors", lambda: _vae(16)),
    "patchforge-controlnet.safetensors": Weights(
        "controlnet", "patchforge-real-controlnet.safetensors", lambda: _controlnet(REAL_SD15)
    ),
    "patchforge-x4.safetensors": Weights(
        "upscale_models",
        "patchforge-real-x4.safetensors",
        lambda: _upscaler(width=64, blocks=23),
        constants={"model.10.bias": 0.5},
    ),
}
_BY_NAME = {weights.name: weights for weights in (*WEIGHTS, *REAL.values())}


def missing(folder: Path, names: Iterable[str]) -> int:
    """Bytes of those of the files named that ``generate`` would write there; inputs are not counted."""
    wanted = (weights for name in names if (weights := _BY_NAME.get(name)))
    return sum(_SIZE * weights.values for weights in wanted if not _place(folder, weights.name).exists())


_SIZE = 2  # bytes of a float16


def tensors(weights: Weights) -> Iterator[Any]:
    """The file's tensors, float16, in the table's order.

    Values are uniform: torch makes them of integers, the same on every machine.
    """
    import torch  # noqa: PLC0415 - the tables are of use without it

    generator = torch.Generator().manual_seed(zlib.crc32(weights.name.encode()))
    for key, shape in weights.table().items():
        if not shape or key in weights.constants:
            yield torch.full(shape, weights.constants.get(key, 1.0), dtype=torch.float16)
            continue
        offset, spread = _values(key, shape)
        spread *= next((gain for prefix, gain in weights.gains.items() if key.startswith(prefix)), 1.0)
        uniform = torch.rand(shape, generator=generator).sub_(0.5).mul_(2 * 3**0.5 * spread).add_(offset)
        yield uniform.to(torch.float16)


def _values(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values."""
    if len(shape) == 1:
        return (1.0, 0.1) if key.endswith("weight") else (0.0, 0.1)
    inputs = 1
    for size in shape[1:]:
        inputs *= size
    return 0.0, inputs**-0.5


def _write(path: Path, data: Iterable[bytes]) -> None:
    """The whole file or none: a temporary name beside it, then a rename.

    One process at a time is asked to write here. What another has begun is of a run that was killed: it is removed, and
    that process, where it still goes on, does not disturb this one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as stream:
            stream.writelines(data)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _png(pixels: Callable[[int, int], Sequence[int]], size: int) -> bytes:
    """A PNG of ``size`` by ``size`` RGB pixels. Stored, so that no compressor changes the bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(v for x in range(size) for v in pixels(x, y)) for y in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def _texture(x: int, y: int) -> tuple[int, int, int]:
    return (x * 4 % 256, y * 4 % 256, (x * x + y * y) // 16 % 256)


def _square(x: int, y: int) -> tuple[int, int, int]:
    return (255,) * 3 if 16 <= x < 48 and 16 <= y < 48 else (0,) * 3


INPUTS: Mapping[str, Callable[[int, int], Sequence[int]]] = {
    "patchforge-input.png": _texture,
    "patchforge-mask.png": _square,
}
INPUT_SIZE = 64


def generate(folder: Path, names: Iterable[str] = ()) -> list[Path]:
    """Writes what is missing of the files named, or of all tiny ones; returns the files written.

    KeyError for unknown names.
    """
    wanted = list(names) or [*(weights.name for weights in WEIGHTS), *INPUTS]
    if unknown := [name for name in wanted if name not in _BY_NAME and name not in INPUTS]:
        raise KeyError(*unknown)
    written = []
    for name in wanted:
        path = _place(folder, name)
        if not path.exists():
            _write(path, [_png(INPUTS[name], INPUT_SIZE)] if name in INPUTS else _serialized(_BY_NAME[name]))
            written.append(path)
    return written


def _place(folder: Path, name: str) -> Path:
    return folder / "input" / name if name in INPUTS else folder / "models" / _BY_NAME[name].folder / name


def _serialized(weights: Weights) -> Iterator[bytes]:
    """https://github.com/huggingface/safetensors#format: a length, a header in JSON, the tensors without gaps."""
    header, end = dict[str, Any](), 0
    for key, shape in weights.table().items():
        begin, end = end, end + _SIZE * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for tensor in tensors(weights):
        yield tensor.numpy().tobytes()


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print("usage: weights.py FOLDER [NAME ...]", file=sys.stderr)
        return 2
    try:
        written = generate(Path(arguments[0]), arguments[1:])
    except KeyError as error:
        known = ", ".join([*_BY_NAME, *INPUTS])
        print(f"no file {', '.join(error.args)}; expected one of {known}", file=sys.stderr)
        return 2
    for path in written:
        print(f"{path} {path.stat().st_size}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
