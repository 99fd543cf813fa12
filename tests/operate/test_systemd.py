"""Units of ``generated/systemd`` under a real systemd: what they are let to, they reach, and nothing else.

ComfyUI itself is a shell that waits; over a real one, test_systemd_upstream.py has them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operate import systemd
from tests.operate.systemd import PATCHFORGE, Systemd, at_home, command_of_ours
from tests.support import ROOT

_WAITS = (
    """ExecStart=/bin/sh -c "mkdir -p $$0/output; touch -d '200 days ago' $$0/output/old.png; """
    """touch $$0/output/new.png; touch $$0-watch/mine && echo wrote; exec sleep 3600" /var/lib/{0}"""
)


def _units() -> dict[str, str]:
    """Two ComfyUIs, of two users that systemd makes, the second as an instance is; one exporter for both."""
    folder = ROOT / "generated" / "systemd"
    seen = at_home([Path(sys.base_prefix), Path(sys.prefix), ROOT])
    units = {}
    for name in ("comfyui-xpu", "comfyui-xpu-second"):
        for kind in ("", "-maintenance"):
            text = (folder / f"comfyui-xpu{kind}.service").read_text().replace("comfyui-xpu", name)
            units[f"{name}{kind}.service"] = text
        main = units[f"{name}.service"]
        (starts,) = re.findall(r"^ExecStart=.*$", main, re.MULTILINE)
        units[f"{name}.service"] = main.replace(starts, _WAITS.format(name))
    exporter = (folder / "comfyui-xpu-exporter.service").read_text()
    binds = "".join(
        f"BindReadOnlyPaths=-/var/lib/private/comfyui-xpu-second{kind}\n" for kind in ("-watch", "")
    )  # as the module of NixOS has them
    units["comfyui-xpu-exporter.service"] = exporter.replace("[Service]\n", f"[Service]\n{binds}").replace(
        '"--state"', '"--disk" "/var/lib/comfyui-xpu-second" "--state" "/var/lib/comfyui-xpu-second-watch" "--state"'
    )
    for name in list(units):
        log = f"/var/log/{name.removesuffix('.service')}.log"
        out = f"StandardOutput=append:{log}\nStandardError=append:{log}\n"
        units[f"{name}.d/test.conf"] = f"[Service]\n{seen}{out}"
    return units


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    if reason := systemd.missing():
        pytest.skip(reason)
    top = tmp_path_factory.mktemp("machine")
    binds = {PATCHFORGE: command_of_ours(top)}
    with Systemd(top, _units(), binds, groups=("render", "video")) as started:
        for name in ("comfyui-xpu", "comfyui-xpu-second", "comfyui-xpu-exporter"):
            started.run("systemctl", "start", name, check=True)
        yield started


def _metrics(machine: Systemd) -> str:
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9188/metrics').read().decode())"
    return machine.run(sys.executable, "-c", ask).stdout


def test_records_and_disks_of_two_users_are_told(machine: Systemd) -> None:
    """Upkeep removes what is old, in its own ComfyUI's folder, and the exporter reads what both wrote down."""
    machine.until(lambda: "patchforge_exporter_info" in _metrics(machine), "the exporter answers", 120)
    for name in ("comfyui-xpu", "comfyui-xpu-second"):
        place = f"/var/lib/private/{name}/output"
        machine.until(lambda place=place: "new.png" in machine.run("ls", place).stdout, "ComfyUI has its folders", 60)  # type: ignore[misc]
        machine.run("systemctl", "start", f"{name}-maintenance", check=True)
        assert machine.run("ls", place).stdout.split() == ["new.png"], machine.run("cat", f"/var/log/{name}.log").stdout
        assert "wrote" not in machine.run("cat", f"/var/log/{name}.log").stdout
        assert machine.run("stat", "-c", "%a", f"/var/lib/private/{name}").stdout.strip() == "700"
    told = _metrics(machine)
    for name in ("comfyui-xpu", "comfyui-xpu-second"):
        assert f'patchforge_maintenance_ok{{state="/var/lib/{name}-watch"}} 1.0' in told, told
        assert re.search(rf'patchforge_filesystem_avail_bytes{{path="/var/lib/{name}"}} [1-9]', told), told
    seen = machine.run("systemctl", "show", "--property=MainPID", "--value", "comfyui-xpu-exporter").stdout.strip()
    inside = ["nsenter", f"--target={seen}", "--mount", "--setuid=65534", "--setgid=65534"]
    refused = machine.run(*inside, "ls", "/var/lib/comfyui-xpu-second/output")
    assert "Permission denied" in refused.stderr, json.dumps([refused.stdout, refused.stderr])
