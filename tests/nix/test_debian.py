"""The units for systems without Nix, which are those of the modules, and what Debian's programs say to the examples."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from patchforge.cli import parser
from patchforge.door import settings
from patchforge.nix.units import units
from tests.nix import sandbox
from tests.nix.test_modules import needs_systemd
from tests.support import ROOT

FOLDER = ROOT / "generated" / "systemd"
FILES = {path.name: path.read_text() for path in sorted(FOLDER.glob("comfyui-xpu*"))}
needs_nix = pytest.mark.skipif(bool(sandbox.MISSING), reason=sandbox.MISSING or "-")


@needs_nix
def test_the_units_are_those_of_the_modules() -> None:
    made = units(sandbox.HERE / "mock" / "lib", ROOT / "generated" / "nix")
    assert {name: data.decode() for name, data in made.items()} == FILES


@needs_systemd
def test_they_are_valid_and_confined(tmp_path: Path) -> None:
    for name, text in FILES.items():
        # Programs that are not on this machine.
        (tmp_path / name).write_text(re.sub(r'"/opt/[^"]*"', f'"{shutil.which("true")}"', text))
    files = [str(tmp_path / name) for name in FILES]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "comfyui-xpu" in line] == []
    services = [file for file in files if file.endswith(".service")]
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", *services]
    judged = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    levels = re.findall(r"exposure level for (\S+): ([0-9.]+)", judged)
    assert len(levels) == len(services) == 6
    assert [(name, level) for name, level in levels if float(level) > 1.5] == []


def test_patchforge_takes_their_command_lines() -> None:
    lines = [
        line for text in FILES.values() for line in text.splitlines() if line.startswith('ExecStart="/opt/patchforge')
    ]
    assert len(lines) == 4
    for line in lines:
        parser().parse_args([word.replace("%%", "%") for word in re.findall(r'"([^"]*)"', line)[1:]])


def test_doctor_asks_the_python_that_comfyui_runs_in() -> None:
    """Patchforge's own has no torch, which would be said of every update."""
    (started,) = re.findall(r'^ExecStart="([^"]+)" "/opt/comfyui/main.py"', FILES["comfyui-xpu.service"], re.MULTILINE)
    assert f'"validate" "--python" "{started}" ' in FILES["comfyui-xpu-validate.service"]


def test_the_page_installs_what_they_start() -> None:
    page = (ROOT / "docs" / "debian.md").read_text("utf-8")
    for program in re.findall(r'ExecStart="(/opt/[^"]+)"', "".join(FILES.values())):
        folder = program.rpartition("/bin/")[0]
        assert f"python3 -m venv {folder}\n" in page
    named = set(re.findall(r"comfyui-xpu[a-z.-]*", page)) - {"comfyui-xpu."}
    assert {name.removesuffix(".service") for name in FILES} - named == {
        "comfyui-xpu-maintenance",
        "comfyui-xpu-recover",
    }


def test_the_door_of_the_example_is_one() -> None:
    door = settings.load(ROOT / "examples" / "debian" / "door.toml")
    assert (door.tls is not None, set(door.sites)) == (True, {"comfyui"})


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (prometheus): not installed")
def test_prometheus_takes_the_example(tmp_path: Path) -> None:
    rules = ROOT / "generated" / "monitoring" / "rules.yml"
    text = (ROOT / "examples" / "debian" / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/patchforge.yml", str(rules)))
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
