"""Which device is chosen, with interpreters that only say what they see, and the variables of a process on it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import emulator
from patchforge.errors import PatchforgeError
from patchforge.trial.model import Device
from patchforge.trial.server import devices
from patchforge.trial.server.devices import available, choose, variables


def interpreter(folder: Path, says: str, status: int = 0) -> Path:
    """A script that answers whatever it is asked."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\nenv > {folder / 'environment'}\necho noise\necho '{says}'\nexit {status}\n")
    script.chmod(0o755)
    return script


def sees(folder: Path, kinds: Sequence[str]) -> Path:
    return interpreter(folder, json.dumps(list(kinds)))


@pytest.mark.parametrize(
    ("kinds", "chosen"),
    [
        (["cuda", "xpu", "mps"], Device("cuda")),
        (["xpu", "mps"], Device("xpu")),
        (["mps"], Device("mps")),
        ([], Device("xpu", devices.PRESET, devices.OPTIONS)),
    ],
)
def test_auto_takes_a_gpu_before_the_emulated_one(tmp_path: Path, kinds: list[str], chosen: Device) -> None:
    assert choose("auto", sees(tmp_path, kinds)) == chosen


def test_auto_takes_the_cpu_where_nothing_else_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_emulator", lambda: None)
    assert choose("auto", sees(tmp_path, [])) == Device("cpu")
    assert choose("auto", sees(tmp_path, ["xpu"])) == Device("xpu")
    with pytest.raises(PatchforgeError, match="not part of the installed package"):
        choose("emulated", sees(tmp_path, []))


def test_a_kind_that_is_there(tmp_path: Path) -> None:
    python = sees(tmp_path, ["cuda", "xpu"])
    assert [choose(kind, python) for kind in ("cuda", "xpu", "cpu")] == [Device("cuda"), Device("xpu"), Device("cpu")]


@pytest.mark.parametrize(("kinds", "found"), [([], "only the CPU"), (["cuda"], "found: cuda")])
def test_a_kind_that_is_not_there(tmp_path: Path, kinds: list[str], found: str) -> None:
    with pytest.raises(PatchforgeError, match=rf"sees no xpu device[\s\S]*{found}[\s\S]*patchforge doctor"):
        choose("xpu", sees(tmp_path, kinds))


def test_emulated_devices(tmp_path: Path) -> None:
    nobody = tmp_path / "nobody"  # an emulated device and the CPU need no answer
    assert choose("emulated", nobody) == Device("xpu", "b580", devices.OPTIONS)
    assert choose("emulated:a770", nobody).emulated == "a770"
    assert str(choose("emulated:two", nobody)) == "emulated:two"
    assert choose("cpu", nobody) == Device("cpu")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu", "no device is called 'gpu'"),
        ("", "no device is called ''"),
        ("xpu:1", "no device is called 'xpu:1'"),
        ("auto:b580", "no device is called 'auto:b580'"),
        ("emulated:gtx", r"no emulated device is called 'gtx'[\s\S]*b580"),
    ],
)
def test_names_that_no_device_has(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(PatchforgeError, match=expected):
        choose(text, sees(tmp_path, ["xpu"]))


@pytest.mark.parametrize(("says", "status"), [("no torch", 0), ("[]", 1), ("", 0)])
def test_an_interpreter_that_gives_no_answer_sees_nothing(tmp_path: Path, says: str, status: int) -> None:
    assert available(interpreter(tmp_path, says, status)) == []
    assert available(tmp_path / "nobody") == []


@pytest.mark.parametrize(
    ("torch", "kinds"),
    [
        ("xpu = cuda = Some", ["cuda", "xpu"]),
        ("mps = xpu = Some; cuda = Nothing", ["xpu", "mps"]),
        ("cuda = Some; xpu = None", ["cuda"]),
        ("cuda = xpu = Nothing", []),
        ("raise OSError('libsycl.so.8 is missing')", []),
    ],
)
def test_what_torch_sees_cuda_first(tmp_path: Path, torch: str, kinds: list[str]) -> None:
    some, nothing = (f"class {name}: is_available = lambda: {name == 'Some'}" for name in ("Some", "Nothing"))
    (tmp_path / "torch.py").write_text(f"{some}\n{nothing}\n{torch}\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert available(python) == kinds


def test_the_interpreter_is_asked_about_real_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(emulator.VARIABLE, "b580")
    assert available(sees(tmp_path, ["xpu"])) == ["xpu"]
    assert emulator.VARIABLE not in (tmp_path / "environment").read_text()


def test_variables() -> None:
    base = {"PATH": "/bin", "PATCHFORGE_CACHE": "/cache", emulator.VARIABLE: "two"}
    assert variables(Device("xpu"), base) == {"PATH": "/bin"}
    alone = {"PATH": "/bin", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    assert variables(Device("cpu"), base) == alone
    emulated = variables(Device("xpu", "a770", "rng=cpu"), base)
    assert emulated == emulator.environment("a770", "rng=cpu", alone)
    assert emulated[emulator.VARIABLE] == "a770"
