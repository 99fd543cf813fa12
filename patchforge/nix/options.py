"""The documentation of the modules' options, as Nix itself knows them, and whatever else is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from patchforge import documents, processes, templating
from patchforge.errors import NotChecked, PatchforgeError
from patchforge.nix.emit import string

_T = TypeVar("_T")


def options(lib: Path, generated: Path) -> dict[str, list[dict[str, Any]]]:
    """Module system → options: name, type, description, default and example as Nix code. Errors as ``evaluated``."""
    return evaluated(lib, generated, "options-doc.nix", dict[str, list[dict[str, Any]]])


def evaluated(lib: Path, generated: Path, name: str, kind: type[_T]) -> _T:
    """The value of a file of ``generated``, a function of ``lib``.

    ``lib``: the folder of nixpkgs' ``lib``, or of one that is like it. PatchforgeError when Nix is absent or fails.
    """
    file = generated.resolve() / name
    expression = f"import (/. + {string(str(file))}) {{ lib = import (/. + {string(str(lib.resolve()))}); }}"
    command = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression]
    try:
        done = processes.run(command, env=processes.environment(allow=processes.NIX), capture_output=True, text=True)
    except FileNotFoundError:
        raise NotChecked("nix-instantiate is not there", expected="Nix", do="install Nix, or nix-bin") from None
    if done.returncode:
        raise PatchforgeError(
            f"{name} cannot be evaluated",
            expected="nixpkgs' lib",
            found=done.stderr.strip(),
            do="name the lib of another nixpkgs",
        )
    return documents.parse_json(done.stdout.encode(), kind, "the answer of nix-instantiate")


def markdown(lib: Path, generated: Path) -> str:
    """The page docs/nix-options.md."""
    environment = templating.environment("nix")
    return environment.get_template("options.md.j2").render(options(lib, generated))
