"""Workflows with generated weights of the size that published models have, at the sizes of pictures they are made for.

The values are random, so pictures are noise: what is real is how much there is to compute, to copy and to hold.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchforge.bench.machine import advice, size
from patchforge.bench.suites import WorkflowCase, scale_pictures
from patchforge.errors import NotChecked, PatchforgeError
from patchforge.trial.model import Workflow
from patchforge.trial.workflows import weights
from patchforge.trial.workflows.weights import REAL, Weights

STEPS = 20
#: The CPU computes that many in float32 to be compared with: all would take it minutes.
COMPARED = 1
_NAMED = " (real size)"
_LEAST, _ONLY = "patchforge-sd15.safetensors", "--workflow txt2img-basic"  #: the smallest, and what needs no other
_FLOAT32 = 4  # bytes of a value
_LARGE, _USUAL = 1024, 512  # pixels of a side
_TOKENS = {"patchforge-sd3.safetensors": 154}  # CLIP's and T5's
_LATENTS = ("EmptyLatentImage", "EmptySD3LatentImage")


def is_real(case: str) -> bool:
    """Whether a case of that name had models of real size."""
    return case.endswith(_NAMED)


def with_real(cases: Iterable[WorkflowCase]) -> list[WorkflowCase]:
    """The cases whose models are all there in real size, with these; PatchforgeError where there is none."""
    changed = [_changed(case) for case in cases if case.workflow.weights and REAL.keys() >= set(case.workflow.weights)]
    if not changed:
        raise PatchforgeError(
            "no case that was chosen has models of real size",
            expected="txt2img-basic, sdxl, dit, img2img-controlnet, upscaling-4x, or the suite batch or load",
            do="name one of these, or leave --size out",
        )
    return changed


def _changed(case: WorkflowCase) -> WorkflowCase:
    workflow = case.workflow
    graph: dict[str, Any] = copy.deepcopy(dict(workflow.graph))
    pixels = _USUAL if any("sd15" in name or "x4" in name for name in workflow.weights) else _LARGE
    for node in [*graph.values()]:
        inputs = node["inputs"]
        for name, value in inputs.items():
            if isinstance(value, str) and value in REAL:
                inputs[name] = REAL[value].name
        if node["class_type"] in _LATENTS:
            inputs |= {"width": pixels, "height": pixels}
        if node["class_type"] == "PatchforgeConditioning":
            inputs["tokens"] = max(inputs["tokens"], *(_TOKENS.get(name, 0) for name in workflow.weights))
        if "steps" in inputs:
            inputs["steps"] = STEPS
    scale_pictures(graph, pixels)
    name = f"{workflow.name}{_NAMED}"
    changed = replace(
        workflow, name=name, graph=graph, weights=tuple(sorted(REAL[given].name for given in workflow.weights))
    )
    return replace(case, workflow=changed, compared=_shortened(changed))


def _shortened(workflow: Workflow) -> Workflow | None:
    """The workflow in fewer steps; None where it has none."""
    graph: dict[str, Any] = copy.deepcopy(dict(workflow.graph))
    sampled = [node["inputs"] for node in graph.values() if "steps" in node["inputs"]]
    for inputs in sampled:
        inputs["steps"] = COMPARED
    return replace(workflow, graph=graph) if sampled else None


def _files(cases: Iterable[WorkflowCase]) -> dict[str, Weights]:
    known = {file.name: file for file in REAL.values()}
    return {name: known[name] for case in cases for name in case.workflow.weights}


def check_memory(cases: Iterable[WorkflowCase], sides: int, available: int) -> None:
    """NotChecked before the work where the machine has not the memory: ``sides`` servers have a workflow's models."""
    needed = max(_FLOAT32 * sum(file.values for file in _files([case]).values()) for case in cases) * sides
    if available and needed > available:
        least = _FLOAT32 * REAL[_LEAST].values
        servers = f"{sides} servers that have" if sides > 1 else "a server that has"
        raise NotChecked(
            "this machine has too little free memory for models of real size",
            expected=f"{size(needed)}: {servers} the largest in float32",
            found=size(available),
            do=advice(
                "leave --baseline, --precision and --level out" if sides > 1 else "",
                f"name a smaller one: {_ONLY}" if least * sides < needed and least <= available else "",
                "close other programs",
            ),
        )


def check_disk(cases: Iterable[WorkflowCase], folder: Path) -> None:
    """NotChecked before the work where ``folder`` has not the room for the files that are not there yet."""
    needed, free = weights.missing(folder, _files(cases)), shutil.disk_usage(folder).free
    if needed > free:
        raise NotChecked(
            f"there is too little room below {folder} for models of real size",
            expected=size(needed),
            found=size(free),
            do=advice(
                "make room",
                "name another folder with PATCHFORGE_CACHE",
                f"name fewer workflows: {_ONLY}" if weights.missing(folder, [REAL[_LEAST].name]) <= free else "",
            ),
        )
