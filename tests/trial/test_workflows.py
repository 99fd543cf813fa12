"""The workflows that are there are whole; broken ones are refused with what was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchforge.errors import PatchforgeError
from patchforge.trial.workflows import library, weights

ALL = library.load()
NODE = '"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}'
SAVE = '"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}'
INDEX = '[one]\ntitle = "One"\ncomputes = { "1" = 3 }\noutputs = ["2"]\n'
FILE_INPUTS = {
    "ckpt_name", "unet_name", "vae_name", "control_net_name", "lora_name", "model_name", "image"
}  # fmt: skip


def _folder(at: Path, graph: str = f"{{{NODE}, {SAVE}}}", index: str = INDEX) -> Path:
    (at / "index.toml").write_text(index)
    (at / "one.json").write_text(graph)
    return at


def test_index_names_every_file() -> None:
    assert set(ALL) == {path.stem for path in library.FOLDER.glob("*.json")}


@pytest.mark.parametrize("name", ALL)
def test_files_of_a_workflow_are_generated(name: str) -> None:
    workflow = ALL[name]
    named = {
        value
        for node in workflow.graph.values()
        for key, value in node["inputs"].items()
        if key in FILE_INPUTS and isinstance(value, str)
    }
    assert named == {*workflow.weights, *workflow.inputs}
    assert set(workflow.weights) <= {file.name for file in weights.WEIGHTS}
    assert set(workflow.inputs) <= set(weights.INPUTS)


@pytest.mark.parametrize("name", ALL)
def test_outputs_are_the_nodes_that_save_and_something_is_counted(name: str) -> None:
    workflow = ALL[name]
    saves = {key for key, node in workflow.graph.items() if node["class_type"].startswith("Save")}
    assert set(workflow.outputs) == saves != set()
    assert workflow.computes
    assert min(workflow.computes.values()) > 0


@pytest.mark.parametrize("name", ALL)
def test_no_step_is_halfway_between_two_timesteps(name: str) -> None:
    """There the last bit of a logarithm decides which of them the model is given, and each device has its own."""
    for node in ALL[name].graph.values():
        if node["class_type"] != "KSampler" or node["inputs"]["scheduler"] != "normal":
            continue
        steps = int(node["inputs"]["steps"] / node["inputs"]["denoise"])
        timesteps = [999 * step / max(1, steps - 1) for step in range(steps)]
        assert not [timestep for timestep in timesteps if 0.4 < timestep % 1 < 0.6]


def test_every_generated_file_has_a_workflow() -> None:
    used = {name for workflow in ALL.values() for name in (*workflow.weights, *workflow.inputs)}
    assert used == {*(file.name for file in weights.WEIGHTS), *weights.INPUTS}


def test_one_by_name(tmp_path: Path) -> None:
    loaded = library.load("one", _folder(tmp_path))
    assert list(loaded) == ["one"]
    assert (loaded["one"].computes, loaded["one"].outputs, loaded["one"].weights) == ({"1": 3}, ("2",), ())


def test_unknown_name() -> None:
    with pytest.raises(PatchforgeError, match=r"no workflow is called 'nothing'[\s\S]*txt2img"):
        library.load("nothing")


def test_missing_classes() -> None:
    info = dict.fromkeys(ALL["interpolation"].kinds - {"FrameInterpolate", "KSampler"})
    assert library.missing(ALL["interpolation"], info) == ["FrameInterpolate", "KSampler"]


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ("{", "one.json"),
        ("[]", "list"),
        ('{"1": 3}', "none in node 1"),
        ('{"1": {"class_type": "LoadImage"}}', "an object of inputs in every node"),
        (f"{{{SAVE}}}", "input images of node 2 links to 1"),
        (f'{{{NODE}, "2": {{"class_type": "SaveImage", "inputs": {{"images": ["1"]}}}}}}', r"links to \['1'\]"),
        (f"{{{NODE}}}", "node 2"),
    ],
)
def test_broken_graph(tmp_path: Path, graph: str, found: str) -> None:
    with pytest.raises(PatchforgeError, match=found):
        library.load(folder=_folder(tmp_path, graph))


@pytest.mark.parametrize(
    "index", ["one = 3", "[one]\ntitle = 'One'", INDEX + "colour = 3\n", INDEX.replace("one", "other"), "["]
)
def test_broken_index(tmp_path: Path, index: str) -> None:
    with pytest.raises(PatchforgeError, match="cannot be used"):
        library.load(folder=_folder(tmp_path, index=index))
