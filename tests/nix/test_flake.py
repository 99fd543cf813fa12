"""The flake as Nix sees it, with a pretended nixpkgs as its input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.nix.sandbox import HERE, LEGACY_COMMIT, Miniature, contract, mock_nixpkgs
from tests.support import ROOT

OUTPUTS = {
    "apps",
    "checks",
    "devShells",
    "formatter",
    "homeManagerModules",
    "homeModules",
    "legacyPackages",
    "lib",
    "nixosModules",
    "overlays",
    "packages",
    "templates",
}


def flake(mini: Miniature, *words: str, project: Path | None = None) -> subprocess.CompletedProcess[str]:
    legacy = mini.network / f"MordragT-nixos-{LEGACY_COMMIT}"
    inputs = ["--override-input", "nixpkgs", f"path:{mini.nixpkgs}", "--override-input", "mordragt", f"path:{legacy}"]
    where = f"path:{project or mini.project}"
    command, *rest = words
    verbs = ["flake", command] if command in {"check", "show"} else [command]
    target, *rest = rest or [""]
    return mini.nix.run("nix", *verbs, where + target, "--no-write-lock-file", *inputs, *rest)


def test_show(mini: Miniature) -> None:
    done = flake(mini, "show", "", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert set(shown) == OUTPUTS
    assert set(shown["packages"]["x86_64-linux"]) == {
        "comfyui-benchmark",
        "comfyui-ipex",
        "comfyui-samplers",
        "comfyui-xpu",
        "comfyui-xpu_0_33_0",
        "default",
        "ipex-benchmark",
        "ollama-ipex",
        "ollama-xpu",
        "patchforge",
        "python-xpu",
    }


#: They need a torch and a release that compute: see test_packages.py.
MEASURING = {"comfyui-benchmark", "ipex-benchmark"}


def test_check_builds_every_check(mini: Miniature) -> None:
    """As ``nix flake check``, which evaluates everything besides."""
    done = flake(mini, "check", "", "--no-build")
    assert done.returncode == 0, done.stderr[-4000:]
    shown = json.loads(flake(mini, "show", "", "--json").stdout)["checks"]["x86_64-linux"]
    assert shown.keys() >= MEASURING
    for name in sorted(shown.keys() - MEASURING):
        built = flake(mini, "build", f"#checks.x86_64-linux.{name}", "--no-link")
        assert built.returncode == 0, (name, built.stderr[-4000:])
    known = [
        line for line in done.stderr.splitlines() if line.startswith("warning:") and "unknown flake output" not in line
    ]
    assert [line for line in known if "not writing modified lock file" not in line] == []


def test_a_program_runs(mini: Miniature, tmp_path: Path) -> None:
    done = flake(mini, "run", "#comfyui-xpu", "--", "--help-gpu")
    assert done.returncode == 0, done.stderr
    assert "Chosen: nothing, because the start would stop: --force-intel-xpu was given" in done.stdout


@pytest.mark.parametrize("name", ["intel-dpcpp", "intel-mkl", "intel-tbb", "python-ipex", "nodes.a-node"])
def test_legacy_packages_and_node_packs_build_by_name(mini: Miniature, name: str) -> None:
    done = flake(mini, "build", f"#{name}", "--no-link")
    assert done.returncode == 0, done.stderr


def test_without_a_lock_the_rest_still_works(mini: Miniature, tmp_path: Path) -> None:
    project = Path(shutil.copytree(mini.project, tmp_path / "project"))
    data = project / "generated/nix/data/torch.json"
    data.write_text(json.dumps({**json.loads(data.read_bytes()), "locks": {}}))
    shown = json.loads(flake(mini, "show", "", "--json", project=project).stdout)
    assert set(shown["packages"]["x86_64-linux"]) == {"comfyui-samplers", "ollama-ipex", "ollama-xpu", "patchforge"}
    for name in ("comfyui-xpu", "default"):
        done = flake(mini, "build", f"#{name}", "--no-link", project=project)
        assert done.returncode != 0
        assert "is not locked for Python" in done.stderr


OVERLAYS = [
    ("overlay", "overlay.comfyui-xpu.name", "comfyui-xpu-0.33.0"),
    ("overlay", "builtins.attrNames overlay.comfyui-xpu-nodes", ["a-node"]),
    ("overlay", "overlay.comfyui-xpu_0_33_0.name", "comfyui-xpu-0.33.0"),
    ("overlay", "overlay.python3.pkgs.torch.version", "2.9"),
    ("overlay-intel-xpu", "overlay.python3.pkgs.torch.version", "2.14.0+xpu"),
    ("overlay-intel-xpu", "overlay.python3.pkgs.triton.version", "3.8.0"),
    ("overlay-intel-xpu", "overlay.ollama-xpu.backend", "vulkan"),
    ("overlay", "builtins.attrNames overlay.intel-xpu", ["comfyui", "ipex", "mkl", "nodes", "ollama", "python"]),
    ("overlay", "overlay.intel-xpu.comfyui.name", "comfyui-xpu-0.33.0"),
]


@pytest.mark.parametrize(("name", "rest", "expected"), OVERLAYS)
def test_overlays(mini: Miniature, name: str, rest: str, expected: object) -> None:
    overlay = f"import {mini.project}/generated/nix/{name}.nix {{ }}"
    expression = f"let overlay = import {mini.nixpkgs} {{ overlays = [ ({overlay}) ]; }}; in {rest}"
    assert mini.nix.evaluate(expression) == expected


def test_the_default_overlay_only_adds(mini: Miniature) -> None:
    overlay = f"import {mini.project}/generated/nix/overlay.nix {{ }}"
    both = f"builtins.intersectAttrs plain (({overlay}) plain plain)"
    expression = f"let plain = import {mini.nixpkgs} {{ }}; in builtins.attrNames ({both})"
    assert mini.nix.evaluate(expression) == []


def test_the_template_is_a_configuration(mini: Miniature) -> None:
    folder = mini.project / "generated/nix"
    expression = (
        f"let pkgs = import {mini.nixpkgs} {{ }}; inherit (pkgs) lib;"
        f" patchforge.lib = import {folder}/unfree.nix {{ inherit lib; }};"
        f" evaluated = lib.evalModules {{ specialArgs = {{ inherit patchforge pkgs; }}; modules = [ {HERE}/stubs.nix"
        f" {folder}/modules/comfyui-xpu.nix {folder}/template/comfyui.nix ]; }};"
        " in { failed = lib.filter (x: !x.assertion) evaluated.config.assertions;"
        " units = lib.attrNames evaluated.config.systemd.services; }"
    )
    assert mini.nix.evaluate(expression) == {"failed": [], "units": ["comfyui-xpu"]}
    text = (folder / "template/flake.nix").read_text()
    assert "patchforge.nixosModules.default" in text
    assert "./comfyui.nix" in text


def test_every_committed_package_evaluates(mini: Miniature, tmp_path: Path) -> None:
    """With the real pins. nixpkgs is taken to have every Python package that is named."""
    data = ROOT / "generated/nix/data"
    torch, comfyui, nodes, python = (
        json.loads((data / f"{name}.json").read_bytes()) for name in ("torch", "comfyui", "nodes", "python")
    )
    wheels = [wheel for lock in torch["locks"].values() for wheel in lock["wheels"]]
    pinned = [version for versions in python.values() for version in versions.values()]
    named = [text for entry in [*comfyui["releases"].values(), *nodes.values()] for text in entry["requirements"]]
    named += [text for entry in [*wheels, *pinned] for text in entry["requires"]]
    others = json.loads((data / "names.json").read_bytes())
    names = {others.get(name, name) for name in (re.split(r"[^a-z0-9-]", text)[0] for text in named)}
    packages = dict.fromkeys(names - python.keys(), "1")
    nixpkgs = mock_nixpkgs(
        tmp_path / "nixpkgs", mini.network, packages=packages, version=torch["versions"][torch["default"]]
    )
    expression = (
        f"let pkgs = import {nixpkgs} {{ }}; inherit (pkgs) lib; s = import {ROOT}/generated/nix {{ inherit pkgs; }};"
        " all = lib.mapAttrs (name: _: s.${name}) s.data.byAttribute"
        " // { inherit (s) comfyui-xpu ollama-xpu python-xpu; } // s.nodes"
        " // { withNodes = s.comfyui-xpu.override { nodePacks = lib.attrValues s.nodes; }; };"
        " in lib.mapAttrs (_: x: [ x.drvPath (builtins.toJSON (x.meta or { })) ]) all"
    )
    evaluated = mini.nix.evaluate(expression)
    assert {"comfyui-xpu", "python-xpu", "withNodes", *nodes} <= evaluated.keys()
    assert len(evaluated) == len(nodes) + len(comfyui["releases"]) + 4


def test_every_committed_node_packs_requirements_are_met(mini: Miniature, tmp_path: Path) -> None:
    """With the real pins and the names that nixpkgs' packages have for Python; any version is taken to do."""
    nodes, names = (json.loads((ROOT / f"generated/nix/data/{name}.json").read_bytes()) for name in ("nodes", "names"))
    assert nodes
    texts = {text for node in nodes.values() for text in node["requirements"]}
    named = {str(names.get(name, name)) for name in (re.split(r"[^a-z0-9-]", text)[0] for text in texts)}
    packages: dict[str, Any] = dict.fromkeys(named | {"packaging"}, "99")
    for package, distribution in contract()["distributions"].items():
        packages[package] = {"version": "99", "dist": distribution}
    packages |= {name: {"version": "99", "requires": ["opencv4"]} for name in named if name.startswith("opencv-")}
    assert "opencv-python" in packages
    nixpkgs = mock_nixpkgs(tmp_path / "nixpkgs", mini.network, packages=packages)
    listed = " ".join(f'"{text}"' for text in sorted(texts))
    everything = (
        f"let pkgs = import {nixpkgs} {{ }}; inherit (pkgs) lib; s = import {ROOT}/generated/nix {{ inherit pkgs; }};"
        " alone = lib.mapAttrsToList (_: node:"
        " (node.override { python-xpu = pkgs.python3; }).tests.requirements.drvPath) s.nodes;"
        f" environment = pkgs.python3.withPackages (ps: [ ps.packaging ] ++ map (s.requirementsOf ps) [ {listed} ]);"
        " in builtins.seq (builtins.toJSON alone) (pkgs.runCommand ''all'' { } ''touch x; ${environment}/bin/python"
        f" ${{{ROOT}/generated/nix/checks/requirements.py}} x ${{lib.escapeShellArgs [ {listed} ]}}; touch $out'')"
    )
    assert mini.nix.build(everything)


def test_the_template_without_a_network(mini: Miniature, tmp_path: Path) -> None:
    """As docs/nixos.md says: nothing is fetched where both inputs are named."""
    page = (ROOT / "docs" / "nixos.md").read_text("utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("nix eval .#nixosConfigurations ")]
    for name in ("flake.nix", "comfyui.nix"):
        text = (ROOT / "generated" / "nix" / "template" / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("git+file:///path/to/patchforge", f"path:{mini.project}"), "utf-8")
    (tmp_path / "empty").mkdir()
    places = {"/path/to/nixpkgs": mini.nixpkgs, "/path/to/empty": tmp_path / "empty", ".#": f"path:{tmp_path}#"}
    for printed, here in places.items():
        line = line.replace(printed, str(here), 1)
    done = mini.nix.run(*line.split(), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["machine"]
