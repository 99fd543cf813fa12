"""The whole command, on a miniature machine and a faked torch."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import pytest

from patchforge import pipeline
from patchforge.commands.doctor import run
from patchforge.doctor import checkout
from patchforge.doctor.facts import Facts, FactState
from patchforge.errors import Exit, PatchforgeError
from patchforge.rules import transforms
from tests.doctor.machines import B580, LIBRARIES, about, fake_torch, interpreter, machine, plug_in, render_node, write
from tests.support import ROOT, MemoryTree, engine_of, miniature, release

MINIATURE = ROOT / "tests" / "miniatures" / "v0.33.0"
RUNTIME = ROOT / "transforms" / "runtime" / "patchforge_xpu"


def options(machine_root: Path, **more: object) -> argparse.Namespace:
    return argparse.Namespace(
        **{"json": False, "python": sys.executable, "root": str(machine_root), "tree": None, **more}
    )


@pytest.fixture
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a machine with a B580 and all that it needs; this process has the faked torch."""
    monkeypatch.setenv("PYTHONPATH", fake_torch(tmp_path / "site")["PYTHONPATH"])
    write(tmp_path / "site", {"torchvision/__init__.py": "__version__ = '0.28.0'"})
    for name in ("ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR", "PATCHFORGE_EMULATE_XPU"):
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / "root"
    gpu = plug_in(place, "0000:03:00.0", "0x8086", "0xe20b", "xe")
    render_node(place, gpu)
    write(place, {f"usr/lib/{name}": "" for name in LIBRARIES})
    write(place, {"proc/sys/kernel/osrelease": "6.17.2\n", "proc/meminfo": "MemTotal: 32000000 kB\n"})
    return place


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict[str, str]]]:
    document: dict[str, list[dict[str, str]]] = json.loads(capsys.readouterr().out)
    return document


def wrong(document: dict[str, list[dict[str, str]]]) -> list[str]:
    return [
        finding["subject"]
        for finding in document["findings"]
        if finding["state"] == "wrong" and finding["subject"] != "Triton"
    ]


def test_the_findings_as_json(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(options(healthy, json=True))
    document = report(capsys)
    assert wrong(document) == []
    assert {"GPU", "kernel driver", "render node", "Level Zero driver", "torch", "xpu:0"} <= {
        finding["subject"] for finding in document["findings"]
    }


def test_what_is_wrong_decides_the_exit_status(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (healthy / "sys/bus/pci/devices/0000:03:00.0/driver").unlink()
    assert run(options(healthy)) == Exit.FAILED
    shown = capsys.readouterr().out
    assert (
        "wrong          kernel driver: Intel Battlemage (Arc B, Arc Pro B) at 0000:03:00.0: no driver is bound" in shown
    )
    assert "to do: load i915 or xe" in shown


def test_a_machine_without_anything_is_not_wrong(
    healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    (empty / "sys/bus/pci/devices").mkdir(parents=True)
    run(options(empty, json=True))
    assert wrong(report(capsys)) == []
    assert healthy.is_dir()


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(PatchforgeError, match="is not a folder"):
        run(options(tmp_path / "nowhere"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An unpatched ComfyUI: a copy of a miniature."""
    return Path(shutil.copytree(MINIATURE, tmp_path / "ComfyUI"))


def judged(folder: Path) -> tuple[FactState, str]:
    facts = Facts(machine(B580), interpreter(), {}, checkout.examine(folder))
    finding = about(list(checkout.findings(facts)), "ComfyUI")
    return finding.state, finding.do


@pytest.fixture(scope="module")
def patched_files() -> dict[str, bytes]:
    """What patching makes of the miniature."""
    patched = pipeline.convert(engine_of(transforms()), release("v0.33.0"), MemoryTree(miniature("v0.33.0")))
    return dict(patched.after)


@pytest.fixture
def patched(tree: Path, patched_files: dict[str, bytes]) -> Path:
    for path, data in patched_files.items():
        (tree / path).parent.mkdir(exist_ok=True)
        (tree / path).write_bytes(data)
    return tree


def test_a_checkout_that_is_patched(patched: Path) -> None:
    state, do = judged(patched)
    assert "no journal" in checkout.examine(patched).says
    assert (state, do) == (FactState.OK, "")  # a copy of apply --to
    (patched / ".git").mkdir()
    state, do = judged(patched)
    assert state is FactState.WARNING
    assert do.startswith(f"patchforge repair {patched} --from ARCHIVE|DIR")


def test_a_checkout_that_calls_the_module_by_hand_is_not_patched(tree: Path) -> None:
    with (tree / "comfy/model_management.py").open("a") as file:
        file.write("\nfrom comfy import patchforge_xpu\n")
    shutil.copytree(RUNTIME, tree / "comfy/patchforge_xpu")
    assert judged(tree)[0] is FactState.WRONG


def test_a_checkout_that_is_patched_in_part(patched: Path) -> None:
    shutil.rmtree(patched / "comfy/patchforge_xpu")
    state, do = judged(patched)
    assert state is FactState.WRONG
    assert do.startswith(f"patchforge repair {patched} --from ARCHIVE|DIR")
    assert do.endswith("puts it back")
    shutil.copytree(MINIATURE, patched, dirs_exist_ok=True)
    shutil.copytree(RUNTIME, patched / "comfy/patchforge_xpu")
    state, do = judged(patched)
    assert state is FactState.WRONG
    assert do.startswith(f"patchforge repair {patched}")
    assert do.endswith("finishes it")


def test_requirements_of_a_checkout_and_its_packs(tree: Path) -> None:
    write(
        tree, {"requirements.txt": "torch\ntorchvision\nnumpy\n", "custom_nodes/a/requirements.txt": "torch==2.1\nx\n"}
    )
    write(tree, {"custom_nodes/b/requirements.txt": "--extra-index-url https://example.org/cu130\ntorch-pack\n"})
    assert checkout.examine(tree).requirements == {
        "requirements.txt": ("torch",),
        "custom_nodes/a/requirements.txt": ("torch==2.1",),
        "custom_nodes/b/requirements.txt": ("--extra-index-url https://example.org/cu130",),
    }


def test_a_folder_without_comfyui(tmp_path: Path) -> None:
    with pytest.raises(PatchforgeError, match="does not hold ComfyUI"):
        checkout.examine(tmp_path)
