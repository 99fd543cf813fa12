"""Children in earnest: programs that write down all they can see, and secrets that they do not find."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest

from patchforge.bot.token import Token, find_token, seen_by_children
from patchforge.commands.test import generated_models
from patchforge.doctor.interpreter import question
from patchforge.doctor.machine import _rpm
from patchforge.errors import CheckFailed, Exit, PatchforgeError
from patchforge.hashes.pypi import configured_indexes
from patchforge.nix.options import options
from patchforge.patches import check_every_way
from patchforge.proof.dynamic import ProofInterpreter
from patchforge.trial.comparison.runs import Processes
from patchforge.trial.model import TrialSide
from patchforge.trial.server.comfyui import ComfyuiServer
from patchforge.trial.server.devices import available
from patchforge.trial.server.environment import Environment, existing, prepare
from patchforge.trial.server.supervisor import temporary_folder
from tests.bot.world import TOKEN, World
from tests.secrets.dump import code, program, seen
from tests.secrets.test_door import SECRETS
from tests.support import ROOT

SECRET = b"hunter2"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


class Machine:
    """Programs on PATH that spy, and an environment full of secrets."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, folder / "seen"
        self.seen.mkdir(parents=True)
        self.python = program(folder / "bin" / "python", self.seen, "print('{}')")
        for name in ("git", "patch"):
            real = shutil.which(name)
            program(folder / "bin" / name, self.seen, f"os.execv({real!r}, sys.argv)")
        program(folder / "bin" / "nix-instantiate", self.seen, "print('{}')")
        program(folder / "bin" / "rpm", self.seen, "print('level-zero 1.0')")
        self.ours = program(folder / "bin" / "ours", self.seen, f"os.execv({sys.executable!r}, sys.argv)")

    @property
    def environment(self) -> Environment:
        return Environment(self.python, {"torch": "2.13.0"}, {"torch": "2.13.0"})


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path / "machine")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{made.folder / 'bin'}:{os.environ['PATH']}")
    return made


def patches(_: Machine, __: Path) -> None:
    patch = b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-one\n+two\n"
    check_every_way([patch], {"x": b"one\n"}, {"x": b"two\n"}, context=1)


def server(machine: Machine, folder: Path) -> None:
    with suppress(CheckFailed), ComfyuiServer(folder, machine.environment, log=folder / "log", timeout=10):
        pass


def measured(machine: Machine, folder: Path) -> None:
    for side in TrialSide:
        (folder / side).mkdir()
    trees = {side: folder / side for side in TrialSide}
    with suppress(PatchforgeError):
        Processes(trees, "sdxl", str(machine.python), folder)(TrialSide.PATCHED, 1)


def rpm(_: Machine, folder: Path) -> None:
    (folder / "var/lib/rpm").mkdir(parents=True)
    assert _rpm(folder) == {"level-zero": "1.0"}


def weights(machine: Machine, _: Path) -> None:
    generated_models(machine.environment, lambda _: None)


def proof(machine: Machine, _: Path) -> None:
    ProofInterpreter(str(machine.python)).close()


def nix(_: Machine, folder: Path) -> None:
    options(folder, folder)


def an_interpreter(machine: Machine, _: Path) -> None:
    with suppress(PatchforgeError, KeyError):
        existing(machine.python)


def asked(machine: Machine, _: Path) -> None:
    with suppress(PatchforgeError):
        question(str(machine.python), os.environ)


@pytest.mark.parametrize(
    "start",
    [
        patches,
        server,
        measured,
        rpm,
        weights,
        proof,
        nix,
        an_interpreter,
        lambda machine, _: available(machine.python),
        asked,
    ],
    ids=lambda case: case.__name__,
)
def test_no_child_gets_a_secret(machine: Machine, tmp_path: Path, start: Callable[[Machine, Path], object]) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    start(machine, folder)
    children = seen(machine.seen)
    assert children, "nothing was started"
    assert not [child for child in children if SECRET in child]
    assert all(b"'PATH'" in child for child in children)


