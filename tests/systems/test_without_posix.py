"""Every command for a user's folder on a system without POSIX's modules and calls, and without git and GNU patch."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.checkout.places import PACK, fill
from tests.support import ROOT, miniature

HERE = Path(__file__).parent
WITHOUT = str(HERE / "without_posix")
UNTOUCHED, PATCHED = "untouched: not patched", ": patched\n"


def run(lines: Sequence[Sequence[str]], home: Path, *, path: str = "") -> list[tuple[int, str, str]]:
    """What became of command lines, run one after the other in a Python without POSIX."""
    tools = home / "bin"
    tools.mkdir(parents=True, exist_ok=True)
    env = {
        "PATH": path or str(tools),
        "HOME": str(home),
        "PYTHONPATH": f"{WITHOUT}:{ROOT}",
        "PATCHFORGE_CACHE": str(home / "cache"),
        "PATCHFORGE_STATE": str(home / "state"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, f"{WITHOUT}/commands.py", json.dumps(lines)]
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(one) for one in json.loads(done.stdout)]


def test_every_module_is_imported(tmp_path: Path) -> None:
    """But for what runs inside ComfyUI, and what another interpreter runs by its path."""
    files = [one.relative_to(ROOT).with_suffix("") for one in sorted((ROOT / "patchforge").rglob("*.py"))]
    names = [".".join(one.parts).removesuffix(".__init__") for one in files]
    wanted = [name for name in names if not name.startswith(("patchforge.trial.server.pack", "patchforge.proof.probe"))]
    code = f"import importlib\nfor name in {wanted}:\n    importlib.import_module(name)\n"
    env = {"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": f"{WITHOUT}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def content(folder: Path) -> Mapping[str, bytes]:
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_a_checkout_and_a_pack_go_all_the_way(tmp_path: Path) -> None:
    comfyui = fill(tmp_path / "Comfy UI", miniature("v0.33.0"))
    pack = fill(comfyui / "custom_nodes" / "pack", PACK)
    before = content(comfyui)
    place, packs = str(comfyui), str(pack)
    steps = [
        (["apply", "--in-place", place], 0, "checked"),
        (["status", place], 0, PATCHED),
        (["update", place], 0, "no file had to be changed"),
        (["repair", place], 0, "no file had to be changed"),
        (["packs", "check", packs], 1, "cuda"),
        (["packs", "apply", packs, "--in-place"], 0, ""),
        (["status", packs], 0, PATCHED),
        (["doctor", place, "--json"], None, ""),
        (["packs", "revert", packs], 0, "put back"),
        (["revert", place], 0, "put back"),
        (["status", place], 0, UNTOUCHED),
    ]
    for (line, status, said), (ended, out, err) in zip(
        steps, run([line for line, _, _ in steps], tmp_path / "home"), strict=True
    ):
        assert ended == status or (status is None and ended in (0, 1)), (line, out, err)
        assert said in out, (line, out, err)
    assert content(comfyui) == before
