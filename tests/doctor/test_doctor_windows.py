"""Doctor on Windows: what PowerShell tells of a machine, and what is said of it.

The answers are written by hand, as Microsoft documents these classes; none was taken from a real machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from patchforge.commands import doctor as command
from patchforge.commands.doctor import judge
from patchforge.doctor import machine, windows
from patchforge.doctor.facts import Facts, FactState, Finding, MachineFacts
from tests.checkout.places import fill
from tests.doctor.machines import about, fake_torch, interpreter, states
from tests.doctor.test_doctor_command import options
from tests.support import miniature

ARC = r"PCI\VEN_8086&DEV_E20B&SUBSYS_11001849&REV_00\6&1A2B3C4D&0&00080008"
UHD = r"PCI\VEN_8086&DEV_A780&SUBSYS_86941043&REV_04\3&11583659&0&10"
REMOTE = r"SWD\REMOTEDISPLAYENUM\RDPIDD_INDIRECTDISPLAY"
SYSTEM = {
    "Caption": "Microsoft Windows 11 Pro",
    "Version": "10.0.26100",
    "TotalVisibleMemorySize": 33_263_000,
    "FreePhysicalMemory": 20_000_000,
    "SizeStoredInPagingFiles": 8_388_608,
}


def adapter(device: str, name: str, **more: object) -> dict[str, object]:
    usual = {"DriverVersion": "32.0.101.6989", "DriverDate": "2025-08-01", "ConfigManagerErrorCode": 0}
    return {"Name": name, "PNPDeviceID": device, **usual, **more}


B580 = adapter(ARC, "Intel(R) Arc(TM) B580 Graphics")
PLACES = [
    {"InstanceId": ARC.lower(), "KeyName": "DEVPKEY_Device_BusNumber", "Data": 3},
    {"InstanceId": ARC.lower(), "KeyName": "DEVPKEY_Device_Address", "Data": 0},
    {"InstanceId": UHD, "KeyName": "DEVPKEY_Device_BusNumber", "Data": 0},
    {"InstanceId": UHD, "KeyName": "DEVPKEY_Device_Address", "Data": 0x20000},
]
_LARGE = 0x60_0000_0000


def ranges(size: int) -> dict[str, object]:
    """The card's registers, and its window of that size."""
    return {
        "ranges": [
            {"StartingAddress": 0xA000_0000, "EndingAddress": 0xA0FF_FFFF},
            {"StartingAddress": _LARGE, "EndingAddress": _LARGE + size - 1},
        ],
        "owners": [
            {"DeviceID": ARC, "StartingAddress": 0xA000_0000},
            {"DeviceID": ARC, "StartingAddress": _LARGE},
            {"DeviceID": UHD, "StartingAddress": 0x1},
        ],
    }


def told(*gpus: object, **more: object) -> dict[str, Any]:
    return {"told": {"system": SYSTEM, "gpus": list(gpus), "places": PLACES, **ranges(16 << 30), **more}, "why": {}}


def answering(folder: Path, answer: object, *, status: int = 0, loader: bool = True) -> dict[str, str]:
    """A folder of Windows whose PowerShell gives that answer; the environment that names it."""
    program = folder / "System32/WindowsPowerShell/v1.0/powershell.exe"
    fill(folder, {"System32/ze_loader.dll": b""} if loader else {"System32/x": b""})
    text = answer if isinstance(answer, str) else json.dumps(answer)
    fill(program.parent, {"answer": text.encode(), program.name: b""})
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nassert 'Get-CimInstance' in sys.argv[-1]\n"
        f"sys.stdout.write(pathlib.Path(__file__).with_name('answer').read_text())\nraise SystemExit({status})\n"
    )
    program.chmod(0o755)
    return {"SYSTEMROOT": str(folder)}


def examined(tmp_path: Path, answer: object, **how: Any) -> MachineFacts:
    return windows.examine(answering(tmp_path / "Windows", answer, **how), "ann")


def found(seen: MachineFacts) -> list[Finding]:
    return judge(Facts(seen, interpreter()))


def test_a_machine_in_order(tmp_path: Path) -> None:
    remote = adapter(REMOTE, "Microsoft Remote Display Adapter")
    seen = examined(tmp_path, told(B580, adapter(UHD, "Intel(R) UHD Graphics 770"), remote))
    assert [(gpu.address, gpu.device, gpu.integrated) for gpu in seen.gpus] == [
        ("0000:00:02.0", 0xA780, True),
        ("0000:03:00.0", 0xE20B, False),
    ]
    said = states(found(seen))
    assert (said["driver"], said["Level Zero loader"], said["resizable BAR"], said["RAM"]) == (FactState.OK,) * 4
    assert not {"kernel driver", "render node", "OpenCL", "Level Zero driver"} & said.keys()
    assert FactState.WRONG not in said.values()
    (driver,) = [finding.text for finding in found(seen) if finding.subject == "driver" and "B580" in finding.text]
    assert driver == "Intel(R) Arc(TM) B580 Graphics at 0000:03:00.0: 32.0.101.6989 of 2025-08-01"
    assert about(found(seen), "RAM").text == "31.7 GiB, 19.1 GiB available; page file 8.0 GiB"


