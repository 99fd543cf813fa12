"""The units of ``generated/systemd`` under a real systemd, over a real ComfyUI, patched, on the emulated XPU.

As docs/debian.md sets them up. What is not as there: the emulated device (a drop-in), no front end, no doctor, which
knows that there is no Intel GPU, and how long a hang is waited for. PATCHFORGE_UPSTREAM names a clone,
PATCHFORGE_COMFYUI_PYTHON an interpreter of a venv with the release's requirements; it runs as root only.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emulator import build
from patchforge.cli import main
from patchforge.trial.model import Device
from patchforge.trial.server import devices
from tests.operate import systemd
from tests.operate.systemd import PATCHFORGE, Systemd, at_home, command_of_ours
from tests.support import ROOT

RELEASE = "v0.33.0"
URL = "http://127.0.0.1:8188"
PYTHON = os.environ.get("PATCHFORGE_COMFYUI_PYTHON", "")
_START = 400.0  #: seconds that a start on a busy machine may take
_OURS = ("", "-health", "-recover", "-validate")

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.xdist_group("upstream"),
    pytest.mark.skipif(not os.environ.get("PATCHFORGE_UPSTREAM"), reason="PATCHFORGE_UPSTREAM names no clone"),
    pytest.mark.skipif(not PYTHON, reason="PATCHFORGE_COMFYUI_PYTHON names no interpreter of a venv"),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="this interpreter has no torch"),
    pytest.mark.skipif(bool(build.missing()), reason=build.missing() or ""),
]

#: What runs before the command's ``main``.
_WITHOUT_DOCTOR = """
from patchforge.commands import validate
from patchforge.operate.validation import Check
validate._doctor = lambda *_: Check("doctor", True, "left out: no Intel GPU here")
"""


def _units() -> dict[str, str]:
    """Those of the repository, as they are, and drop-ins."""
    units = {f"comfyui-xpu{name}.service": "" for name in _OURS}
    for name in units:
        units[name] = (ROOT / "generated" / "systemd" / name).read_text()
    interpreters = [Path(PYTHON).resolve().parents[1], Path(sys.base_prefix), Path(sys.prefix), ROOT]
    seen = at_home(interpreters)
    variables = devices.variables(Device("xpu", "b580", devices.OPTIONS), {})
    ours = {name: value for name, value in variables.items() if name.startswith(("PATCHFORGE_", "OMP_", "MKL_"))}
    ours |= {
        "PYTHONPATH": "/opt/emulated/emulator/site",
        "PATCHFORGE_EMULATE_XPU_CACHE": "/var/cache/comfyui-xpu/built",
    }
    (line,) = re.findall("^ExecStart=.*$", units["comfyui-xpu.service"], re.MULTILINE)
    started = f'ExecStart=\n{line} "--front-end-root" "/opt/emulated/front-end"\n'
    emulated = "".join(f'Environment="{name}={value}"\n' for name, value in ours.items())
    log = "StandardOutput=append:/var/log/{0}.log\nStandardError=append:/var/log/{0}.log\n"
    drop_ins = {
        "": emulated + started + "TimeoutStopSec=5\n",
        "-health": (
            "ExecStart=\nExecStart=/opt/patchforge/bin/patchforge health --ready --watch 3 --failures 40 --timeout 3 "
            f"--state /var/lib/comfyui-xpu-watch {URL}\n"
        ),
    }
    for name in _OURS:
        text = f"[Service]\n{drop_ins.get(name, '')}{seen}{log.format('comfyui-xpu' + name)}"
        units[f"comfyui-xpu{name}.service.d/test.conf"] = text
    return units


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """Debian's way up to ``systemctl start comfyui-xpu``, with the pack and the units that watch enabled."""
    if reason := systemd.missing():
        pytest.skip(reason)
    top = tmp_path_factory.mktemp("machine")
    tree = top / "ComfyUI"
    assert main(["apply", RELEASE, "--to", str(tree)]) in (0, 69)  # 69: the clone lacks files that nothing here needs
    (tree / ".venv").mkdir()
    shutil.copytree(ROOT / "emulator", top / "emulated" / "emulator", ignore=shutil.ignore_patterns("__pycache__"))
    (top / "emulated" / "front-end").mkdir()
    (top / "emulated" / "front-end" / "index.html").write_text("")
    binds = {
        "/opt/comfyui": tree,
        "/opt/comfyui/.venv": Path(PYTHON).parents[1],
        "/opt/emulated": top / "emulated",
        PATCHFORGE: command_of_ours(top, _WITHOUT_DOCTOR),
    }
    with Systemd(top, _units(), binds, groups=("render", "video")) as started:
        started.run("systemctl", "start", "comfyui-xpu", check=True)
        started.until(lambda: _looked(started, "--live"), "ComfyUI answers", _START)
        pack = ("health", "--write-pack", "/var/lib/comfyui-xpu/custom_nodes")
        started.run(PATCHFORGE, *pack, check=True)
        started.run("systemctl", "enable", "comfyui-xpu-health", "comfyui-xpu-validate", check=True)
        started.run("systemctl", "restart", "comfyui-xpu", check=True)
        yield started


