"""Generated weights and inputs: the same bytes each time, whole or not there."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from patchforge.trial.workflows import weights

TABLES = {file.name: file.table() for file in weights.WEIGHTS}


def _mebibytes(name: str) -> float:
    total = 0
    for shape in TABLES[name].values():
        size = 1
        for length in shape:
            size *= length
        total += 2 * size
    return total / 2**20


def test_all_files_are_small_together() -> None:
    assert sum(map(_mebibytes, TABLES)) < 1024


def test_the_checkpoint_is_larger_than_a_small_device() -> None:
    """In float32 the UNet alone takes more than what a device of 600 MiB has left for weights."""
    unet = [shape for key, shape in TABLES["patchforge-sd15.safetensors"].items() if key.startswith("model.")]
    assert len(unet) > 100
    assert _mebibytes("patchforge-sd15.safetensors") > 500


def test_controlnet_fits_the_unet() -> None:
    unet = TABLES["patchforge-sd15.safetensors"]
    control = TABLES["patchforge-controlnet.safetensors"]
    shared = {key for key in control if f"model.diffusion_model.{key}" in unet}
    assert all(control[key] == unet[f"model.diffusion_model.{key}"] for key in shared)
    others = {key.split(".")[0] for key in control.keys() - shared}
    assert others == {"input_hint_block", "zero_convs", "middle_block_out"}


def test_lora_fits_its_models() -> None:
    lora, sd15 = TABLES["patchforge-lora.safetensors"], TABLES["patchforge-sd15.safetensors"]
    flat = {
        key.replace("model.diffusion_model.", "lora_unet_")
        .replace("cond_stage_model.transformer.", "lora_te_")
        .removesuffix(".weight")
        .replace(".", "_"): shape
        for key, shape in sd15.items()
    }
    ups = [key.removesuffix(".lora_up.weight") for key in lora if key.endswith(".lora_up.weight")]
    assert len(ups) > 24
    for name in ups:
        assert flat[name] == (lora[f"{name}.lora_up.weight"][0], lora[f"{name}.lora_down.weight"][1])


def test_inputs_are_images_and_are_written_once(tmp_path: Path) -> None:
    names = list(weights.INPUTS)
    written = weights.generate(tmp_path, names)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [f"input/{name}" for name in names]
    assert weights.generate(tmp_path, names) == []
    assert sorted(path.name for path in (tmp_path / "input").iterdir()) == sorted(names)
    image = pytest.importorskip("PIL.Image")
    for path in written:
        opened = image.open(io.BytesIO(path.read_bytes()))
        assert opened.size == (weights.INPUT_SIZE, weights.INPUT_SIZE)
        pixels = weights.INPUTS[path.name](20, 10)
        assert opened.getpixel((20, 10)) == tuple(pixels)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_self: Path, _target: Path) -> None:
        raise OSError("disk")

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(OSError, match="disk"):
        weights.generate(tmp_path, ["patchforge-mask.png"])
    assert list((tmp_path / "input").iterdir()) == []


def test_what_a_killed_run_began_is_removed_and_does_not_disturb(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    begun = tmp_path / "input" / ".patchforge-mask.png.1"
    begun.write_bytes(b"half")
    weights.generate(tmp_path, ["patchforge-mask.png"])
    assert [path.name for path in (tmp_path / "input").iterdir()] == ["patchforge-mask.png"]


def test_unknown_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert weights.main([str(tmp_path), "nothing"]) == 2
    assert "no file nothing; expected one of patchforge-sd15.safetensors" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


SMALL = ("patchforge-rife.safetensors", "patchforge-x4.safetensors")


@pytest.mark.parametrize("name", SMALL)
def test_weights_have_the_same_bytes_each_time(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    load = pytest.importorskip("safetensors.torch").load
    (first,) = weights.generate(tmp_path / "one", [name])
    (second,) = weights.generate(tmp_path / "two", [name])
    data = first.read_bytes()
    assert data == second.read_bytes()
    made = load(data)
    assert {key: tuple(tensor.shape) for key, tensor in made.items()} == TABLES[name]
    assert all(torch.isfinite(tensor).all() for tensor in made.values())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert {entry["dtype"] for entry in header.values()} == {"F16"}