@pytest.mark.parametrize(
    ("given", "state", "text", "do"),
    [
        ({"ConfigManagerErrorCode": 22}, FactState.WRONG, "it is disabled", "enable it"),
        ({"ConfigManagerErrorCode": 28}, FactState.WRONG, "it has no driver", "install Intel's graphics driver"),
        ({"ConfigManagerErrorCode": 43}, FactState.WRONG, "Windows stopped it", "shut the machine down"),
        ({"ConfigManagerErrorCode": 10}, FactState.WRONG, "problem 10", "look there"),
        ({"Name": "Microsoft Basic Display Adapter"}, FactState.WRONG, "it has no driver", "install"),
        ({"DriverDate": "2024-03-01"}, FactState.WARNING, "older than PyTorch's first", "update it"),
        ({"DriverDate": None, "DriverVersion": None}, FactState.OK, "Windows does not tell", ""),
    ],
)
def test_drivers(given: dict[str, object], state: FactState, text: str, do: str, tmp_path: Path) -> None:
    finding = about(found(examined(tmp_path, told({**B580, **given}))), "driver")
    assert finding.state is state
    assert text in finding.text
    assert do in finding.do


@pytest.mark.parametrize(
    ("more", "state"),
    [
        (ranges(12 << 30), FactState.OK),
        (ranges(256 << 20), FactState.WARNING),
        (ranges(16 << 20), FactState.UNKNOWN),
        ({"ranges": None, "owners": None}, FactState.UNKNOWN),
    ],
)
def test_resizable_bar_by_the_largest_range(more: dict[str, object], state: FactState, tmp_path: Path) -> None:
    assert about(found(examined(tmp_path, told(B580, **more))), "resizable BAR").state is state


def test_without_the_loader_torch_cannot_start(tmp_path: Path) -> None:
    seen = examined(tmp_path, told(B580), loader=False)
    lost = Facts(seen, interpreter(xpu_available=False))
    assert about(judge(lost), "Level Zero loader").do == "install Intel's graphics driver for Windows, which brings it"
    assert "driver, Level Zero loader, variables" in about(judge(lost), "XPU").do


@pytest.mark.parametrize(
    ("answer", "status", "why"),
    [
        ({"told": {}, "why": {"gpus": "Access denied\r\n"}}, 0, "gpus: Access denied"),
        ("", 1, "PowerShell: it told nothing and ended with status 1"),
        ("The term is not recognized", 1, "PowerShell: The term is not recognized"),
        ('{"told": 1}', 0, "PowerShell: "),
    ],
)
def test_what_is_refused_is_unknown(answer: object, status: int, why: str, tmp_path: Path) -> None:
    finding = about(found(examined(tmp_path, answer, status=status)), "GPU")
    assert finding.state is FactState.UNKNOWN
    assert why in finding.text
    assert "Device Manager" in finding.do


def test_no_powershell(tmp_path: Path) -> None:
    seen = windows.examine({"SYSTEMROOT": str(tmp_path)}, "")
    assert "PowerShell: it cannot be started" in about(found(seen), "GPU").text


def test_macos_gets_a_sentence() -> None:
    said = found(MachineFacts(system="darwin", pci=False))
    assert about(said, "GPU").state is FactState.NOT_APPLICABLE
    assert "PyTorch has no XPU build" in about(said, "GPU").text
    assert "RAM" not in states(said)


def test_the_portable_build_is_examined_with_its_own_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "ComfyUI_windows_portable"
    comfyui = fill(place / "ComfyUI", miniature("v0.33.0"))
    (place / "python_embeded").mkdir()
    (place / "python_embeded/python.exe").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (place / "python_embeded/python.exe").chmod(0o755)
    monkeypatch.setattr(machine, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setenv("SYSTEMROOT", answering(tmp_path / "Windows", told(B580))["SYSTEMROOT"])
    monkeypatch.setenv("PYTHONPATH", fake_torch(tmp_path / "site")["PYTHONPATH"])
    monkeypatch.chdir(place)
    command.run(options(Path("/"), python=None, tree=str(comfyui)))
    said = " ".join(capsys.readouterr().out.split())
    assert f"torch: 2.13.0+xpu in {place / 'python_embeded/python.exe'}" in said
    assert "driver: Intel(R) Arc(TM) B580 Graphics at 0000:03:00.0: 32.0.101.6989 of 2025-08-01" in said
    assert "not patched" in said