def _looked(machine: Systemd, probe: str) -> bool:
    """Whether a look is in order. AssertionError where the service ends again and again."""
    restarts = machine.show("comfyui-xpu", "NRestarts")
    assert int(restarts) < 3, machine.run("tail", "-n", "30", "/var/log/comfyui-xpu.log").stdout
    return machine.run(PATCHFORGE, "health", probe, "--timeout", "60", URL).returncode == 0


def _validated(machine: Systemd, before: str = "") -> str:
    """Waits for a validation that passed and is another than ``before``; which."""

    def ended() -> bool:
        names = ("InvocationID", "ActiveState", "Result", "ExecMainStatus")
        known = machine.run("systemctl", "show", *(f"--property={name}" for name in names), "comfyui-xpu-validate")
        told = dict(line.split("=", 1) for line in known.stdout.splitlines())
        assert told["Result"] == "success", machine.run("cat", "/var/log/comfyui-xpu-validate.log").stdout
        new = told["InvocationID"] not in ("", before)
        return new and told["ActiveState"] == "inactive" and told["ExecMainStatus"] == "0"

    machine.until(ended, "comfyui-xpu-validate passes", _START)
    return machine.show("comfyui-xpu-validate", "InvocationID")


def _fresh(machine: Systemd) -> None:
    """The service is as it was: a sample on the device, and somebody who watches."""
    looked = machine.run(PATCHFORGE, "health", "--deep", "--timeout", "120", URL)
    assert (looked.returncode, looked.stdout[:11]) == (0, "ok  fresh: "), looked.stdout + looked.stderr
    machine.until(lambda: machine.show("comfyui-xpu-health", "ActiveState") == "active", "it is watched", 60)
    record = machine.run("sh", "-c", "cat /var/lib/comfyui-xpu-watch/validation-*.json", check=True).stdout
    assert json.loads(record)["ok"] is True


def _back(machine: Systemd, pid: str, began: float) -> float:
    machine.until(lambda: machine.show("comfyui-xpu", "MainPID") not in (pid, "0"), "it is started again", _START)
    machine.until(lambda: _looked(machine, "--ready"), "it is ready", _START)
    return time.monotonic() - began


def test_a_killed_service_comes_back_and_is_validated(
    machine: Systemd, record_property: Callable[[str, object], None]
) -> None:
    before = _validated(machine)
    _fresh(machine)
    pid = machine.show("comfyui-xpu", "MainPID")
    began = time.monotonic()
    machine.run("kill", "-KILL", pid, check=True)
    took = _back(machine, pid, began)
    _validated(machine, before)
    told = {"ready again after": round(took, 1), "validated after": round(time.monotonic() - began, 1)}
    assert machine.show("comfyui-xpu", "NRestarts") == "1"
    _fresh(machine)
    print(told)
    record_property("seconds", told)


def test_one_that_hangs_is_started_again(machine: Systemd, record_property: Callable[[str, object], None]) -> None:
    before = _validated(machine)
    pid = machine.show("comfyui-xpu", "MainPID")
    began = time.monotonic()
    machine.run("kill", "-STOP", pid, check=True)
    took = _back(machine, pid, began)
    _validated(machine, before)
    assert machine.show("comfyui-xpu-recover", "Result") == "success"
    _fresh(machine)
    told = {"ready again after": round(took, 1), "validated after": round(time.monotonic() - began, 1)}
    print(told)
    record_property("seconds", told)
