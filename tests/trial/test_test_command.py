"""``patchforge test`` on a clone of miniature releases: its arguments, what it writes and says, its exit status."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from emulator import build
from patchforge import cli
from patchforge.commands import test as command
from patchforge.errors import Exit
from patchforge.trial.model import TrialVerdict, Workflow
from patchforge.trial.reports import evidence, report
from patchforge.trial.server.environment import Environment
from patchforge.trial.verdicts import plan
from patchforge.trial.verdicts.plan import Session
from tests.support import engine_of
from tests.trial.miniature_server import files, missing
from tests.trial.support import COPY, NOISE, TXT2IMG

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")
EMULATED = pytest.mark.skipif(
    bool(missing("torch") or build.missing()), reason=missing("torch") or build.missing() or ""
)
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")


def clone_of(top: Path, **releases: dict[str, bytes]) -> Path:
    """A clone with a tag for each release: v9_0_0 is v9.0.0."""

    def git(*arguments: str) -> None:
        subprocess.run([*GIT, *arguments], cwd=top, check=True, capture_output=True)

    top.mkdir()
    git("init", "--quiet")
    for name, told in releases.items():
        version = name.replace("_", ".")
        for path, data in {**told, "comfyui_version.py": f'__version__ = "{version[1:]}"\n'.encode()}.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_bytes(data)
        git("add", "--all")
        git("commit", "--quiet", "--message", version)
        git("tag", version)
    return top


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, NOISE)


def only(monkeypatch: pytest.MonkeyPatch, workflow: Workflow) -> None:
    """No transforms, no generated models, one session of one workflow, and an interpreter as it is."""
    monkeypatch.setattr(command, "make_engine", lambda _: engine_of(()))
    monkeypatch.setattr(command, "generated_models", lambda *_: Path("nowhere"))
    monkeypatch.setattr(command, "existing", lambda python: Environment(python, {"torch": "0"}, {}))
    monkeypatch.setattr(command, "load", lambda: {workflow.name: workflow})
    monkeypatch.setattr(plan, "SESSIONS", (Session("first", "First", ("workflows", "api")),))


def test(*arguments: str | Path) -> int:
    return cli.main(["test", "--no-venv", *map(str, arguments)])


test.__test__ = False  # type: ignore[attr-defined]


def packs_test(*arguments: str | Path) -> int:
    return cli.main(["packs", "test", "--no-venv", "--device", "cpu", *map(str, arguments)])


def test_a_session_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert test("v9.0.0", "--session", "first", "--session", "second") == Exit.USAGE
    assert "no session is called 'second'\n  expected: first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["gpu"], Exit.USAGE, "no device is called 'gpu'"),
        (["emulated:gtx"], Exit.USAGE, "no emulated device is called 'gtx'"),
        (["xpu", "--python", "/nowhere/python"], Exit.USAGE, "/nowhere/python is not there"),
    ],
)
def test_a_device_that_there_is_not(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: Exit, said: str
) -> None:
    assert test("v9.0.0", "--device", *arguments) == status
    assert said in capsys.readouterr().err


def test_nothing_to_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clone = clone_of(tmp_path / "clone", v9_0_0=files(torch=False))
    more = ("--upstream", clone, "--device", "cpu")
    assert test("--generated", tmp_path / "nothing", *more) == Exit.USAGE
    assert "a folder that patchforge generated" in capsys.readouterr().err
    (tmp_path / "nothing").mkdir()
    assert test("--generated", tmp_path / "nothing", *more) == Exit.USAGE
    assert "nothing has been generated in" in capsys.readouterr().err
    assert test("v8.0.0", *more) == Exit.USAGE
    assert "v8.0.0" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--timeout", "soon"], ["--unknown"], ["--jobs", "many"]])
def test_arguments_that_cannot_be_read(arguments: list[str]) -> None:
    assert test("v9.0.0", *arguments) == Exit.USAGE


def test_a_failure_is_written_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clone, out = clone_of(tmp_path / "clone", v9_0_0=files("accepts-anything", torch=False)), tmp_path / "out"
    assert test("v9.0.0", "--upstream", clone, "--device", "cpu", "--out", out) == Exit.FAILED
    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["session", "test", "patched", "seconds", "why"]
    assert [line[:3] for line in lines[1:3]] == [["first", "noise", "fresh"], ["first", "api", "failed"]]
    assert "runs ComfyUI v9.0.0 in part: 1 of 2 tests pass. Failed: api." in said.out
    assert "note: The CPU computed everything" in said.out
    folder = out / "v9.0.0-cpu"
    assert f"written: {folder}/report.html" in said.out
    assert "v9.0.0: v9.0.0 patched first: noise fresh" in said.err
    assert {report.HTML, report.MARKDOWN, evidence.FILE} <= {path.name for path in folder.iterdir()}
    assert [path.name for path in (out / "v9.0.0-cpu-logs").iterdir()] == ["v9.0.0-patched-first-api.log"]


def test_a_second_run_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clone = clone_of(tmp_path / "clone", v9_0_0=files(torch=False))
    arguments = ("v9.0.0", "--upstream", clone, "--device", "cpu", "--session", "first", "--out", tmp_path / "out")
    assert test(*arguments) == Exit.OK
    capsys.readouterr()
    assert test(*arguments, "--json") == Exit.OK
    said = capsys.readouterr()
    (document,) = json.loads(said.out)["results"]
    assert evidence.parse(json.dumps(document).encode()) == evidence.load(tmp_path / "out" / "v9.0.0-cpu")
    assert document["marked"] == "real"
    assert "v9.0.0: patched first: done before" in said.err
    assert test(*arguments, "--rerun") == Exit.OK
    assert "done before" not in capsys.readouterr().err


def test_where_nothing_could_be_tested_nothing_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = clone_of(tmp_path / "clone", v9_0_0=files(torch=False))
    monkeypatch.setattr(plan, "SESSIONS", (Session("later", "Later", ("noise",), needs=("--later",)),))
    assert test("v9.0.0", "--upstream", clone, "--device", "cpu", "--out", tmp_path / "out") == Exit.FAILED


def test_a_session_that_is_not_for_this_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = clone_of(tmp_path / "clone", v9_0_0=files(torch=False))
    monkeypatch.setattr(plan, "SESSIONS", (Session("small", "Small", ("noise",), emulated_only=True),))
    arguments = ("v9.0.0", "--upstream", clone, "--device", "cpu", "--session", "small", "--out", tmp_path / "out")
    assert test(*arguments) == Exit.USAGE
    assert "small" in capsys.readouterr().err


def pack_of(top: Path, text: str = COPY) -> Path:
    (top / "pack").mkdir()
    (top / "pack" / "__init__.py").write_text(text)
    return top / "pack"


def test_node_packs_and_their_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clone = clone_of(tmp_path / "clone", v9_0_0=files(torch=False), v9_1_0=files("no-packs", torch=False))
    page, out = tmp_path / "page.md", tmp_path / "out"
    page.write_text("# By hand\n\n<!-- begin: cpu -->\n<!-- end: cpu -->\n")
    arguments = ("--upstream", clone, "--device", "cpu", "--out", out, pack_of(tmp_path), "--page", page)
    assert packs_test("--release", "v9.0.0", *arguments) == Exit.OK
    said = capsys.readouterr()
    assert [line.split() for line in said.out.splitlines()[:2]] == [
        ["pack", "test", "v9.0.0"],
        ["pack", "loads", "1", "nodes"],
    ]
    assert page.read_text().startswith("# By hand\n\n<!-- begin: cpu -->")
    assert "| pack | 1 nodes |" in page.read_text()
    assert {report.HTML, evidence.FILE} <= {path.name for path in (out / "v9.0.0-cpu-nodes").iterdir()}
    assert packs_test("--release", "v9.0.0", *arguments, "--json") == Exit.OK
    said = capsys.readouterr()
    assert "v9.0.0: pack: done before" in said.err
    assert [result["release"] for result in json.loads(said.out)["results"]] == ["v9.0.0"]
    assert packs_test("--release", "v9.1.0", *arguments) == Exit.FAILED  # nothing passes
    old = ("--upstream", clone, "--device", "cpu", "--out", out, "--page", page, "--nodes", tmp_path / "pack")
    assert test("v9.0.0", *old) == Exit.OK
    assert "v9.0.0: pack: done before" in capsys.readouterr().err


def test_a_pack_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clone = clone_of(tmp_path / "clone", v9_0_0=files(torch=False))
    assert packs_test("--release", "v9.0.0", "--upstream", clone, tmp_path / "nothing") == Exit.USAGE
    assert "is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "pack", "--session", "first"], "--session does not go with --nodes"),
        (["--nodes", "pack", "--against-upstream"], "--against-upstream does not go with --nodes"),
        (["--without", "cupy"], "--without does not go without --nodes"),
        (["--page", "page.md"], "--page does not go without --nodes"),
    ],
)
def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert test("v9.0.0", "--device", "cpu", *arguments) == Exit.USAGE
    assert said in capsys.readouterr().err


@EMULATED
def test_two_releases_at_once_on_the_emulated_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, TXT2IMG)
    clone = clone_of(tmp_path / "clone", v9_0_0=files(), v9_1_0=files(blind=True))
    out = tmp_path / "out"
    arguments = ("--upstream", clone, "--device", "emulated:a770", "--jobs", "2", "--out", out)
    assert test("v9.0.0", "v9.1.0", *arguments) == Exit.FAILED
    saved = {name: evidence.load(out / f"{name}-emulated-a770") for name in ("v9.0.0", "v9.1.0")}
    verdicts = {
        name: [each.verdict for session in evidence.sessions for each in session.judgements]
        for name, evidence in saved.items()
        if evidence
    }
    assert verdicts == {
        "v9.0.0": [TrialVerdict.FRESH, TrialVerdict.PASSED],
        "v9.1.0": [TrialVerdict.CPU_FALLBACK, TrialVerdict.FAILED],
    }
    said = capsys.readouterr().out
    assert f"written: {out}/report.html" in said
    assert report.EMULATED in (out / report.HTML).read_text()
    lines = [line.split() for line in said.splitlines()]
    assert ["v9.0.0", "2", "of", "2", "-"] in [line[:5] for line in lines]
    assert ["v9.1.0", "0", "of", "2", "-"] in [line[:5] for line in lines]
    assert test("v9.0.0", *arguments) == Exit.OK  # kept, and the blind one is not asked for
