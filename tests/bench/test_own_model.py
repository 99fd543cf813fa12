"""A checkpoint of the user's own: what its head says, what is refused before the work, and which cases take it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the extra benchmark")

from patchforge.bench import costs, own_model, suites
from patchforge.bench.report import limits, repeat
from patchforge.errors import Damaged, Exit, NotChecked, PatchforgeError
from patchforge.trial.workflows.library import load
from tests.bench.examples import benchmark, case

WHOLE = {
    "model.diffusion_model.a": {"dtype": "F16", "shape": [1000, 1000], "data_offsets": [0, 2]},
    "cond_stage_model.b": {"dtype": "F16", "shape": [], "data_offsets": [2, 4]},
    "first_stage_model.c": {"dtype": "F32", "shape": [7], "data_offsets": [4, 8]},
}


def checkpoint(folder: Path, header: Any = None) -> Path:
    """The head of a safetensors file; nothing reads further."""
    text = json.dumps({"__metadata__": {"a": "b"}, **WHOLE} if header is None else header).encode()
    path = folder / "somebodys.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def test_the_head_says_what_it_is(tmp_path: Path) -> None:
    model = own_model.read(checkpoint(tmp_path), 512)
    assert (model.values, model.dtype, model.memory) == (1_000_008, "F16", 4_000_032)
    assert "somebodys" not in model.title


@pytest.mark.parametrize(
    "data", [b"", b"1234567", b"\xff" * 16, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b"{"]
)
def test_what_is_not_safetensors_is_told(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(Damaged, match="is not a safetensors file"):
        own_model.read(tmp_path / "x", 512)


def test_a_wrong_shape_is_told(tmp_path: Path) -> None:
    wrong = {**WHOLE, "model.diffusion_model.d": {"dtype": "F16", "shape": ["1"]}}
    with pytest.raises(Damaged, match="is not a safetensors file"):
        own_model.read(checkpoint(tmp_path, wrong), 512)


def test_a_part_of_a_checkpoint_and_odd_sizes_are_refused(tmp_path: Path) -> None:
    part = {name: tensor for name, tensor in WHOLE.items() if not name.startswith("first_stage")}
    with pytest.raises(PatchforgeError, match="no VAE"):
        own_model.read(checkpoint(tmp_path, part), 512)
    with pytest.raises(PatchforgeError, match="multiple of 64"):
        own_model.read(checkpoint(tmp_path), 100)


def test_too_little_memory_is_told_in_numbers(tmp_path: Path) -> None:
    model = own_model.read(checkpoint(tmp_path), 512)
    own_model.check_memory(model, 2, 8_000_064)
    own_model.check_memory(model, 2, 0)
    with pytest.raises(NotChecked, match="3 servers"):
        own_model.check_memory(model, 3, 8_000_064)


def test_cases_that_need_a_checkpoint_alone_take_it(tmp_path: Path) -> None:
    model = own_model.read(checkpoint(tmp_path), 768)
    cases = own_model.with_model(suites.of_server(suites.SUITES, load(), quick=False), model)
    assert {case.name.partition(" (")[0] for case in cases} >= {"txt2img-basic", "batch-1", "batch-8", "load-sd15"}
    for measured in cases:
        graph = measured.workflow.graph
        assert "patchforge-sd15.safetensors" not in json.dumps(graph)
        assert {node["inputs"]["width"] for node in graph.values() if node["class_type"] == "EmptyLatentImage"} == {768}
    with pytest.raises(PatchforgeError, match="takes a checkpoint alone"):
        own_model.with_model(suites.of_server(["workflows"], load(), quick=False, names=["upscaling-4x"]), model)


def test_trees_get_links_to_the_model_and_to_what_is_generated(tmp_path: Path) -> None:
    (tmp_path / "weights" / "models" / "vae").mkdir(parents=True)
    (tmp_path / "weights" / "models" / "vae" / "a").write_bytes(b"a")
    path = checkpoint(tmp_path)
    folder = own_model.beside(tmp_path / "weights", own_model.read(path, 512), tmp_path / "all")
    assert (folder / "models/vae/a").read_bytes() == b"a"
    assert (folder / "models/checkpoints/patchforge-own.safetensors").resolve() == path.resolve()


def test_a_report_names_the_option_and_not_the_file(tmp_path: Path) -> None:
    name = f"txt2img-basic ({own_model.read(checkpoint(tmp_path), 512).title})"
    measured = benchmark(case(name))
    assert own_model.is_own(name)
    assert not own_model.is_own("txt2img-basic")
    assert "--model CHECKPOINT" in repeat(measured)
    assert not any("tiny" in line for line in limits(measured))
    with pytest.raises(NotChecked, match="no counts to keep"):
        costs.recorded(measured)


def test_what_is_no_file_is_a_mistake_of_the_command_line(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "is a folder"), (tmp_path / "nothing", "is not there")):
        with pytest.raises(PatchforgeError, match=said) as told:
            own_model.read(path, 512)
        assert told.value.status == Exit.USAGE


def test_one_server_has_nothing_to_leave_out(tmp_path: Path) -> None:
    model = own_model.read(checkpoint(tmp_path), 512)
    with pytest.raises(NotChecked) as told:
        own_model.check_memory(model, 1, 3_000_000)
    assert (told.value.found, told.value.do) == ("3.0 MB", "name a smaller model")
