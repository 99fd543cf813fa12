"""The units of the NixOS modules as files, for a system without Nix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from patchforge.nix.options import evaluated
from patchforge.outputs import OutputKind

UNITS = OutputKind("units of systemd", re.compile(r"[a-z-]+\.(service|timer)"))
_HEAD = "# Made by `patchforge nix --units` of templates/nix/modules. To change a setting: systemctl edit {name}\n"


def units(lib: Path, generated: Path) -> dict[str, bytes]:
    """File name → unit. ``lib`` and ``generated`` as ``options`` takes them; PatchforgeError as it raises."""
    units_of = evaluated(lib, generated, "debian.nix", dict[str, dict[str, Any]])
    files = {f"{name}.service": _service(unit) for name, unit in units_of["services"].items()}
    files |= {f"{name}.timer": _timer(unit) for name, unit in units_of["timers"].items()}
    return {name: (_HEAD.format(name=name) + text).encode() for name, text in sorted(files.items())}


def _service(unit: Mapping[str, Any]) -> str:
    environment = {"Environment": [_quoted(f"{name}={value}") for name, value in sorted(unit["environment"].items())]}
    return _sections(
        Unit={"Description": unit["description"], "After": unit["after"], **unit["unitConfig"]},
        Service={**environment, **unit["serviceConfig"]},
        Install={"WantedBy": unit["wantedBy"]},
    )


def _timer(unit: Mapping[str, Any]) -> str:
    about = {"Description": unit["description"]}
    return _sections(Unit=about, Timer=unit["timerConfig"], Install={"WantedBy": unit["wantedBy"]})


def _sections(**sections: Mapping[str, Any]) -> str:
    texts = {name: "".join(_lines(section)) for name, section in sections.items()}
    return "".join(f"\n[{name}]\n{text}" for name, text in texts.items() if text)


def _lines(section: Mapping[str, Any]) -> Iterator[str]:
    """A list is a setting that may be repeated."""
    for name, value in section.items():
        for item in value if isinstance(value, list) else [value]:
            yield f"{name}={str(item).lower() if isinstance(item, bool) else item}\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
