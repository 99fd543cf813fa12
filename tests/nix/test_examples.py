"""The configurations in examples/: accepted without a warning, and their units judged by systemd."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.nix import sandbox
from tests.nix.sandbox import Miniature
from tests.nix.test_docs import GENERATED, NAMES, OTHERS
from tests.nix.test_modules import exposure, needs_systemd, written
from tests.support import ROOT

EXAMPLES = sorted((ROOT / "examples").rglob("*.nix"))
#: What each makes, beside units of nixpkgs.
UNITS = {
    "maintenance": {"comfyui-xpu-maintenance"},
    "monitoring": {"comfyui-xpu-exporter"},
    "production": {
        *("comfyui-xpu-exporter", "comfyui-xpu-health", "comfyui-xpu-maintenance", "comfyui-xpu-recover"),
        "comfyui-xpu-validate",
    },
}


@pytest.fixture(scope="module")
def evaluated(mini: Miniature, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each with the service that it is about, and the real pins."""
    (others := tmp_path_factory.mktemp("examples") / "others.nix").write_text(OTHERS)
    modules = " ".join(f"{GENERATED}/modules/{name}.nix" for name in NAMES)
    expression = f"""
      let
        pkgs = import {mini.nixpkgs} {{ }};
        inherit (pkgs) lib;
        patchforge.lib = import {GENERATED}/unfree.nix {{ inherit lib; }};
        of = file: let
          inherit (lib.evalModules {{
            specialArgs = {{ inherit pkgs patchforge; }};
            modules = [
              {sandbox.HERE}/stubs.nix {others} {modules} file
              {{ services.comfyui-xpu.enable = true; }}
            ];
          }}) config;
        in {{
          failed = map (each: each.message) (lib.filter (each: !each.assertion) config.assertions);
          inherit (config) warnings;
          units = lib.mapAttrs (_: unit: removeAttrs unit [ "path" ]) config.systemd.services;
          timers = lib.attrNames config.systemd.timers;
          hosts = lib.attrNames config.services.nginx.virtualHosts;
        }};
      in {{ {" ".join(f"{file.parent.name} = of {file};" for file in EXAMPLES)} }}
    """
    return dict(mini.nix.evaluate(expression))


def test_each_is_accepted(evaluated: dict[str, Any]) -> None:
    assert evaluated.keys() == UNITS.keys()
    assert {name: (each["failed"], each["warnings"]) for name, each in evaluated.items()} == dict.fromkeys(
        UNITS, ([], [])
    )


def test_each_makes_its_units(evaluated: dict[str, Any]) -> None:
    for name, expected in UNITS.items():
        ours = {unit for unit in evaluated[name]["units"] if unit.startswith("comfyui-xpu-")}
        assert ours == expected, name
    assert evaluated["production"]["hosts"] == ["llm.example.org", "studio.example.org"]
    assert evaluated["maintenance"]["timers"] == ["comfyui-xpu-maintenance"]


@needs_systemd
def test_their_units_are_valid_and_confined(evaluated: dict[str, Any], tmp_path: Path) -> None:
    for name, each in evaluated.items():
        (folder := tmp_path / name).mkdir()
        units = {unit: about for unit, about in each["units"].items() if "ExecStart" in about["serviceConfig"]}
        levels = exposure(folder, units)
        assert levels.keys() == units.keys() >= UNITS[name]
        assert {unit: level for unit, level in levels.items() if level > 1.5} == {}, name
        files = [written(about, folder / f"{unit}.service") for unit, about in units.items()]
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *files],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stderr.splitlines()
        assert [line for line in said if str(folder) in line or "comfyui-xpu" in line] == [], name
