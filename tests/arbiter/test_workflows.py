"""The workflows in ``examples/ollama``: the form for the editor says what the form for the API does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from patchforge.arbiter.services import follows, texts
from tests.support import ROOT

FOLDER = ROOT / "examples" / "ollama"
NAMES = sorted(path.name.removesuffix(".api.json") for path in FOLDER.glob("*.api.json"))
#: What the editor keeps behind a widget's value: what becomes of a seed, and what a picture was uploaded as.
BEHIND = {"seed": 1, "image": 1}


def as_api(document: dict[str, Any]) -> dict[str, Any]:
    """What the editor sends to ``/prompt``: widgets by name, links by node and output."""
    links = {link[0]: link for link in document["links"]}
    made = {}
    for node in document["nodes"]:
        inputs, values = {}, iter(node["widgets_values"])
        for slot in node["inputs"]:
            value = None
            if "widget" in slot:
                value = next(values)
                for _ in range(BEHIND.get(slot["name"], 0) if slot["type"] in {"INT", "COMBO"} else 0):
                    next(values)
            if slot["link"] is not None:
                number, source, output, target, _, _ = links[slot["link"]]
                assert (number, target) == (slot["link"], node["id"])
                value = [str(source), output]
            if value is not None:
                inputs[slot["name"]] = value
        assert list(values) == []
        made[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return made


def test_there_are_three() -> None:
    assert NAMES == ["list-of-prompts", "picture-described", "prompt-improved"]


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_say_the_same(name: str) -> None:
    graph = json.loads((FOLDER / f"{name}.api.json").read_text())
    document = json.loads((FOLDER / f"{name}.json").read_text())
    assert as_api(document) == graph
    for link in document["links"]:
        source = next(node for node in document["nodes"] if node["id"] == link[1])
        target = next(node for node in document["nodes"] if node["id"] == link[3])
        assert link[0] in source["outputs"][link[2]]["links"]
        assert target["inputs"][link[4]]["link"] == link[0]


def test_the_arbiter_knows_what_they_ask() -> None:
    for name in NAMES:
        graph = json.loads((FOLDER / f"{name}.api.json").read_text())
        assert {"qwen3:4b", "gemma3:4b"} & set(texts(graph)), "the model is named in it"
    graph = json.loads((FOLDER / "list-of-prompts.api.json").read_text())
    prompts = [graph[node]["inputs"]["value"] for node in ("11", "12", "13")]
    assert [follows(graph, prompt) for prompt in prompts] == [True, True, False]


@pytest.mark.parametrize(
    "graph",
    [
        None,
        [],
        {"1": None},
        {"1": {"class_type": "CreateList"}},
        {"1": {"class_type": "CreateList", "inputs": [1]}},
        {"1": {"class_type": "CreateList", "inputs": {"a": [["x"], 0], "b": ["1", 0], "c": {}}}},
    ],
)
def test_a_graph_that_is_none(graph: object) -> None:
    assert not follows(graph, "x")
    assert list(texts(graph)) == []
