"""The documentation of the modules' options, as Nix itself knows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchforge import documents, processes, templating
from patchforge.errors import NotChecked, PatchforgeError
from patchforge.nix.emit import string


def options(lib: Path, generated: Path) -> dict[str, list[dict[str, Any]]]:
    """Module system → options: name, type, description, default and example as Nix code.

    ``lib``: the folder of nixpkgs' ``lib``, or of one that is like it. PatchforgeError when Nix is absent or fails.
    """
    document = generated.resolve() / "options-doc.nix"
    expression = f"import (/. + {string(str(document))}) {{ lib = import (/. + {string(str(lib.resolve()))}); }}"
    command = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression]
    try:
        done = processes.run(command, env=processes.environment(allow=processes.NIX), capture_output=True, text=True)
    except FileNotFoundError:
        raise NotChecked("nix-instantiate is not there", expected="Nix", do="install Nix, or nix-bin") from None
    if done.returncode:
        raise PatchforgeError("the options cannot be evaluated", expected="nixpkgs' lib", found=done.stderr.strip())
    return documents.parse_json(done.stdout.encode(), dict[str, list[dict[str, Any]]], "the answer of nix-instantiate")


def markdown(lib: Path, generated: Path) -> str:
    """The page docs/nix-options.md."""
    environment = templating.environment("nix")
    return environment.get_template("options.md.j2").render(options(lib, generated))
