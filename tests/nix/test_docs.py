"""The Nix code in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.nix import sandbox
from tests.nix.sandbox import Miniature, Nix
from tests.support import ROOT

PAGES = ("nixos.md", "deployment.md", "bot.md", "nix-options.md")


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text("utf-8")
    return [re.sub("(?m)^ *\n", "", found) for found in re.findall(r"(?ms)^ *```nix\n(.*?)^ *```$", text)]


@pytest.mark.parametrize("page", PAGES)
def test_nix_code_parses(nix: Nix, page: str, tmp_path: Path) -> None:
    found = blocks(page)
    assert found
    for number, block in enumerate(found):
        file = tmp_path / f"{number}.nix"
        file.write_text(block if page != "nixos.md" else block.replace("{\n  imports", "{ patchforge }:\n{\n  imports"))
        done = nix.run("nix-instantiate", "--parse", str(file))
        assert (done.returncode, done.stderr) == (0, ""), block


@pytest.mark.parametrize("page", ["nixos.md", "deployment.md", "bot.md"])
def test_services_in_the_documentation_are_accepted(mini: Miniature, page: str, tmp_path: Path) -> None:
    """With the real pins. Other options of NixOS are left out."""
    services = [block for block in blocks(page) if "services." in block and "programs." not in block]
    assert services
    modules = ROOT / "generated" / "nix" / "modules"
    for number, block in enumerate(services):
        file = tmp_path / f"{number}.nix"
        file.write_text(block)
        expression = (
            f"let pkgs = import {mini.nixpkgs} {{ }}; inherit (pkgs) lib; block = import {file};"
            " arguments = { inherit lib pkgs; config = { }; patchforge = { }; };"
            " given = if lib.isFunction block then block arguments else block;"
            " isOurs = name: lib.hasSuffix ''-xpu'' name || name == ''patchforge-bot'';"
            " ours = lib.filterAttrs (name: _: isOurs name) (given.services or { });"
            " services = lib.mapAttrs (_: service: { enable = true; } // service) ours;"
            " evaluated = lib.evalModules { specialArgs = { inherit pkgs; };"
            f" modules = [ {sandbox.HERE}/stubs.nix {modules}/comfyui-xpu.nix {modules}/ollama-xpu.nix"
            f" {modules}/patchforge-bot.nix"
            " { inherit services; } ]; };"
            " in map (x: x.message) (lib.filter (x: !x.assertion) evaluated.config.assertions)"
        )
        assert mini.nix.evaluate(expression) == []
