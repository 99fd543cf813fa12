"""The Nix code in the documentation: parsed, and evaluated with the modules and the real pins."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.nix import sandbox
from tests.nix.sandbox import Miniature, Nix, contract
from tests.support import ROOT

PAGES = ("nixos.md", "deployment.md", "bot.md")
GENERATED = ROOT / "generated" / "nix"
#: What patchforge.nixosModules.default has.
NAMES = (
    "comfyui-xpu",
    "ollama-xpu",
    "intel-xpu",
    "intel-xpu-share",
    "patchforge-bot",
    "legacy-names",
    "proxy",
    "monitoring",
)
#: Options of NixOS that only examples set.
OTHERS = """
{ lib, ... }:
let any = lib.mkOption { type = lib.types.attrsOf lib.types.raw; default = { }; };
in { options = { security.acme = any; nix.gc = any; services.journald = any; }; }
"""


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text("utf-8")
    return [re.sub("(?m)^ *\n", "", block) for block in re.findall(r"(?ms)^ *```nix\n(.*?)^ *```$", text)]


def written(folder: Path, page: str) -> list[Path]:
    """The blocks of a page as files; files that an example has beside it are there."""
    (folder / "my-node").mkdir()
    for name in ("portrait.json", "configuration.nix", "comfyui.nix"):
        (folder / name).write_text("{ }")
    files = [folder / f"{number}.nix" for number, _ in enumerate(blocks(page))]
    for file, block in zip(files, blocks(page), strict=True):
        # A hash that is left to the reader.
        file.write_text(block.replace("sha256-…", f"sha256-{'A' * 43}="))
    return files


@pytest.mark.parametrize("page", [*PAGES, "nix-options.md"])
def test_nix_code_parses(nix: Nix, page: str, tmp_path: Path) -> None:
    files = written(tmp_path, page)
    assert files
    done = nix.run("nix-instantiate", "--parse", *map(str, files))
    assert (done.returncode, done.stderr) == (0, "")


def evaluation(mini: Miniature, folder: Path, files: list[Path], modules: str) -> str:
    """What assertions say of each file, as a module with what the flake gives."""
    (folder / "others.nix").write_text(OTHERS)
    listed = " ".join(map(str, files))
    return f"""
      let
        pkgs = import {mini.nixpkgs} {{ }};
        inherit (pkgs) lib;
        patchforge = {{
          lib = import {GENERATED}/unfree.nix {{ inherit lib; }};
          homeModules.default = {{ }};
          overlays.default = final: prev: {{ }};
        }};
        failed = file: let
          inherit (lib.evalModules {{
            specialArgs = {{ inherit pkgs patchforge; }};
            modules = [ {sandbox.HERE}/stubs.nix {folder}/others.nix {modules} file ];
          }}) config;
        in map (each: each.message) (lib.filter (each: !each.assertion) config.assertions)
          ++ config.warnings
          ++ map (unit: builtins.seq (builtins.toJSON (removeAttrs unit [ "path" ])) null)
            (lib.attrValues config.systemd.services);
      in lib.filter (each: each != null) (lib.concatMap failed [ {listed} ])
    """


@pytest.mark.parametrize("page", PAGES)
def test_every_example_is_accepted(mini: Miniature, page: str, tmp_path: Path) -> None:
    """Each as a configuration of its own, whole; flakes are tried below."""
    files = [file for file in written(tmp_path, page) if "nixosConfigurations" not in file.read_text()]
    homes = [file for file in files if "programs." in file.read_text()]
    nixos = " ".join(f"{GENERATED}/modules/{name}.nix" for name in NAMES)
    rest = [file for file in files if file not in homes]
    assert len(rest) >= {"nixos.md": 9, "deployment.md": 3, "bot.md": 1}[page]
    assert mini.nix.evaluate(evaluation(mini, tmp_path, rest, nixos)) == []
    if homes:
        assert mini.nix.evaluate(evaluation(mini, tmp_path, homes, f"{GENERATED}/modules/home.nix")) == []


def test_the_flake_from_an_empty_configuration(mini: Miniature, tmp_path: Path) -> None:
    """The page's and the template's, each with the configuration beside it: NixOS gets the service."""
    files = written(tmp_path, "nixos.md")
    example = next(file for file in files if "nixosConfigurations" in file.read_text())
    beside = next(file for file in files if "allowUnfreePredicate = patchforge.lib.allowUnfree;" in file.read_text())
    (tmp_path / "comfyui.nix").write_text(beside.read_text())
    (folder := tmp_path / "template").mkdir()
    for name in ("flake.nix", "comfyui.nix"):
        (folder / name).write_text((GENERATED / "template" / name).read_text())
    (folder / "configuration.nix").write_text("{ }")
    for file in (example, folder / "flake.nix"):
        machine = f"""
          let
            pkgs = import {mini.nixpkgs} {{ }};
            inherit (pkgs) lib;
            nixosSystem = given: lib.evalModules {{
              specialArgs = {{ inherit pkgs; }} // given.specialArgs;
              modules = [ {sandbox.HERE}/stubs.nix ] ++ given.modules;
            }};
            nixpkgs = {{ lib = lib // {{ inherit nixosSystem; }}; outPath = {mini.nixpkgs}; }};
            patchforge = import {GENERATED}/outputs.nix {{ inherit nixpkgs; self = patchforge; }};
            inherit (((import {file}).outputs {{ inherit nixpkgs patchforge; }}).nixosConfigurations.machine) config;
          in {{
            failed = lib.filter (each: !each.assertion) config.assertions;
            units = lib.attrNames config.systemd.services;
            inherit (config.users.groups.render) members;
          }}
        """
        assert mini.nix.evaluate(machine) == {"failed": [], "units": ["comfyui-xpu"], "members": ["alice"]}


def test_what_is_tested_is_counted() -> None:
    listed, text = contract(), (ROOT / "docs/nixos.md").read_text("utf-8")
    given = re.search(
        r"\((\d+) packages and\s+attributes, (\d+) Python packages, (\d+) .+? (\d+) options, (\d+) behaviours", text
    )
    assert given
    counts = [len(listed[kind]) for kind in ("packages", "python", "lib", "options", "behaviours")]
    counts[3] += len(listed["home"])
    assert list(map(int, given.groups())) == counts


def test_the_first_picture_is_a_workflow_with_the_model_that_is_there() -> None:
    text = (ROOT / "docs/nixos.md").read_text("utf-8")
    graph = json.loads(text.partition("/prompt --json '")[2].partition("'\n")[0])["prompt"]
    links = [value for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert {name for name, _ in links} == {"1", "2", "3", "4", "5"}
    assert f'models."checkpoints/{graph["1"]["inputs"]["ckpt_name"]}" =' in text


def test_the_predicate_admits_what_is_unfree(mini: Miniature) -> None:
    """And only that."""
    predicate = f"(import {GENERATED}/unfree.nix {{ inherit (import {mini.nixpkgs} {{ }}) lib; }})"
    names = "[ ''torch'' ''intel-oneapi-runtime'' ''intel-sycl-rt'' ''cuda_nvcc'' ''comfyui-node-supir'' ]"
    admitted = f"map (pname: {predicate}.allowUnfree {{ inherit pname; }}) {names}"
    assert mini.nix.evaluate(admitted) == [True, True, True, False, False]


def test_what_is_unfree_is_listed(mini: Miniature) -> None:
    """Every package of ours whose licence is not free, node packs apart."""
    rest = (
        "let free = x: builtins.all (licence: licence.free or true)"
        " (pkgs.lib.flatten [ (x.meta.license or [ ]) ]);"
        " all = [ s.python-xpu.pkgs.torch s.python-xpu.pkgs.torchvision s.python-xpu.pkgs.torchaudio"
        " s.python-xpu.pkgs.triton s.python-xpu.pkgs.intel-sycl-rt s.intel-oneapi-runtime s.comfyui-xpu s.ollama-xpu ];"
        " in map pkgs.lib.getName (builtins.filter (x: !(free x)) all)"
    )
    listed = mini.nix.evaluate(
        f"(import {GENERATED}/unfree.nix {{ inherit (import {mini.nixpkgs} {{ }}) lib; }}).unfree"
    )
    assert sorted(mini.nix.evaluate(mini.scope(rest))) == sorted(listed)
