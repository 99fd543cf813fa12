"""Miniature machines: the few files that an examination reads, and a torch that is faked."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

from patchforge.doctor.facts import INTEL, Facts, FactState, Finding, Gpu, InterpreterFacts, MachineFacts, Node

B580 = Gpu("0000:03:00.0", INTEL, 0xE20B, "xe", ("card0", "renderD128"), bar=16 << 30)
A770 = Gpu("0000:03:00.0", INTEL, 0x56A0, "i915", ("card0", "renderD128"), bar=16 << 30)
LUNAR_LAKE = Gpu("0000:00:02.0", INTEL, 0x64A0, "xe", ("card0", "renderD128"), bar=256 << 20)
UHD_630 = Gpu("0000:00:02.0", INTEL, 0x3E98, "i915", ("card0", "renderD128"))
NVIDIA_CARD = Gpu("0000:01:00.0", 0x10DE, 0x2684, "nvidia")
LIBRARIES = {name: f"/usr/lib/{name}" for name in ("libze_loader.so.1", "libze_intel_gpu.so.1", "libigc.so.2")}
ANSWERS: dict[str, Any] = {
    "python": "3.12.1",
    "packages": {"versions": {"torch": "2.13.0+xpu", "triton-xpu": "3.7.2"}, "pins": {}},
    "torch": {"version": "2.13.0+xpu", "xpu": True, "cuda": None, "hip": None},
    "xpu available": True,
    "xpu count": 1,
    "device 0": {
        "name": "Intel(R) Arc(TM) B580 Graphics",
        "total_memory": 12 << 30,
        "fp64": True,
        "bf16": True,
        "matrix": None,
        "integrated": False,
        "driver": "1.6.34666",
        "platform": "Intel(R) Level-Zero",
    },
    "memory 0": [11 << 30, 12 << 30],
    "sums 0": True,
    "arithmetic 0": {"wrong": {}, "do": ""},
    "cuda available": False,
    "numpy": True,
}


def machine(*gpus: Gpu, **more: object) -> MachineFacts:
    """A machine in order, with these GPUs."""
    given: dict[str, object] = {
        "kernel": "6.17.2-1",
        "user": "ann",
        "gpus": gpus,
        "render": (Node("renderD128", usable=True, group="render"),),
        "libraries": LIBRARIES,
        "ram": 32 << 30,
        "available": 20 << 30,
        "swap": 8 << 30,
    }
    return MachineFacts(**{**given, **more})  # type: ignore[arg-type]


def interpreter(errors: dict[str, str] | None = None, **answers: object) -> InterpreterFacts:
    """A torch in order that sees one B580; underscores stand for blanks, and None takes an answer away."""
    given = {**ANSWERS, **{name.replace("_", " "): value for name, value in answers.items()}}
    return InterpreterFacts(
        "/venv/bin/python", {name: answer for name, answer in given.items() if answer is not None}, errors or {}
    )


def facts(*gpus: Gpu, **environment: str) -> Facts:
    return Facts(machine(*gpus), interpreter(), environment)


def states(findings: list[Finding]) -> dict[str, FactState]:
    """Subject → state; of several findings of one subject the worst."""
    order = [FactState.NOT_APPLICABLE, FactState.OK, FactState.UNKNOWN, FactState.WARNING, FactState.WRONG]
    worst: dict[str, FactState] = {}
    for finding in findings:
        worst[finding.subject] = max(
            finding.state, worst.get(finding.subject, FactState.NOT_APPLICABLE), key=order.index
        )
    return worst


def about(findings: list[Finding], subject: str) -> Finding:
    """The only finding of a subject."""
    (finding,) = [finding for finding in findings if finding.subject == subject]
    return finding


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def plug_in(root: Path, address: str, vendor: str, device: str, driver: str = "", *, kind: str = "0x030000") -> Path:
    """Puts a device on the PCI bus; returns its folder in sysfs."""
    folder = root / "sys/bus/pci/devices" / address
    write(folder, {"vendor": vendor + "\n", "device": device + "\n", "class": kind + "\n"})
    if driver:
        drivers = root / "sys/bus/pci/drivers" / driver
        drivers.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(os.path.relpath(drivers, folder))
    return folder


def render_node(root: Path, gpu: Path, name: str = "renderD128") -> None:
    (gpu / "drm" / name).mkdir(parents=True)
    (gpu / "drm" / "card0").mkdir()
    write(root, {f"dev/dri/{name}": ""})


#: A torch of a few lines: what probe.py asks, and nothing else.
TORCH = """
    import os, signal, time

    __version__ = "2.13.0+xpu"

    class version:
        cuda = hip = None

    class _C:
        _has_xpu = True

    class Tensor(list):
        def __add__(self, other): return Tensor(one + other for one in self)
        def sum(self): return Tensor([sum(self)])
        def item(self): return self[0]
        def numpy(self): return memoryview(bytearray(8)).cast("d") and type("Array", (), {"size": 1})

    def ones(count, device="cpu"): return Tensor([1.0] * count)

    class cuda:
        def is_available(): return False

    class xpu:
        def is_available(): return True
        def device_count(): return 1
        def get_device_properties(index):
            return type("Properties", (), {"name": "Imagined Arc", "total_memory": 12 << 30, "has_fp64": False})
        def mem_get_info(index): return 11 << 30, 12 << 30
"""


def fake_torch(folder: Path, more: str = "") -> dict[str, str]:
    """Writes the faked torch and ``more``; returns the environment in which a Python imports it."""
    write(
        folder,
        {
            "torch/__init__.py": textwrap.dedent(TORCH) + textwrap.dedent(more),
            "torch-2.13.0+xpu.dist-info/METADATA": "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+xpu\n",
            "imagined_pack-1.0.dist-info/METADATA": (
                "Metadata-Version: 2.1\nName: Imagined.Pack\nVersion: 1.0\nRequires-Dist: torch==2.9.1\n"
            ),
        },
    )
    return {**os.environ, "PYTHONPATH": str(folder)}
