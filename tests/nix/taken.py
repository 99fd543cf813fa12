"""What Nix expressions take from nixpkgs, from how Nix prints them: without comments, every selection spelled out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

#: What our own scope gives to its packages; everything else that they ask for is nixpkgs'.
OURS = frozenset(
    {
        *(
            "comfyui-xpu",
            "data",
            "extras",
            "flip-evaluator",
            "maintainers",
            "mordragt",
            "name",
            "names",
            "nodes",
            "ollama-xpu",
            "packs",
            "package",
        ),
        *(
            "patchforge",
            "pin",
            "python",
            "python-xpu",
            "release",
            "requirementsOf",
            "self",
            "torchVersion",
            "version",
            "wheels",
        ),
        *("lib", "pkgs", "system", "wheels"),
    }
)
#: Which variables hold which set, beside ``pkgs`` and ``lib`` themselves.
_PACKAGES = {"pkgs", "final", "prev"}
_PYTHON = {"ps", "python3Packages"}
_NESTED = {"types", "licenses", "sourceTypes", "meta", "trivial", "platforms"}
_SELECTED = re.compile(r"\((\w[\w-]*)\)((?:\.[\w'-]+)+)")
_FORMALS = re.compile(r"\(\{ ([^{}]*) \}(?: @ \w+)?: ")


@dataclass(frozen=True)
class Taken:
    """Names by kind: of ``pkgs``, of Python's packages, of ``lib``."""

    packages: frozenset[str]
    python: frozenset[str]
    lib: frozenset[str]


def taken(printed: Mapping[str, str]) -> Taken:
    """Of files, by name in generated/nix, as ``nix-instantiate --parse`` prints them."""
    by_kind: dict[str, set[str]] = {"packages": set(), "python": set(), "lib": set()}
    for name, text in printed.items():
        for kind, path in _taken(name, text):
            by_kind[kind].add(path)
    return Taken(**{kind: frozenset(paths) for kind, paths in by_kind.items()})


def _taken(name: str, text: str) -> Iterator[tuple[str, str]]:
    if name.startswith("packages/"):
        yield from (("packages", each) for each in formals(text) if each not in OURS)
    python_overlay = name == "packages/torch-xpu.nix"
    for variable, path in _SELECTED.findall(text):
        names = path[1:].split(".")
        if (variable in _PACKAGES and python_overlay) or variable in _PYTHON:
            yield "python", names[0]
        elif variable in _PACKAGES and names[0] not in OURS:
            yield "packages", _known(names, 2 if names[0] in {"stdenv", "testers"} else 1)
        elif variable in {"lib", "types"}:
            full = ["types", *names] if variable == "types" else names
            yield (
                "lib",
                _known(
                    full, 2 if full[0] in {"types", "licenses", "sourceTypes", "meta", "trivial", "platforms"} else 1
                ),
            )
        elif variable in {"stdenv", "addDriverRunpath", "testers"}:
            yield "packages", _known([variable, *names], 2)


def _known(names: list[str], depth: int) -> str:
    return ".".join(names[:depth])


def formals(text: str) -> set[str]:
    """The arguments that the function of a file must be given."""
    first = _FORMALS.match(text)
    if first is None:
        return set()
    each = (text.strip() for text in re.split(r", (?=[\w.-]+(?: \?|,|$))", first[1]))
    return {name for name in each if name != "..." and " ? " not in name}


def printed(lines: str, files: list[Path], folder: Path) -> dict[str, str]:
    """``nix-instantiate --parse`` prints one file to a line."""
    return {file.relative_to(folder).as_posix(): line for file, line in zip(files, lines.splitlines(), strict=True)}
