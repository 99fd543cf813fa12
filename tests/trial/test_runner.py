"""A whole trial of a miniature release: what it leaves, what it does again, and what it does when servers fail."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from emulator import build
from patchforge.errors import CheckFailed, Damaged, PatchforgeError
from patchforge.outputs import update_folder
from patchforge.pipeline import PatchedRelease
from patchforge.sources.missing import MissingBlobError
from patchforge.trial import runner
from patchforge.trial.model import Device, TrialSide, TrialVerdict, Workflow
from patchforge.trial.reports import evidence, report
from patchforge.trial.reports.evidence import Evidence
from patchforge.trial.runner import Trial, TrialSettings
from patchforge.trial.server.comfyui import ComfyuiServer
from patchforge.trial.server.environment import Environment
from patchforge.trial.verdicts import checks, plan
from patchforge.trial.verdicts.checks import ServerBench
from patchforge.trial.verdicts.plan import Session
from tests.support import MemoryTree, engine_of, release
from tests.trial.miniature_server import files, missing
from tests.trial.support import NOISE, TXT2IMG, hanging, release_of

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")
EMULATED = pytest.mark.skipif(
    bool(missing("torch") or build.missing()), reason=missing("torch") or build.missing() or ""
)

ENVIRONMENT = Environment(Path(sys.executable), {"torch": "0", "another": "1"}, {"torch": "0"})
CPU, B580 = Device("cpu"), Device("xpu", "b580", "rng=cpu")
PATCHED = (TrialSide.PATCHED,)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary folders; it is empty afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ComfyuiServer]]:
    """Every server that was started; all have ended afterwards."""
    servers: list[ComfyuiServer] = []

    class Counted(ComfyuiServer):
        def __enter__(self) -> Self:
            servers.append(self)
            return super().__enter__()

    monkeypatch.setattr(runner, "ComfyuiServer", Counted)
    yield servers
    assert not any(server.alive for server in servers)


def sessions(monkeypatch: pytest.MonkeyPatch, *found: Session) -> None:
    monkeypatch.setattr(plan, "SESSIONS", found)


def session(name: str, *tests: str, **more: object) -> Session:
    return replace(Session(name, name, tests), **more)  # type: ignore[arg-type]


def settings(
    folder: Path, device: Device = CPU, workflow: Workflow = NOISE, *, again: bool = False, start: float = 60
) -> TrialSettings:
    known = {workflow.name: workflow}
    return TrialSettings(device, folder / "cache", folder / "weights", known, 60, start, again, folder / "logs")


def run(
    folder: Path,
    patched: PatchedRelease | None = None,
    *names: str,
    sides: tuple[TrialSide, ...] = PATCHED,
    using: TrialSettings | None = None,
    told: list[str] | None = None,
) -> Evidence:
    trial = Trial(patched or NOISY, ENVIRONMENT, using or settings(folder), (told if told is not None else []).append)
    return trial.run(folder / "out", sides, names)


NOISY = release_of(files(torch=False))


def shown(collected: Evidence) -> dict[tuple[str, str], TrialVerdict]:
    return {
        (session.name, judgement.test): judgement.verdict
        for session in collected.sessions
        for judgement in session.judgements
    }


def test_the_evidence_says_what_was_seen_and_of_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions(monkeypatch, session("first", "noise", flags=("--cpu",)))
    collected = run(tmp_path)
    assert evidence.load(tmp_path / "out") == collected
    assert collected.manifest == evidence.digest(NOISY.files()["manifest.json"])
    assert (collected.release, collected.device) == ("v9.0.0", CPU)
    (result,) = collected.sessions
    assert (result.name, result.side, result.device) == ("first", TrialSide.PATCHED, CPU)
    assert result.versions == dict(ENVIRONMENT.packages)
    assert result.facts["torch"] == "0"
    assert "packages" not in result.facts
    (judged,) = result.judgements
    assert judged.verdict is TrialVerdict.FRESH, judged.reason
    (picture,) = judged.images
    assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    report.write(tmp_path / "out", [collected])
    assert "The CPU computed everything" in (tmp_path / "out" / report.MARKDOWN).read_text()
    assert evidence.load(tmp_path / "out") == collected


class Partial(MemoryTree):
    """A clone without the content of one file."""

    def read(self, path: str) -> bytes:
        if path == "big.json":
            raise MissingBlobError(path, "e" * 40)
        return super().read(path)


def test_files_that_the_clone_lacks_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions(monkeypatch, session("first", "noise", flags=("--cpu",)))
    tree = Partial(files(torch=False) | {"big.json": b"{}"})
    told: list[str] = []
    collected = run(tmp_path, PatchedRelease(engine_of(()).convert(release("v9.0.0"), tree), {}, ()), told=told)
    assert "v9.0.0 patched: 1 files that the clone lacks are left out: big.json" in told
    assert [session.missing for session in collected.sessions] == [("big.json",)]
    report.write(tmp_path / "out", [collected])
    assert "without 1 files that the clone lacks: big.json" in (tmp_path / "out" / report.MARKDOWN).read_text()
    assert "Without 1 files that the clone lacks: big.json" in (tmp_path / "out" / report.HTML).read_text()


def test_flags_that_a_release_lacks_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[ComfyuiServer]
) -> None:
    sessions(monkeypatch, session("first", "noise", flags=("--later",), needs=("--cpu",), patched_flags=("--newer",)))
    assert run(tmp_path).sessions[0].arguments == ("--cpu",)
    assert started[0].arguments == ("--cpu",)


def test_a_session_that_needs_what_the_release_lacks_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[ComfyuiServer]
) -> None:
    sessions(monkeypatch, session("later", "noise", "api", needs=("--later=1", "--cpu", "--newer")))
    collected = run(tmp_path)
    assert set(shown(collected).values()) == {TrialVerdict.SKIPPED}
    reasons = {judgement.reason for judgement in collected.sessions[0].judgements}
    assert reasons == {"the release has no --later and no --newer"}
    assert started == []


def test_what_is_finished_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[ComfyuiServer]
) -> None:
    first, second = session("first", "noise"), session("second", "noise")
    sessions(monkeypatch, first, second)
    before, told = run(tmp_path), list[str]()
    assert len(started) == 2
    assert run(tmp_path, told=told) == before
    assert told == ["patched first: done before", "patched second: done before"]
    assert len(started) == 2
    sessions(monkeypatch, first, replace(second, flags=("--cpu",)))
    changed = run(tmp_path)
    assert [server.arguments for server in started[2:]] == [("--cpu",)]
    assert changed.sessions[0] == before.sessions[0]
    run(tmp_path, None, "first", using=settings(tmp_path, again=True))
    assert len(started) == 4


def test_another_manifest_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[ComfyuiServer]
) -> None:
    sessions(monkeypatch, session("first", "noise"), session("second", "noise"))
    run(tmp_path, None, "second")
    before = files(torch=False)
    other = release_of(before, {**before, "comfy/cli_args.py": before["comfy/cli_args.py"] + b"# patched\n"})
    collected = run(tmp_path, other, "first")
    assert shown(collected).keys() == {("first", "noise")}
    assert collected.manifest != evidence.digest(NOISY.files()["manifest.json"])
    assert len(started) == 2


def test_an_interrupted_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[ComfyuiServer]
) -> None:
    def interrupted(_: ServerBench) -> str:
        raise KeyboardInterrupt

    monkeypatch.setitem(checks.TESTS, "something", interrupted)
    sessions(monkeypatch, session("first", "noise"), session("second", "noise", "something"))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not any(server.alive for server in started)
    left = evidence.load(tmp_path / "out")
    assert left is not None
    assert shown(left) == {("first", "noise"): TrialVerdict.FRESH}
    monkeypatch.setitem(checks.TESTS, "something", lambda _: "done")
    collected = run(tmp_path)
    assert len(started) == 3
    assert collected.sessions[0] == left.sessions[0]
    assert shown(collected)["second", "something"] is TrialVerdict.PASSED


def test_evidence_that_cannot_be_read_is_made_again_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions(monkeypatch, session("first", "noise", needs=("--later",)))
    before = run(tmp_path)
    update_folder(tmp_path / "out", evidence.EVIDENCE, lambda files: {**files, evidence.FILE: b"{}"})
    with pytest.raises(Damaged, match="does not say which format"):
        run(tmp_path)
    assert shown(run(tmp_path, using=settings(tmp_path, again=True))) == shown(before)
    assert evidence.load(tmp_path / "out")


def test_evidence_that_somebody_edited_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions(monkeypatch, session("first", "noise", needs=("--later",)))
    run(tmp_path)
    (tmp_path / "out" / evidence.FILE).write_text("{}")
    for again in (False, True):
        with pytest.raises(PatchforgeError, match="edited since"):
            run(tmp_path, using=settings(tmp_path, again=again))
    assert (tmp_path / "out" / evidence.FILE).read_text() == "{}"


def killed(bench: ServerBench) -> str:
    os.kill(bench.server.pid, signal.SIGKILL)
    return "the server is gone"


def test_a_server_that_a_test_has_ended_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[ComfyuiServer]
) -> None:
    monkeypatch.setitem(checks.TESTS, "killed", killed)
    sessions(monkeypatch, session("first", "killed", "noise", "killed"))
    collected = run(tmp_path)
    assert [judgement.test for judgement in collected.sessions[0].judgements] == ["killed", "noise", "killed"]
    assert shown(collected)["first", "noise"] is TrialVerdict.FRESH
    assert len(started) == 2


@pytest.mark.parametrize(
    ("mode", "reason", "line"),
    [("ends", "the server ended before it was ready", "no such driver"), ("hangs", "not ready after 600 s", "hanging")],
)
def test_a_server_that_does_not_start(  # noqa: PLR0917 - of fixtures
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[ComfyuiServer],
    mode: str,
    reason: str,
    line: str,
) -> None:
    hanging(monkeypatch, lambda: started[-1].log)
    sessions(monkeypatch, session("first", "noise", "api"), session("second", "api", needs=("--later",)))
    collected = run(tmp_path, release_of(files(mode, torch=False)), using=settings(tmp_path, start=600))
    assert list(shown(collected).values()) == [TrialVerdict.FAILED, TrialVerdict.FAILED, TrialVerdict.SKIPPED]
    for judged in collected.sessions[0].judgements:
        assert reason in judged.reason
        assert line in "\n".join(judged.log)


def test_a_server_without_the_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions(monkeypatch, session("first", "noise", "api"))
    collected = run(tmp_path, release_of(files("no-packs", torch=False)))
    assert set(shown(collected).values()) == {TrialVerdict.FAILED}
    assert all("/patchforge/state" in judgement.reason for judgement in collected.sessions[0].judgements)


def test_logs_of_failures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(bench: ServerBench) -> str:
        bench.client.run({"1": {"class_type": "Fail", "inputs": {"how": "on purpose"}}}, 20)
        raise checks.Unmet("it is not so")

    monkeypatch.setitem(checks.TESTS, "wrong", wrong)
    sessions(monkeypatch, session("first", "noise", "wrong"))
    collected = run(tmp_path)
    judged = collected.sessions[0].judgements[1]
    assert (judged.verdict, judged.reason) == (TrialVerdict.FAILED, "it is not so")
    assert judged.log == ("failing: on purpose",)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["v9.0.0-patched-first-wrong.log"]
    assert "failing: on purpose" in (tmp_path / "logs" / "v9.0.0-patched-first-wrong.log").read_text()


def test_upstream_that_gives_no_reference_ends_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions(monkeypatch, session("first", "noise"))
    with pytest.raises(CheckFailed, match=r"no results on the CPU[\s\S]*no such driver"):
        run(tmp_path, release_of(files("ends", torch=False)), using=settings(tmp_path, B580))
    assert evidence.load(tmp_path / "out") is None


def blind_and_seeing() -> PatchedRelease:
    return release_of(files(blind=True), files())


@EMULATED
def test_a_tree_that_knows_cuda_only_falls_back_to_the_cpu_and_the_patched_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[ComfyuiServer]
) -> None:
    sessions(monkeypatch, session("first", "txt2img", "api"))
    using = settings(tmp_path, B580, TXT2IMG)
    collected = run(tmp_path, blind_and_seeing(), sides=(TrialSide.PATCHED, TrialSide.UPSTREAM), using=using)
    assert [server.arguments for server in started] == [("--cpu",), (), ()]
    verdicts = {
        (session.side.value, each.test): each.verdict for session in collected.sessions for each in session.judgements
    }
    assert verdicts == {
        ("patched", "txt2img"): TrialVerdict.FRESH,
        ("patched", "api"): TrialVerdict.PASSED,
        ("upstream", "txt2img"): TrialVerdict.CPU_FALLBACK,
        ("upstream", "api"): TrialVerdict.FAILED,
    }
    assert [(row.test, row.session) for row in report.only_patched(collected)] == [
        ("txt2img", "first"),
        ("api", "first"),
    ]
    patched = collected.sessions[0]
    assert "equal to the reference" in patched.judgements[0].reason
    assert patched.facts["emulated"] == "b580"
    images: Mapping[str, bytes] = {name: (tmp_path / "out" / name).read_bytes() for name in collected.pictures}
    assert len(images) == 4  # result and reference of each side
    assert len(set(images.values())) == 1
    sessions(monkeypatch, session("second", "txt2img", needs=("--later",)))
    run(tmp_path, blind_and_seeing(), using=using)
    assert len(started) == 3  # the reference was kept


@EMULATED
def test_an_emulated_device_whose_server_has_just_been_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[ComfyuiServer]
) -> None:
    monkeypatch.setitem(checks.TESTS, "killed", killed)
    monkeypatch.setattr(Trial, "reference", lambda *_: {})
    sessions(monkeypatch, session("first", "killed", "killed"))
    assert set(shown(run(tmp_path, using=settings(tmp_path, B580))).values()) == {TrialVerdict.PASSED}
