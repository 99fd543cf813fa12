"""Models of real size: which cases have them, what is checked before, and that ComfyUI takes them for what they are."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from patchforge import cli
from patchforge.bench import real_size, suites
from patchforge.bench.real_size import COMPARED, STEPS
from patchforge.bench.suites import WorkflowCase
from patchforge.commands import test as trials
from patchforge.errors import NotChecked, PatchforgeError
from patchforge.pipeline import write_whole
from patchforge.sources import open_upstream
from patchforge.trial.server.environment import Environment
from patchforge.trial.workflows import weights
from patchforge.trial.workflows.library import load
from patchforge.trial.workflows.weights import REAL

RELEASES = ("v0.33.0", "v0.3.47")
GIB = 1 << 30


def cases(*names: str) -> list[WorkflowCase]:
    known = real_size.with_real(suites.of_server(suites.OF_A_SERVER, load(), quick=False))
    return [case for case in known if not names or case.name.removesuffix(" (real size)") in names]


def inputs(case: WorkflowCase, kind: str) -> list[dict[str, Any]]:
    return [node["inputs"] for node in case.workflow.graph.values() if node["class_type"] == kind]


def test_the_three_kinds_of_model_and_those_that_need_no_other() -> None:
    names = {case.name.removesuffix(" (real size)") for case in cases()}
    assert {"txt2img-basic", "sdxl", "dit", "img2img-controlnet", "upscaling-4x", "batch-8", "load-sdxl"} <= names
    assert not names & {"lora", "wan", "animation-interpolation", "custom-node"}


@pytest.mark.parametrize(("name", "pixels"), [("txt2img-basic", 512), ("sdxl", 1024), ("dit", 1024)])
def test_pictures_and_steps_are_those_that_people_make(name: str, pixels: int) -> None:
    (case,) = cases(name)
    (latent,) = [*inputs(case, "EmptyLatentImage"), *inputs(case, "EmptySD3LatentImage")]
    assert (latent["width"], latent["height"]) == (pixels, pixels)
    (sampler,) = inputs(case, "KSampler")
    assert sampler["steps"] == STEPS
    assert case.compared is not None
    short = {key: node for key, node in case.compared.graph.items() if node["class_type"] == "KSampler"}
    assert [node["inputs"] for node in short.values()] == [{**sampler, "steps": COMPARED}]
    assert case.compared.name == case.workflow.name


def test_every_file_that_a_graph_names_is_one_that_is_made() -> None:
    for case in cases():
        named = {
            value
            for node in case.workflow.graph.values()
            for value in node["inputs"].values()
            if isinstance(value, str) and value.endswith(".safetensors")
        }
        assert named == set(case.workflow.weights)
        assert named <= {file.name for file in REAL.values()}


def test_pictures_are_as_large_as_what_is_made_of_them() -> None:
    (case,) = cases("img2img-controlnet")
    (scaled,) = [key for key, node in case.workflow.graph.items() if node["class_type"] == "ImageScale"]
    assert case.workflow.graph[scaled]["inputs"]["width"] == 512
    users = [key for key, node in case.workflow.graph.items() if [scaled, 0] in node["inputs"].values()]
    assert len(users) == 2  # the ControlNet and the VAE
    (loader,) = [key for key, node in case.workflow.graph.items() if node["class_type"] == "LoadImage"]
    assert [key for key, node in case.workflow.graph.items() if [loader, 0] in node["inputs"].values()] == [scaled]


def test_what_has_no_models_of_real_size_is_refused() -> None:
    with pytest.raises(PatchforgeError, match="no case that was chosen has models of real size"):
        real_size.with_real([WorkflowCase("workflows", load("wan")["wan"])])


def test_too_little_memory_is_told_before_the_work() -> None:
    real_size.check_memory(cases("sdxl"), 2, 30 * GIB)
    real_size.check_memory(cases("sdxl"), 2, 0)  # the system does not say
    with pytest.raises(NotChecked, match="too little free memory") as told:
        real_size.check_memory(cases("sdxl", "txt2img-basic"), 2, 16 * GIB)
    assert told.value.expected == "21.2 GB: 2 servers that have the largest in float32"


def test_too_little_room_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdxl = cases("sdxl")
    needed = 2 * (REAL["patchforge-sdxl.safetensors"].values + REAL["patchforge-taesd-4.safetensors"].values)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": needed - 1}))
    with pytest.raises(NotChecked, match="too little room") as told:
        real_size.check_disk(sdxl, tmp_path)
    assert (told.value.expected, told.value.found) == ("5.3 GB", "5.3 GB")
    file = tmp_path / "models" / "vae" / "patchforge-real-vae-4.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    real_size.check_disk(sdxl, tmp_path)  # what is there already needs no room


def test_it_goes_with_no_model_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "own.safetensors"
    names = ("model.diffusion_model.a", "cond_stage_model.a", "first_stage_model.a")
    header = json.dumps({name: {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]} for name in names}).encode()
    model.write_bytes(len(header).to_bytes(8, "little") + header)
    arguments = ["bench", "run", "v0.33.0", "--device", "cpu", "--size", "real", "--model", str(model)]
    assert cli.main(arguments) != 0
    assert "leave one of them out" in capsys.readouterr().err


def test_it_is_told_apart_from_tiny_models() -> None:
    assert real_size.is_real(cases("sdxl")[0].name)
    assert not real_size.is_real("sdxl")


#: Published figures, in thousand millions of values: the UNets of SD 1.5 and SDXL, SD3 medium with its table of
#: positions, the VAE of SD, ESRGAN.
@pytest.mark.parametrize(
    ("name", "part", "published"),
    [
        ("patchforge-sd15.safetensors", "model.diffusion_model.", 0.8595),
        ("patchforge-sdxl.safetensors", "", 2.5675),
        ("patchforge-sd3.safetensors", "", 2.085),
        ("patchforge-taesd-4.safetensors", "", 0.0837),
        ("patchforge-x4.safetensors", "", 0.0167),
    ],
)
def test_they_are_as_large_as_published_ones(name: str, part: str, published: float) -> None:
    values = sum(math.prod(shape) for key, shape in REAL[name].table().items() if key.startswith(part))
    assert values / 1e9 == pytest.approx(published, rel=0.005)


_DETECT = """
import json, sys
sys.argv = ["main.py", "--cpu"]
for name in ("torchvision", "torchvision.transforms", "torchvision.ops", "torchaudio"):
    # None of these models needs them.
    module = type(sys)(name)
    module.__path__ = []
    module.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec(name, None)
    module.__getattr__ = lambda key: (_ for _ in ()).throw(AttributeError(key)) if key.startswith("__") else object
    sys.modules[name] = module
