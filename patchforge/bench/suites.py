"""The suites: which cases each has, and the few of ``--quick``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from patchforge.bench import probe
from patchforge.errors import PatchforgeError
from patchforge.trial.model import Workflow

#: Suites of torch alone, in a process of their own, and those on a release's server.
OF_TORCH = ("tensor", "conv", "sd")
OF_A_SERVER = ("workflows", "batch", "load")
SUITES = (*OF_TORCH, *OF_A_SERVER)
#: What the trial's workflows are called where people measure.
NAMED = {"txt2img": "txt2img-basic", "upscale": "upscaling-4x", "interpolation": "animation-interpolation"}
BATCH = "batch"
IMG2IMG_CONTROLNET = "img2img-controlnet"
_SCALE = "ImageScale"
_ENCODES = 120  #: operations that the encoder of SD 1.5's VAE takes at least
_BATCHES = (1, 2, 4, 8)
_LOADED = {"load-sd15": "txt2img", "load-sdxl": "sdxl", "load-dit": "dit"}
_QUICK = {"txt2img-basic", "upscaling-4x", "batch-2"}


@dataclass(frozen=True, slots=True)
class WorkflowCase:
    """A workflow that is measured; ``cold``: each of its timed runs begins with nothing loaded.

    ``compared`` is what the CPU runs to be compared with, where that is not the workflow itself but less of it.
    """

    suite: str
    workflow: Workflow
    cold: bool = False
    compared: Workflow | None = None

    @property
    def name(self) -> str:
        return self.workflow.name


def of_server(
    suites: Iterable[str], known: Mapping[str, Workflow], *, quick: bool, names: Sequence[str] = ()
) -> list[WorkflowCase]:
    """The cases of the suites that need a server; of the workflows those named, if any are.

    PatchforgeError for a workflow that there is not.
    """
    make: dict[str, Callable[[], list[WorkflowCase]]] = {
        "workflows": lambda: [WorkflowCase("workflows", workflow) for workflow in _workflows(known)],
        "batch": lambda: [WorkflowCase("batch", _batch(known[BATCH], size)) for size in _BATCHES],
        "load": lambda: [
            WorkflowCase("load", replace(known[name], name=called), cold=True) for called, name in _LOADED.items()
        ],
    }
    cases = [case for suite in OF_A_SERVER if suite in suites for case in make[suite]()]
    if quick and not names:
        return [case for case in cases if case.name in _QUICK]
    return _chosen(cases, names, known)


def _chosen(cases: list[WorkflowCase], names: Sequence[str], known: Mapping[str, Workflow]) -> list[WorkflowCase]:
    if not names:
        return cases
    wanted = {NAMED.get(name, name) for name in names}
    if unknown := sorted(wanted - {case.name for case in cases}):
        expected = ", ".join(dict.fromkeys(case.name for case in cases)) or ", ".join(known)
        raise PatchforgeError(
            f"no workflow of these suites is called {unknown[0]!r}", expected=expected, do="name one of these"
        )
    return [case for case in cases if case.name in wanted]


def _workflows(known: Mapping[str, Workflow]) -> list[Workflow]:
    """But for that of batches, which is a suite."""
    called = [replace(workflow, name=NAMED.get(name, name)) for name, workflow in known.items() if name != BATCH]
    return [*called, *([_img2img_controlnet(known["controlnet"])] if "controlnet" in known else [])]


def _img2img_controlnet(controlnet: Workflow) -> Workflow:
    """The ControlNet workflow, begun from its picture instead of from nothing.

    The picture is scaled first. As it is loaded its channels lie innermost: GPUs reorder that for their group norms and
    the CPU does not, so that the first convolutions round in other ways.
    """
    graph: dict[str, Any] = copy.deepcopy(dict(controlnet.graph))
    (empty,) = (name for name, node in graph.items() if node["class_type"] == "EmptyLatentImage")
    (picture,) = (name for name, node in graph.items() if node["class_type"] == "LoadImage")
    (decoder,) = (node for node in graph.values() if node["class_type"] == "VAEDecode")
    (sampler,) = (node for node in graph.values() if node["class_type"] == "KSampler")
    pixels = graph[empty]["inputs"]["width"]
    graph[empty] = {"class_type": "VAEEncode", "inputs": {"pixels": [picture, 0], "vae": decoder["inputs"]["vae"]}}
    sampler["inputs"]["denoise"] = 0.6
    scale_pictures(graph, pixels)
    return replace(
        controlnet,
        name=IMG2IMG_CONTROLNET,
        title="Image to image with a ControlNet",
        graph=graph,
        computes={empty: _ENCODES, **controlnet.computes},
    )


def scale_pictures(graph: dict[str, Any], pixels: int) -> None:
    """Each picture that is loaded is of that width and height before anything else gets it."""
    for loader in [key for key, node in graph.items() if node["class_type"] == "LoadImage"]:
        users = [node for node in graph.values() if [loader, 0] in node["inputs"].values()]
        if any(node["class_type"] != _SCALE for node in users):
            scaled = str(max(map(int, graph)) + 1)
            for node in users:
                node["inputs"] |= {name: [scaled, 0] for name, value in node["inputs"].items() if value == [loader, 0]}
            graph[scaled] = {
                "class_type": _SCALE,
                "inputs": {"image": [loader, 0], "upscale_method": "lanczos", "crop": "disabled"},
            }
            users = [graph[scaled]]
        for node in users:
            node["inputs"] |= {"width": pixels, "height": pixels}


def _batch(workflow: Workflow, size: int) -> Workflow:
    """As the workflow, with ``size`` pictures at once."""
    graph: dict[str, Any] = copy.deepcopy(dict(workflow.graph))
    for node in graph.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"]["batch_size"] = size
    return replace(workflow, name=f"batch-{size}", title=f"{size} pictures at once", graph=graph)


def of_torch(suites: Iterable[str], *, quick: bool) -> list[tuple[str, str]]:
    """Suite and name of the cases of torch alone."""
    wanted = set(suites)
    return [(case.suite, case.name) for case in probe.CASES if case.suite in wanted and (case.quick or not quick)]
