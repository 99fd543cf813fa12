"""Workflows with a checkpoint of the user's in place of the generated one, at a size that such models are made for."""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patchforge import bounded, documents
from patchforge.bench.machine import advice, size
from patchforge.bench.suites import WorkflowCase
from patchforge.errors import Damaged, NotChecked, PatchforgeError
from patchforge.paths import not_there
from patchforge.trial.model import Workflow

PIXELS = 512  #: of a side, where none is named
_GENERATED = "patchforge-sd15.safetensors"
_NAME = "patchforge-own.safetensors"  # what trees call it, so that no document has the user's name of it
_OWN = "own model, "
_HEADER = 1 << 26  # bytes
_FLOAT32 = 4  # bytes of a value; the reference is computed so
_GB = 1e9
#: How the parts of a checkpoint begin, by what each is.
_PARTS = {
    "a diffusion model": ("model.diffusion_model.",),
    "a text encoder": ("cond_stage_model.", "conditioner.", "text_encoders."),
    "a VAE": ("first_stage_model.", "vae."),
}


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A checkpoint in safetensors: ``values`` numbers, most of them of ``dtype``; ``pixels`` is width and height."""

    path: Path
    values: int
    dtype: str
    pixels: int

    @property
    def title(self) -> str:
        """What cases say of it: not its name, which is the user's."""
        return f"{_OWN}{self.values / _GB:.2f} billion {self.dtype}, {self.pixels} pixels"

    @property
    def memory(self) -> int:
        """Bytes that its values take in float32."""
        return self.values * _FLOAT32


def read(path: Path, pixels: int) -> OwnModel:
    """What the head of a safetensors file says; no value is read. PatchforgeError for half a checkpoint, or none."""
    if pixels % 64:
        raise PatchforgeError(f"{pixels} pixels cannot be", expected="a multiple of 64", do="such as --pixels 512")
    if not path.exists() or path.is_dir():
        raise not_there(path, "a checkpoint in one .safetensors file", do="name its file")
    tensors = {name: tensor for name, tensor in _header(path).items() if name != "__metadata__"}
    if lacking := [what for what, starts in _PARTS.items() if not any(name.startswith(starts) for name in tensors)]:
        raise PatchforgeError(
            f"{path} is not a whole checkpoint",
            expected="a diffusion model, a text encoder and a VAE in one file",
            found=f"no {', no '.join(part.partition(' ')[2] for part in lacking)}",
            do="name a file that ComfyUI's Load Checkpoint takes",
        )
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        kind, shape = tensor.get("dtype"), tensor.get("shape")
        if (
            not isinstance(kind, str)
            or not isinstance(shape, list)
            or not all(type(n) is int and n >= 0 for n in shape)
        ):
            raise _damaged(path, repr(tensor)[:80])
        sizes[kind] = sizes.get(kind, 0) + math.prod(shape)
    return OwnModel(path.absolute(), sum(sizes.values()), max(sizes, key=lambda kind: sizes[kind])[:20], pixels)


def _header(path: Path) -> Mapping[str, dict[str, Any]]:
    """https://github.com/huggingface/safetensors#format: eight bytes with a length, and that much JSON."""
    with bounded.opened(path) as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= _HEADER:
            raise _damaged(path, f"{length} bytes of header")
        text = stream.read(length)
    try:
        return documents.structured(json.loads(text), dict[str, dict[str, Any]], str(path))
    except (ValueError, RecursionError, Damaged):
        raise _damaged(path, "a header that is not JSON of tensors") from None


def _damaged(path: Path, found: str) -> Damaged:
    return Damaged(
        f"{path} is not a safetensors file", expected="its header", found=found, do="name a .safetensors file"
    )


def is_own(case: str) -> bool:
    """Whether a case of that name had a model of the user's."""
    return f"({_OWN}" in case


def check_memory(model: OwnModel, sides: int, available: int) -> None:
    """NotChecked before the work where the machine has not the memory: ``sides`` servers have the model at once."""
    if available and model.memory * sides > available:
        raise NotChecked(
            "this machine has too little free memory for that model",
            expected=f"{size(model.memory * sides)}: {sides} server{'s' * (sides > 1)} of {size(model.memory)} in fp32",
            found=size(available),
            do=advice("leave --baseline, --precision and --level out" if sides > 1 else "", "name a smaller model"),
        )


def with_model(cases: Iterable[WorkflowCase], model: OwnModel) -> list[WorkflowCase]:
    """The cases that need nothing but a checkpoint and noise, with that model; PatchforgeError where there is none."""
    changed = [
        replace(case, workflow=_changed(case.workflow, model))
        for case in cases
        if case.workflow.weights == (_GENERATED,) and "EmptyLatentImage" in case.workflow.kinds
    ]
    if not changed:
        raise PatchforgeError(
            "no case that was chosen takes a checkpoint alone",
            expected="txt2img-basic, or the suite batch or load",
            do="name one of these, or leave --model out",
        )
    return changed


def _changed(workflow: Workflow, model: OwnModel) -> Workflow:
    graph: dict[str, Any] = copy.deepcopy(dict(workflow.graph))
    for node in graph.values():
        if node["inputs"].get("ckpt_name") == _GENERATED:
            node["inputs"]["ckpt_name"] = _NAME
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"] |= {"width": model.pixels, "height": model.pixels}
    return replace(workflow, name=f"{workflow.name} ({model.title})", graph=graph, weights=())


def beside(weights: Path, model: OwnModel, folder: Path) -> Path:
    """A folder with links to generated files and to the model, as trees take it."""
    for source in sorted(weights.rglob("*")):
        if source.is_file():
            _link(folder / source.relative_to(weights), source)
    _link(folder / "models" / "checkpoints" / _NAME, model.path)
    return folder


def _link(place: Path, source: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(source)