import comfy.options
comfy.options.enable_args_parsing()
import torch
import comfy.model_detection
from comfy.ldm.models.autoencoder import AutoencoderKL
told = {}
for name, (prefix, shapes) in json.load(sys.stdin).items():
    given = {key: torch.empty(shape, dtype=torch.float16, device="meta") for key, shape in shapes.items()}
    config = comfy.model_detection.model_config_from_unet(given, prefix)
    model = config.get_model(given, prefix, device="meta").diffusion_model
    own = {prefix + key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    ours = {key: shape for key, shape in shapes.items() if key.startswith(prefix)}
    other = sorted(key for key in {*own, *ours} if own.get(key) != ours.get(key))
    told[name] = type(config).__name__, other[:5]
print(json.dumps(told))
"""


@pytest.mark.upstream
@pytest.mark.skipif(
    not (os.environ.get("PATCHFORGE_UPSTREAM") and os.environ.get("PATCHFORGE_COMFYUI_PYTHON")),
    reason="PATCHFORGE_UPSTREAM and PATCHFORGE_COMFYUI_PYTHON are not both set",
)
@pytest.mark.parametrize("release", RELEASES)
def test_comfyui_takes_them_for_what_they_are(tmp_path: Path, release: str) -> None:
    """Its own detection names each model, and the model that it builds has exactly these keys and shapes."""
    with open_upstream(os.environ["PATCHFORGE_UPSTREAM"]) as upstream:
        write_whole(upstream.tree(upstream.resolve(release)), tmp_path)
    expected = {
        "patchforge-sd15.safetensors": ("SD15", "model.diffusion_model."),
        "patchforge-sdxl.safetensors": ("SDXL", ""),
        "patchforge-sd3.safetensors": ("SD3", ""),
    }
    given = {name: (prefix, REAL[name].table()) for name, (_, prefix) in expected.items()}
    ran = subprocess.run(
        [os.environ["PATCHFORGE_COMFYUI_PYTHON"], "-c", _DETECT],
        cwd=tmp_path,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout.splitlines()[-1]) == {name: [kind, []] for name, (kind, _) in expected.items()}


def test_the_tiny_ones_are_what_is_made_when_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_serialized", lambda _: [b""])
    made = {path.name for path in weights.generate(tmp_path)}
    assert made == {*(file.name for file in weights.WEIGHTS), *weights.INPUTS}


def test_what_is_advised_is_not_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(names: tuple[str, ...], free: int) -> NotChecked:
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
        with pytest.raises(NotChecked) as told:
            real_size.check_disk(cases(*names), tmp_path)
        return told.value

    few = refused(("txt2img-basic",), 30_000_000)
    assert few.found == "30.0 MB"
    assert few.do == "make room, or name another folder with PATCHFORGE_CACHE"
    assert "--workflow" not in refused(("sdxl", "txt2img-basic"), 30_000_000).do  # that does not fit either
    assert refused(("sdxl", "txt2img-basic"), 3 * GIB).do.endswith("name fewer workflows: --workflow txt2img-basic")

    def short(names: tuple[str, ...], sides: int, free: int) -> str:
        with pytest.raises(NotChecked) as told:
            real_size.check_memory(cases(*names), sides, free)
        return told.value.do

    assert short(("txt2img-basic",), 1, GIB) == "close other programs"
    assert "--workflow txt2img-basic" in short(("sdxl",), 1, 5 * GIB)
    assert short(("txt2img-basic",), 2, 5 * GIB).startswith("leave --baseline")
    assert "--workflow" not in short(("txt2img-basic",), 2, 5 * GIB)


def test_what_makes_models_and_lacks_memory_is_told(tmp_path: Path) -> None:
    """The system ends it, and it says nothing."""
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    with pytest.raises(NotChecked) as error:
        trials.generated_models(Environment(killed, {}, {}), lambda _: None)
    assert error.value.found == "what makes them was ended by signal 9 (Killed)"
    assert error.value.do == "give it more memory"