def test_neither_does_the_supervisor(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(machine.ours))
    with temporary_folder():
        pass
    assert seen(machine.seen)
    assert not [child for child in seen(machine.seen) if SECRET in child]


def test_pip_gets_its_index_and_no_other_secret(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(machine.ours))
    for name in ("HTTPS_PROXY", "http_proxy"):
        monkeypatch.delenv(name)
    assert any("hunter2@index.example.org" in index for index in configured_indexes())
    (child,) = seen(machine.seen)
    assert b"PIP_INDEX_URL" in child
    for name in SECRETS.keys() - {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTPS_PROXY", "http_proxy"}:
        assert f"('{name}'".encode() not in child


# --- the token of the bot

#: A process like the bot's: it takes the token and runs a step, which spies.
BOT = """
import os, subprocess, sys
from pathlib import Path
from patchforge.bot import preparation
from patchforge.bot.token import find_token
way, folder = sys.argv[1], Path(sys.argv[2])
if way == "open":
    subprocess.run([sys.executable, "-m", "patchforge", "nix"], cwd=folder, check=True)
else:
    token = find_token({"file": sys.argv[3], "pipe": "/dev/stdin"}.get(way))
    assert token.text == sys.stdin.read().strip() if way == "" else token.text.startswith("ghp_")
    done = preparation.run_step(preparation.NIX, folder, token.hidden)
    assert done.outcome == "ok", done
print("done")
"""


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A folder with a patchforge whose command spies."""
    folder = Path(tempfile.mkdtemp(prefix="patchforge-secrets-"))
    (folder / "patchforge" / "commands").mkdir(parents=True)
    (folder / "patchforge" / "__init__.py").touch()
    (folder / "patchforge" / "commands" / "nix.py").touch()
    (folder / "patchforge" / "__main__.py").write_text(code(folder / "seen", os.getpid()))
    (folder / "seen").mkdir()
    yield folder
    shutil.rmtree(folder)


def bot(way: str, folder: Path, *, root_powers: bool = True) -> list[bytes]:
    """What a step of the bot sees when the token comes ``way``. Without its powers root is as any other user."""
    powerless = [] if root_powers or os.getuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    if powerless and not shutil.which("setpriv"):
        pytest.skip("setpriv is not here")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"}
    if way in {"GH_TOKEN", "GITHUB_TOKEN", "open"}:
        environment[{"open": "GH_TOKEN"}.get(way, way)] = TOKEN
        environment["ALSO_THERE"] = f"https://x:{TOKEN}@example.org"
    elif way == "credential":
        environment["CREDENTIALS_DIRECTORY"] = str(folder / "credentials")
    if way in {"file", "credential"}:
        (folder / "credentials").mkdir()
        (folder / "credentials" / "github-token").write_text(TOKEN)
    file = str(folder / "credentials" / "github-token")
    done = subprocess.run(
        [*powerless, sys.executable, "-c", BOT, way, folder, file],
        env=environment,
        input=TOKEN if way == "pipe" else "",
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "done" in done.stdout, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return seen(folder / "seen")


@LINUX
@pytest.mark.parametrize("root_powers", [True, False], ids=["as it is", "as an ordinary user"])
def test_the_spy_is_not_blind(checkout: Path, root_powers: bool) -> None:
    """Where nothing is done about it, a step finds the token in many places."""
    (child,) = bot("open", checkout, root_powers=root_powers)
    assert child.count(TOKEN.encode()) > 3


@LINUX
@pytest.mark.parametrize("way", ["GH_TOKEN", "GITHUB_TOKEN", "file", "credential", "pipe"])
@pytest.mark.parametrize("root_powers", [True, False], ids=["as it is", "as an ordinary user"])
def test_a_step_finds_the_token_nowhere(checkout: Path, way: str, root_powers: bool) -> None:
    """Neither in its environment and descriptors, nor in those, the command lines and the memory of its ancestors."""
    (child,) = bot(way, checkout, root_powers=root_powers)
    assert child.count(b"ancestor") >= 2, "it has seen neither the supervisor nor the bot"
    for secret in (TOKEN, Token(TOKEN).basic.split()[1]):
        assert secret.encode() not in child


@LINUX
def test_what_a_step_leaves_behind_is_ended(checkout: Path) -> None:
    """A process in a session of its own could wait for the next git that gets the token."""
    (checkout / "patchforge" / "__main__.py").write_text(
        dedent(f"""
            import subprocess, sys
            left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            open({str(checkout / "seen" / "seen-pid")!r}, "w").write(str(left.pid))
        """)
    )
    (pid,) = bot("GH_TOKEN", checkout)
    assert not Path(f"/proc/{int(pid)}").exists()


@LINUX
def test_variables_are_gone_from_what_the_system_shows() -> None:
    script = f"""
        import os
        from pathlib import Path
        from patchforge.bot.token import find_token
        assert find_token().text == {TOKEN!r}
        shown = Path("/proc/self/environ").read_bytes()
        assert {TOKEN!r}.encode() not in shown, shown
        assert b"KEPT=kept" in shown
        assert not [value for value in os.environ.values() if {TOKEN!r} in value]
        assert os.environ["KEPT"] == "kept"
    """
    given = {
        "PATH": os.environ["PATH"],
        "GH_TOKEN": TOKEN,
        "GITHUB_TOKEN": TOKEN,
        "AGAIN": f"a {TOKEN}",
        "KEPT": "kept",
    }
    subprocess.run([sys.executable, "-c", dedent(script)], env=given, cwd=ROOT, check=True)


@pytest.mark.parametrize("text", ["two words", "two\nlines", "a\ttab", "é", "\x1b[31m", "a\x00b", "\u200b"])
def test_what_is_no_token(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(text, "utf-8")
    with pytest.raises(PatchforgeError, match="does not hold a token") as failed:
        find_token(str(tmp_path / "token"))
    assert text not in str(failed.value)
    if "\x00" not in text:
        monkeypatch.setenv("GH_TOKEN", text)
        with pytest.raises(PatchforgeError, match="GH_TOKEN does not hold a token"):
            find_token()


@LINUX
def test_where_a_token_can_be_seen_is_known(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    assert seen_by_children(find_token(str(tmp_path / "token"))) == [f"the file {tmp_path / 'token'}"]
    assert seen_by_children(Token(TOKEN)) == []
    assert seen_by_children(Token()) == []
    script = f"from patchforge.bot.token import *; print(seen_by_children(Token({TOKEN!r})))"
    shell = ["sh", "-c", '"$@"; true', "sh", sys.executable, "-c", script]
    done = subprocess.run(shell, env={**os.environ, "GH_TOKEN": TOKEN}, cwd=ROOT, capture_output=True, check=True)
    assert b"the environment of process" in done.stdout


def test_a_release_is_not_run_beside_a_token_that_it_could_read(world: World, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    status, data = world.bot("--test", "--token-file", str(tmp_path / "token"))
    assert status == Exit.USAGE
    assert "could read the token" in data["error"]
    assert world.github.log == []


def test_masking_comes_before_cutting(checkout: Path) -> None:
    """A step that prints the token, often, across the place where its output is cut."""
    from patchforge.bot import preparation

    (checkout / "patchforge" / "__main__.py").write_text(f"for n in range(60): print('x' * n, {TOKEN!r})")
    done = preparation.run_step(preparation.NIX, checkout, Token(TOKEN).hidden)
    assert done.text.count("***") == 20
    assert "SeCrEt" not in done.text


def test_preparing_hands_pips_settings_to_pip_alone(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter that is looked at, and the one that makes the folder, get no address of an index."""
    told = '{"python": "3", "packages": {"torch": "2.13.0"}, "folders": [], "torch": true}'
    base = program(tmp_path / "base", machine.seen, f"print({told!r})")
    with suppress(PatchforgeError, ValueError):
        prepare(b"einops", base, tmp_path / "cache", tell=lambda _: None, timeout=20)
    children = seen(machine.seen)
    assert len(children) >= 2
    assert not [child for child in children if SECRET in child or b"PIP_" in child]
