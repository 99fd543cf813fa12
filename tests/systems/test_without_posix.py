"""Every command for a user's folder on a system without POSIX's modules and calls, and without git and GNU patch."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.checkout.places import PACK, fill
from tests.support import ROOT, miniature
from tests.test_readme import commands

HERE = Path(__file__).parent
WITHOUT = str(HERE / "without_posix")
UNTOUCHED, PATCHED = ": not patched\n", ": patched\n"


def run(
    lines: Sequence[Sequence[str]], home: Path, *, posix: bool = False, encoding: str = "utf-8", **variables: str
) -> list[tuple[int, str, str]]:
    """What became of command lines, run one after the other in a Python without POSIX and an empty PATH."""
    tools = home / "bin"
    tools.mkdir(parents=True, exist_ok=True)
    env = {
        "PATH": str(tools),
        "HOME": str(home),
        "PYTHONPATH": str(ROOT) if posix else f"{WITHOUT}:{ROOT}",
        "PATCHFORGE_CACHE": str(home / "cache"),
        "PATCHFORGE_STATE": str(home / "state"),
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
    }
    command = [sys.executable, f"{WITHOUT}/commands.py", json.dumps(lines), encoding]
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(row) for row in json.loads(done.stdout)]


def test_every_module_is_imported(tmp_path: Path) -> None:
    """But for what runs inside ComfyUI, and what another interpreter runs by its path."""
    files = [path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "patchforge").rglob("*.py"))]
    names = [".".join(path.parts).removesuffix(".__init__") for path in files]
    apart = ("patchforge.trial.server.pack", "patchforge.operate.pack", "patchforge.proof.probe")
    wanted = [name for name in names if not name.startswith(apart)]
    code = f"import importlib\nfor name in {wanted}:\n    importlib.import_module(name)\n"
    env = {"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": f"{WITHOUT}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def content(folder: Path) -> Mapping[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


NO_GIT = (69, "patchforge: git is not installed\n  expected: a git command on PATH\n  to do: install git")
NO_FORK = (69, "does not run on this system\n  expected: Linux or macOS")
DONE = (0, "")
#: Every command → without POSIX, git and GNU patch: its exit status, and a part of what it says on either stream.
WITHOUT_ALL: Mapping[str, tuple[int, str]] = {
    "apply v0.33.0": NO_GIT,
    "apply v0.33.0 --upstream clone": NO_GIT,
    "apply latest --upstream clone": NO_GIT,
    "apply --from ComfyUI --out patches": (0, "4 patches for ComfyUI v0.33.0 are in patches"),
    "apply --from patches": (2, "patches is not recognised as a ComfyUI release"),
    "apply ComfyUI --in-place": (0, "GNU patch and git apply are not installed"),
    "status ComfyUI": (0, "ComfyUI: patched"),
    "update ComfyUI": (0, "no file had to be changed"),
    "repair ComfyUI": (0, "no file had to be changed"),
    "revert ComfyUI": (0, "put back"),
    "cache": (0, "cache --clean removes it"),
    "doctor ComfyUI": (1, "ComfyUI v0.33.0 in ComfyUI: not patched"),
    "doctor --upstream clone": NO_GIT,
    "packs check pack": (1, "can be converted"),
    "packs apply pack --in-place": (0, "pack-cuda-calls"),
    "packs revert pack": (0, "put back"),
    "packs explain": (0, "pack-autocast"),
    "packs test pack --release v0.33.0 --device cpu": NO_FORK,
    "packs track": (1, "git is not installed"),
    "packs bot --dry-run": NO_GIT,
    "test v0.33.0 --device cpu": NO_FORK,
    "check v0.33.0 --upstream clone": NO_GIT,
    "verify v0.33.0 --upstream clone": NO_GIT,
    "verify v0.33.0 --dynamic --upstream clone": NO_FORK,
    "bench run v0.33.0 --device cpu": NO_FORK,
    "bench compare nowhere": (2, "nowhere"),
    "bench history nowhere": (2, "nowhere"),
    "bench report nowhere": (2, "nowhere"),
    "bench record nowhere --generated made": (2, "nowhere holds no benchmark"),
    "bench costs --generated nowhere": (2, "nowhere is not there"),
    "bench submit nowhere": (2, "nowhere"),
    "replay --upstream clone": NO_GIT,
    "explain": (0, "free-memory"),
    "track --upstream clone": NO_GIT,
    "bot --dry-run --upstream clone": NO_GIT,
    "matrix v0.33.0": (0, "comfyui v0.33.0"),
    "pin comfyui --pins pins --upstream clone": DONE,
    "lock-torch nonsense --pins pins": (2, "is not declared"),
    "prefetch a/b v1 --upstream clone": NO_GIT,
    "nix --generated nowhere": (2, "is pinned and has no patches"),
    "completion fish": (0, "complete -c patchforge"),
    "status": (0, "upstream"),
    "arbiter run --listen-ollama nowhere": (2, "not an address"),
    "arbiter limit x.service 4GiB": (69, "no limit"),
    "exporter --once --comfyui http://127.0.0.1:9": (0, "comfyui_up"),
    "health http://127.0.0.1:9": (1, "127.0.0.1:9"),
    "maintain ComfyUI --dry-run": NO_FORK,
    "validate http://127.0.0.1:9 --timeout 1": (1, "127.0.0.1:9"),
    "door render nowhere.toml": (2, "nowhere.toml"),
    "door routes v0.33.0 --upstream clone": NO_GIT,
    "models list": (0, "no model"),
    "models link nothing ollama:x": (2, "no model nothing"),
    "models import": (0, "nothing to do"),
    "models verify": (0, "0 files read"),
    "models gc": (0, "nothing to do"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    fill(tmp_path / "ComfyUI", miniature("v0.33.0"))
    fill(tmp_path / "pack", PACK)
    (tmp_path / "clone").mkdir()
    for words in (["init", "-q"], ["config", "user.name", "a"]):
        subprocess.run(["git", "-C", str(tmp_path / "clone"), *words], check=True)
    return tmp_path


def test_every_command_is_in_the_table() -> None:
    tried = {
        " ".join(line.split()[: 2 if line.startswith(("packs ", "bench ", "models ", "arbiter ", "door ")) else 1])
        for line in WITHOUT_ALL
    }
    assert tried == {name for name, command in commands().items() if not command.commands}


def test_every_command_works_or_says_what_is_missing(home: Path) -> None:
    lines = [line.split() for line in WITHOUT_ALL]
    wrong = []
    for line, (status, out, err) in zip(WITHOUT_ALL, run(lines, home), strict=True):
        wanted, said = WITHOUT_ALL[line]
        if status != wanted or said not in f"{out}\n{err}" or "Traceback" in err:
            wrong.append((line, status, out[-300:], err[-300:]))
    assert wrong == []


def test_every_command_writes_to_a_terminal_that_has_ascii_only(home: Path) -> None:
    """LANG=C, and streams that refuse everything else."""
    lines = [line.split() for line in [*WITHOUT_ALL, "--help", "packs --help", "apply --help", "explain --markdown"]]
    ran = run(lines, home, posix=True, encoding="ascii", LANG="C", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    for line, (status, out, err) in zip(lines, ran, strict=True):
        assert status != 70, (line, err)
        assert out.isascii()
        assert err.isascii()


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("aply x", "--help"),
        ("apply", "apply DIR --in-place"),
        ("explain nonsense", "explain"),
        ("update ComfyUI", "apply ComfyUI --in-place"),
        ("packs apply ComfyUI --in-place", "apply ComfyUI --in-place"),
    ],
)
def test_advice_begins_with_what_starts_patchforge(typed: str, advice: str, tmp_path: Path) -> None:
    """Where no such command is on PATH, as in a portable build, that is its Python."""
    fill(tmp_path / "ComfyUI", miniature("v0.33.0"))
    command = [sys.executable, "-m", "patchforge", *typed.split(), "--json"]
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    start = f"{sys.executable} -P -m patchforge {advice}"
    assert start in done.stderr, done.stderr
    assert start in json.loads(done.stdout)["error"]["do"]
