"""How a ComfyUI was installed, and what starts it: laid out as upstream's portable build and applications do."""

from pathlib import Path

import pytest

from patchforge.checkout import installation
from patchforge.checkout.installation import Way
from patchforge.checkout.place import FolderKind, where
from tests.checkout.places import fill

COMFYUI = {"main.py": b"", "comfy/model_management.py": b""}
LAYOUTS: dict[str, tuple[str, dict[str, bytes], Way, str, str]] = {
    "portable for Intel": (
        "portable/ComfyUI",
        {"portable/python_embeded/python.exe": b"", "portable/run_intel_gpu.bat": b"", "portable/run_cpu.bat": b""},
        Way.PORTABLE,
        "portable/python_embeded/python.exe",
        "portable/run_intel_gpu.bat",
    ),
    "portable without": (
        "portable/ComfyUI",
        {"portable/python_embeded/python.exe": b""},
        Way.PORTABLE,
        "portable/python_embeded/python.exe",
        "portable/python_embeded/python.exe -s {home}/main.py --windows-standalone-build",
    ),
    "Comfy Desktop": (
        "Comfy-Desktop/ComfyUI-Installs/ComfyUI/ComfyUI",
        {"Comfy-Desktop/ComfyUI-Installs/ComfyUI/ComfyUI/.venv/Scripts/python.exe": b""},
        Way.DESKTOP,
        "Comfy-Desktop/ComfyUI-Installs/ComfyUI/ComfyUI/.venv/Scripts/python.exe",
        "start it in Comfy Desktop, as ever",
    ),
    "the older application": (
        "Programs/ComfyUI/resources/ComfyUI",
        {},
        Way.APP,
        "",
        "start the desktop application, as ever",
    ),
    "a clone": (
        "ComfyUI",
        {"ComfyUI/venv/bin/python": b""},
        Way.OTHER,
        "ComfyUI/venv/bin/python",
        "ComfyUI/venv/bin/python {home}/main.py",
    ),
    "no environment": (
        "ComfyUI",
        {},
        Way.OTHER,
        "",
        "python {home}/main.py, with the Python that you use for it",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_starts_it(name: str, tmp_path: Path) -> None:
    home, files, way, python, start = LAYOUTS[name]
    fill(tmp_path, {**files, **{f"{home}/{path}": data for path, data in COMFYUI.items()}})
    started = installation.of(tmp_path / home)
    assert started.way is way
    assert started.python == (tmp_path / python if python else None)
    text = start.format(home=tmp_path / home)
    assert started.start == (f"{tmp_path}/{text}" if "/" in text.split()[0] else text)


def test_the_folder_of_models_and_packs_names_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names Documents/ComfyUI is told where the application has ComfyUI itself."""
    program = fill(tmp_path / "Local/Programs/@comfyorgcomfyui-electron/resources/ComfyUI", COMFYUI)
    data = fill(tmp_path / "Documents/ComfyUI", {"custom_nodes/x.py": b"", "models/x": b"", "user/x": b""})
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    monkeypatch.setenv("HOME", str(tmp_path))
    location = where(data)
    assert location.place is FolderKind.DATA
    assert location.refusal("release").do == f"name the program's own folder, {program}"
    assert location.refusal("pack").do == f"name one of the packs in {data / 'custom_nodes'}"
