"""The names of the project's older documents, one by one: each leads to what is used today."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.nix.sandbox import LEGACY_COMMIT, Miniature
from tests.nix.test_modules import evaluator
from tests.support import ROOT

GENERATED = ROOT / "generated" / "nix"
#: Of the flake, as ``nix build .#NAME`` finds them, and what they are called.
PACKAGES = {
    "comfyui-animation": "comfyui-animation",
    "comfyui-controlnet-aux": "comfyui-controlnet-aux",
    "comfyui-ipex": "comfyui-xpu",
    "comfyui-upscaling": "comfyui-upscaling",
    "intel-dpcpp": "intel-dpcpp",
    "intel-mkl": "intel-mkl",
    "ollama-ipex": "ollama-xpu",
    "python-ipex": "python3-env",
}
#: Of the overlay's set, and what they are called.
OVERLAY = {
    "comfyui": "comfyui-xpu",
    "ipex": "python3-env",
    "mkl": "intel-mkl",
    "ollama": "ollama-xpu",
    "python": "python3",
}
FILE = f'{{ path = "vae/x.pt"; url = "https://example.org/x"; hash = "sha256-{"A" * 43}="; credential = "c"; }}'


def downloads(more: str = "") -> str:
    given = f'user = "comfyui-xpu"; credentials.c = "/run/c"; models = {{ autoDownload = [ {FILE} ]; {more} }};'
    return f"services.comfyui-xpu = {{ enable = true; {given} }};"


#: A configuration, and an expression that is true of it.
OPTIONS = {
    "services.ipex.enable": ("services.ipex.enable = true;", "config.hardware.intel-xpu.enable"),
    "services.ipex.devices": (
        'services.ipex = { enable = true; devices = [ "0" "1" ]; };',
        'config.services.comfyui-xpu.device == "0,1" && config.services.ollama-xpu.device == "0,1"',
    ),
    "services.comfyui-ipex": (
        "services.comfyui-ipex = { enable = true; server.port = 9000; };",
        "config.systemd.services ? comfyui-xpu && config.services.comfyui-xpu.server.port == 9000 && noted 2",
    ),
    "services.ollama-ipex": ("services.ollama-ipex.enable = true;", "config.services.ollama.enable && noted 1"),
    **{
        f"optimisation.level {name}": (
            f'services.comfyui-xpu = {{ enable = true; optimisation.level = "{name}"; }};',
            f'said "--xpu-level\\" \\"{short}"',
        )
        for name, short in (("debug", "O0"), ("default", "O1"), ("performance", "O2"), ("experimental", "O3"))
    },
    "optimisation.jitCompile": (
        "services.comfyui-xpu = { enable = true; optimisation.jitCompile = true; };",
        'said "--xpu-enable\\" \\"compile"',
    ),
    "models.autoDownload": (
        downloads(),
        "config.systemd.services.comfyui-xpu-models.serviceConfig.LoadCredential == [ ''c:/run/c'' ]",
    ),
    "models.maxSize": (
        downloads('maxSize = "1G";'),
        "config.systemd.services ? comfyui-xpu-models",
    ),
    "models.cache": (
        downloads('cache = "/mnt/models";'),
        "lib.elem ''\"/mnt/models\"'' config.systemd.services.comfyui-xpu.serviceConfig.BindPaths",
    ),
    "hardware.intel-xpu.tuning.resizableBar": (
        "hardware.intel-xpu = { enable = true; tuning.resizableBar = true; };",
        "config.systemd.services ? intel-xpu-resizable-bar",
    ),
    "hardware.intel-xpu.tuning.kernelParameters": (
        'hardware.intel-xpu = { enable = true; tuning.kernelParameters = [ "a=b" ]; };',
        "config.boot.kernelParams == [ ''a=b'' ]",
    ),
    "hardware.intel-xpu.tuning.governor": (
        'hardware.intel-xpu = { enable = true; tuning.governor = "performance"; };',
        "config.powerManagement.cpuFreqGovernor == ''performance''",
    ),
    "hardware.intel-xpu.tuning.ioScheduler": (
        'hardware.intel-xpu = { enable = true; tuning.ioScheduler = "kyber"; };',
        "lib.hasInfix ''kyber'' config.services.udev.extraRules",
    ),
}
#: The same of Home Manager, below ``/home/alice``.
HOME = {
    "programs.comfyui-xpu.workspace": (
        'programs.comfyui-xpu = { enable = true; workspace = "~/c"; };',
        "config.home.sessionVariables.COMFYUI_DIR == ''/home/alice/c''",
    ),
    "programs.comfyui-xpu.workflows": (
        'programs.comfyui-xpu = { enable = true; workspace = "~/c"; workflows = pkgs.zlib; };',
        'config.home.file ? "/home/alice/c/user/default/workflows"',
    ),
    "programs.comfyui-xpu.modelLinks": (
        'programs.comfyui-xpu = { enable = true; workspace = "~/c"; modelLinks.loras = "~/models/loras"; };',
        'config.home.file ? "/home/alice/c/models/loras"',
    ),
    "programs.comfyui-xpu.development": (
        """programs.comfyui-xpu = {
          enable = true;
          workspace = "~/c";
          development = { enable = true; customNodes.mine = "~/m"; };
        };""",
        'config.home.file ? "/home/alice/c/custom_nodes/mine" && lib.length config.home.packages == 3',
    ),
    "programs.ipex.packages": (
        "programs.ipex = { enable = true; packages = ps: [ ps.torch ]; };",
        "map lib.getName config.home.packages == [ ''python3-env'' ]",
    ),
    "programs.ipex.environment": (
        'programs.ipex = { enable = true; environment.A = "b"; };',
        "config.home.sessionVariables.A == ''b''",
    ),
    "programs.ipex.vscode": (
        "programs.ipex = { enable = true; vscode.enable = true; };",
        "config.programs.vscode.profiles ? default",
    ),
}


@pytest.fixture(scope="module")
def packages(mini: Miniature) -> dict[str, Any]:
    """The committed flake with the pretended nixpkgs; its legacy packages come out of MordragT/nixos in miniature."""
    inputs = (
        f"nixpkgs = {{ lib = import {mini.nixpkgs}/lib; outPath = {mini.nixpkgs}; }}; self = flake;"
        f" mordragt = {mini.network}/MordragT-nixos-{LEGACY_COMMIT};"
    )
    names = "{ " + "".join(f"{name} = null; " for name in PACKAGES) + "}"
    packages_of = mini.nix.evaluate(
        f"let flake = import {GENERATED}/outputs.nix {{ {inputs} }}; inherit (import {mini.nixpkgs} {{ }}) lib;"
        " all = flake.legacyPackages.x86_64-linux // flake.packages.x86_64-linux;"
        f" extended = import {mini.nixpkgs} {{ overlays = [ flake.overlays.default ]; }};"
        " called = lib.mapAttrs (_: x: if lib.isDerivation x then builtins.seq x.drvPath (lib.getName x) else null);"
        f" in {{ flake = called (builtins.intersectAttrs {names} all);"
        " overlay = called (removeAttrs extended.intel-xpu [ ''nodes'' ]);"
        " nodes = lib.attrNames extended.intel-xpu.nodes; }"
    )
    return dict(packages_of)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package(packages: dict[str, Any], name: str) -> None:
    assert packages["flake"][name] == PACKAGES[name]


@pytest.mark.parametrize("name", OVERLAY)
def test_a_package_of_the_overlays_set(packages: dict[str, Any], name: str) -> None:
    assert packages["overlay"][name] == OVERLAY[name]


def test_the_overlays_set_has_every_node_pack_and_nothing_else(packages: dict[str, Any]) -> None:
    assert packages["nodes"] == sorted(json.loads((GENERATED / "data/nodes.json").read_bytes()))
    assert packages["overlay"].keys() == OVERLAY.keys()


def judged(mini: Miniature, cases: dict[str, tuple[str, str]], module: str) -> dict[str, Any]:
    """Whether each configuration is accepted, and its expression true."""
    each = " ".join(
        f'"{name}" = let inherit (evaluate {{ {text} }}) config;'
        " noted = count: lib.length config.warnings == count && lib.all (lib.hasInfix ''renamed'') config.warnings;"
        " said = text: lib.hasInfix text config.systemd.services.comfyui-xpu.serviceConfig.ExecStart;"
        " failed = map (x: x.message) (lib.filter (x: !x.assertion) config.assertions);"
        f" in {{ inherit failed; holds = {expression}; }};"
        for name, (text, expression) in cases.items()
    )
    return dict(mini.nix.evaluate(f"{evaluator(mini, module)} in {{ {each} }}"))


@pytest.fixture(scope="module")
def options(mini: Miniature) -> dict[str, Any]:
    return {**judged(mini, OPTIONS, "nixos"), **judged(mini, HOME, "home")}


@pytest.mark.parametrize("name", [*OPTIONS, *HOME])
def test_an_option(options: dict[str, Any], name: str) -> None:
    assert options[name] == {"holds": True, "failed": []}


def test_the_input_is_locked_and_followed() -> None:
    """By commit in the flake, which the pin decides; a workflow renews the pin."""
    pin = json.loads((ROOT / "upstream/pins/mordragt-nixos.json").read_bytes())
    url = re.search(r'url = "(github:[^"]+)";\n\s+flake = false', (ROOT / "flake.nix").read_text())
    assert url
    assert url[1] == f"github:{pin['owner']}/{pin['repo']}/{pin['rev']}"
    assert "patchforge pin mordragt-nixos" in (ROOT / ".github/workflows/update.yml").read_text()
