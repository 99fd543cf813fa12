"""Commands that are run in a stranger's folder take neither a module nor a program from it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from patchforge.processes import environment
from tests.checkout.places import fill
from tests.support import ROOT, miniature

NAMES = sorted({*sys.stdlib_module_names, *packages_distributions(), "transforms", "templates", "usercustomize"})
EVIL = "import sys\nsys.stderr.write(f'RAN {__name__}\\n')\n"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI with a module of every name that we or Python could ask for."""
    folder = fill(tmp_path_factory.mktemp("stranger"), miniature("v0.33.0"))
    for name in NAMES:
        if name not in ("patchforge", "__main__") and not (folder / f"{name}.py").exists():
            (folder / f"{name}.py").write_text(EVIL)
    return folder


def ran(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [["status", "."], ["apply", ".", "--in-place", "--dry-run"], ["packs", "check", "."]])
def test_no_module_is_taken(stranger: Path, words: list[str]) -> None:
    assert len(NAMES) > 200
    done = ran(stranger, sys.executable, "-m", "patchforge", *words)
    assert "RAN" not in done.stderr
    assert done.returncode in (0, 2), done.stderr


def test_a_folder_of_our_own_name_is_kept_out_by_what_advice_says(stranger: Path, tmp_path: Path) -> None:
    """Python itself would take that one; ``-P``, which all advice has, leaves it alone."""
    own = fill(tmp_path / "own", {"patchforge.py": EVIL.encode(), "comfy/model_management.py": b""})
    assert "RAN" in ran(own, sys.executable, "-m", "patchforge", "status", ".").stderr
    assert "RAN" not in ran(own, sys.executable, "-P", "-m", "patchforge", "status", ".").stderr
    done = subprocess.run(
        [sys.executable, "-P", "-m", "patchforge", "packs", "apply", str(stranger)],
        cwd=own,
        env={"PYTHONPATH": str(ROOT), "PATH": str(own)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{sys.executable} -P -m patchforge" in done.stderr


PROGRAMS = ("git", "patch", "nix-instantiate", "rpm", "clinfo", "nvidia-smi", "powershell", "python", "python3", "sh")
SYSTEM = "/usr/local/bin:/usr/bin:/bin"


@pytest.mark.skipif(os.name == "nt", reason="Windows looks for programs in another way: see test_children.py")
@pytest.mark.parametrize("path", [f":{SYSTEM}", f".:{SYSTEM}", f"bin:{SYSTEM}", f"{SYSTEM}:", f"{SYSTEM}::.", ":", ""])
def test_no_program_is_taken(stranger: Path, path: str) -> None:
    """An empty folder on PATH, which a stray colon makes, is the current one."""
    for folder in (stranger, stranger / "bin"):
        folder.mkdir(exist_ok=True)
        for name in PROGRAMS:
            (folder / name).write_text(f"#!/bin/sh\necho ran >> {stranger}/ran\n")
            (folder / name).chmod(0o755)
    (stranger / ".git").mkdir(exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    for words in (["status", "."], ["apply", ".", "--in-place", "--dry-run"], ["doctor", "--upstream", "."]):
        command = [sys.executable, "-P", "-m", "patchforge", *words]
        subprocess.run(command, cwd=stranger, env=env, capture_output=True, check=False)
    assert not (stranger / "ran").exists()


@pytest.mark.parametrize("name", ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH"])
def test_only_absolute_folders_reach_a_child(name: str) -> None:
    folders = os.pathsep.join(["", "/a", ".", "b", "/c d", ""])
    told = environment(allow=["PYTHONPATH"], inherited={name: folders})
    assert told == {name: os.pathsep.join(["/a", "/c d"])}
    assert environment(allow=["PYTHONPATH"], inherited={name: os.pathsep.join([".", ""])}) == {}
