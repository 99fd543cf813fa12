"""Loads the trial's workflows: ``comfyui/NAME.json`` in ComfyUI's API format, with ``comfyui/index.toml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from patchforge import documents
from patchforge.errors import Damaged, PatchforgeError
from patchforge.trial.model import JsonObject, Workflow

FOLDER = Path(__file__).parent / "comfyui"
_INDEX = "index.toml"
_KEYS = frozenset({"title", "computes", "outputs", "weights", "inputs", "dtype"})


def load(name: str | None = None, folder: Path = FOLDER) -> dict[str, Workflow]:
    """All workflows in the index's order, or the one named. PatchforgeError for an unknown name or a broken file."""
    index = _index(folder)
    if name is not None and name not in index:
        raise PatchforgeError(
            f"no workflow is called {name!r}", expected=f"one of {', '.join(index)}", do="name one of these"
        )
    return {known: _workflow(folder, known, index[known]) for known in index if name in {None, known}}


def missing(workflow: Workflow, object_info: Mapping[str, Any]) -> list[str]:
    """The node classes that a release lacks, by the answer of its ``/object_info``; sorted."""
    return sorted(workflow.kinds - object_info.keys())


def _index(folder: Path) -> dict[str, JsonObject]:
    path = folder / _INDEX
    try:
        index: dict[str, JsonObject] = documents.read_toml(path)
    except (OSError, Damaged) as error:
        raise _broken(path, "a table for each workflow", str(error)) from None
    for name, entry in index.items():
        if not isinstance(entry, dict) or not {"title", "computes", "outputs"} <= entry.keys() <= _KEYS:
            found = ", ".join(entry) if isinstance(entry, dict) else repr(entry)
            raise _broken(path, f"[{name}] with title, computes, outputs, and weights and inputs if any", found)
    return index


def _workflow(folder: Path, name: str, entry: JsonObject) -> Workflow:
    path = folder / f"{name}.json"
    try:
        graph = documents.read_json(path, dict[str, Any])
    except (OSError, Damaged) as error:
        raise _broken(path, "a workflow in ComfyUI's API format", str(error)) from None
    _check_graph(path, graph)
    for node in (*entry["computes"], *entry["outputs"]):
        if node not in graph:
            raise _broken(folder / _INDEX, f"nodes of {path.name} in [{name}]", f"node {node}")
    return Workflow(
        name=name,
        title=entry["title"],
        graph=graph,
        computes=entry["computes"],
        outputs=tuple(entry["outputs"]),
        weights=tuple(entry.get("weights", ())),
        inputs=tuple(entry.get("inputs", ())),
        dtype=entry.get("dtype", ""),
    )


def _check_graph(path: Path, graph: Any) -> None:
    """Every node has a class and inputs, and every link leads to a node."""
    if not isinstance(graph, dict) or not graph:
        raise _broken(path, "an object of nodes", type(graph).__name__)
    for key, node in graph.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            raise _broken(path, "a class_type in every node", f"none in node {key}")
        if not isinstance(node.get("inputs"), dict):
            raise _broken(path, "an object of inputs in every node", f"none in node {key}")
        for name, source in _links(node):
            if not isinstance(source, str) or source not in graph:
                raise _broken(path, "links to nodes of the workflow", f"input {name} of node {key} links to {source}")


def _links(node: JsonObject) -> Iterator[tuple[str, object]]:
    """Names of inputs that are links, with the node that each leads to. In the API format only a link is a list."""
    for name, value in node["inputs"].items():
        if isinstance(value, list):
            yield name, value[0] if len(value) == 2 and isinstance(value[1], int) else value


def _broken(path: Path, expected: str, found: str) -> Damaged:
    return Damaged(f"{path} cannot be used", expected=expected, found=found, do="restore the file as it was installed")
