"""How a ComfyUI was installed: its Python, and what starts it. Known from upstream's own files.

The portable build: ``.ci/windows_*_base_files/*.bat`` in ComfyUI. Comfy Desktop: the sections on data locations in the
READMEs of Comfy-Org/Comfy-Desktop (``ComfyUI-Installs/NAME/ComfyUI`` with a ``.venv``) and of its forerunner
Comfy-Org/desktop (``resources/ComfyUI`` in the program's folder, models and packs in a folder of the user's choice).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from patchforge.paths import quoted

MAIN = "main.py"
_EMBEDDED = "python_embeded"  #: as upstream spells it
_STARTS = ("run_intel_gpu.bat", "run_nvidia_gpu.bat", "run_amd_gpu.bat", "run_cpu.bat")
_VENVS = (".venv", "venv", "env")
_INTERPRETERS = ("bin/python", "Scripts/python.exe")
_INSTALLS, _RESOURCES = "ComfyUI-Installs", "resources"


class Way(StrEnum):
    """How it was installed; the text goes on from "this is"."""

    PORTABLE = "the portable build for Windows"
    DESKTOP = "an installation of Comfy Desktop"
    APP = "the ComfyUI inside of the desktop application"
    OTHER = "a folder with ComfyUI"


@dataclass(frozen=True, slots=True)
class Installation:
    """One ComfyUI. ``python`` is None where its interpreter is not in a usual place."""

    comfyui: Path
    way: Way
    python: Path | None = None
    start: str = ""  #: a command line, or what to do


def of(comfyui: Path) -> Installation:
    """What is known of the ComfyUI in a folder. Reads names only."""
    home = Path(os.path.abspath(comfyui))  # noqa: PTH100 - links stay, as the user calls it
    embedded = home.parent / _EMBEDDED / "python.exe"
    if embedded.is_file():
        return Installation(comfyui, Way.PORTABLE, embedded, _portable(home, embedded))
    python = next(_interpreters(home), None)
    if home.parent.parent.name == _INSTALLS:
        return Installation(comfyui, Way.DESKTOP, python, "start it in Comfy Desktop, as ever")
    if home.parent.name.lower() == _RESOURCES and home.name == "ComfyUI":
        return Installation(comfyui, Way.APP, python, "start the desktop application, as ever")
    name = quoted(python) if python else "python"
    more = "" if python else ", with the Python that you use for it"
    return Installation(comfyui, Way.OTHER, python, f"{name} {quoted(comfyui / MAIN)}{more}")


def is_portable(folder: Path) -> bool:
    """Whether a folder is the one that the portable build unpacks to."""
    return (folder / _EMBEDDED).is_dir()


def is_data(names: set[str]) -> bool:
    """Whether these are the names in the folder where the desktop application keeps models, packs and pictures."""
    return {"custom_nodes", "models", "user"} <= names and not {"comfy", MAIN} & names


def desktop() -> Iterator[Path]:
    """Where the desktop applications of this user have ComfyUI itself."""
    local = os.environ.get("LOCALAPPDATA")
    programs = sorted(Path(local, "Programs").glob(f"*/{_RESOURCES}/ComfyUI")) if local else []
    installs = [Path(local, "Comfy-Desktop", _INSTALLS)] if local else []
    mac = Path("/Applications/ComfyUI.app/Contents/Resources/ComfyUI")
    for folder in (*installs, Path.home() / _INSTALLS):
        yield from sorted(folder.glob("*/ComfyUI"))
    yield from (installed for installed in (*programs, mac) if installed.is_dir())


def _portable(home: Path, embedded: Path) -> str:
    if start := next((home.parent / name for name in _STARTS if (home.parent / name).is_file()), None):
        return quoted(start)
    return f"{quoted(embedded)} -s {quoted(home / MAIN)} --windows-standalone-build"


def _interpreters(home: Path) -> Iterator[Path]:
    """Of virtual environments in ComfyUI's folder, and beside it."""
    for place in (home, home.parent):
        for venv in _VENVS:
            yield from (file for name in _INTERPRETERS if (file := place / venv / name).exists())
