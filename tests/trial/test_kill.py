"""A runner that is killed leaves no server and no temporary folder, and the next one goes on where it was.

Run as ``python -m tests.trial.test_kill POINT FOLDER`` it is the runner: a trial that waits at a point of its work.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from patchforge import cli
from patchforge.errors import Exit
from patchforge.trial import runner
from patchforge.trial.model import Device, TrialSide
from patchforge.trial.reports import evidence
from patchforge.trial.reports.evidence import Evidence
from patchforge.trial.server import comfyui
from patchforge.trial.server.client import Client
from patchforge.trial.server.environment import Environment
from patchforge.trial.verdicts import plan
from patchforge.trial.verdicts.plan import Session
from tests.support import ROOT
from tests.trial.miniature_server import files, missing, noise
from tests.trial.support import release_of, wait_until, workflow_of
from tests.trial.test_test_command import clone_of, only

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")

RELEASES = ("v9.0.0", "v9.1.0")
SESSIONS = (Session("first", "First", ("noise",)), Session("second", "Second", ("noise",)))


def main(wanted: str, top: Path) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        if wanted == "command":
            only(patch, workflow_of("noise", noise(), {"1": 1}, "2"))
            patch.setattr(Client, "submit", waiting("prompt", Client.submit))
            arguments = ["test", *RELEASES, "--no-venv", "--device", "emulated", "--jobs", "2"]
            return cli.main([*arguments, "--upstream", str(top / "clone"), "--out", str(top / "out")])
        for point, place, name in (
            ("tree", runner, "link_models"),
            ("start", comfyui, "Supervised"),
            ("prompt", Client, "submit"),
            ("between", evidence, "save"),
        ):
            if point == wanted:
                patch.setattr(place, name, waiting(point, getattr(place, name)))
        patch.setattr(plan, "SESSIONS", SESSIONS)
        workflow = workflow_of("noise", noise(seconds=0.5), {"1": 1}, "2")
        settings = runner.TrialSettings(Device("cpu"), top / "cache", top / "weights", {"noise": workflow})
        environment = Environment(Path(sys.executable), {}, {})
        trial = runner.Trial(release_of(files(torch=False)), environment, settings, print)
        trial.run(top / "out", (TrialSide.PATCHED,))
        return 0


def waiting(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which then says where it is and waits."""

    def waits(*arguments: Any, **more: Any) -> Any:
        value = function(*arguments, **more)
        print(point, flush=True)
        time.sleep(120)
        return value

    return waits


def start(top: Path, point: str) -> subprocess.Popen[str]:
    (top / "temporary").mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, "TMPDIR": str(top / "temporary")}
    command = [sys.executable, "-m", "tests.trial.test_kill", point, str(top)]
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True)


def running(top: Path) -> list[str]:
    """The processes whose command line or folder is below ``top``."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = []
    for line in listed.splitlines():
        pid, _, command = line.strip().partition(" ")
        try:
            folder = str(Path(f"/proc/{pid}/cwd").readlink())
        except OSError:  # it has ended, or there is no /proc: then the supervisors are all that is seen
            folder = ""
        if str(top) in command or folder.startswith(str(top)):
            lines.append(command)
    return lines


def is_gone(top: Path) -> bool:
    return not running(top) and not list((top / "temporary").iterdir())


def finished(top: Path) -> list[str]:
    collected = evidence.load(top / "out") or Evidence("", "", "", Device("cpu"))
    return [session.name for session in collected.sessions]


@pytest.mark.parametrize(
    ("number", "points"),
    [
        (signal.SIGKILL, ("tree", "start", "prompt", "between")),
        (signal.SIGTERM, ("prompt",)),
        (signal.SIGINT, ("prompt", "between")),
    ],
    ids=lambda way: way.name if isinstance(way, signal.Signals) else "",
)
def test_killed_at_a_point(tmp_path: Path, number: signal.Signals, points: Sequence[str]) -> None:
    for point in points:
        with start(tmp_path, point) as process:
            assert process.stdout
            assert point in (line.strip() for line in process.stdout)
            assert any("main.py" in command for command in running(tmp_path)) == (point in {"start", "prompt"})
            assert list((tmp_path / "temporary").iterdir())
            process.send_signal(number)
        assert process.returncode != 0
        wait_until(lambda: is_gone(tmp_path), 60)
        assert finished(tmp_path) == (["first"] if point == "between" else [])
    with start(tmp_path, "nowhere") as process:
        told = process.communicate()[0]
    assert process.returncode == 0
    assert ("patched first: done before" in told) == ("between" in points)
    assert finished(tmp_path) == ["first", "second"]
    assert is_gone(tmp_path)


def test_an_interrupt_ends_two_releases_at_once(tmp_path: Path) -> None:
    clone_of(tmp_path / "clone", v9_0_0=files(torch=False), v9_1_0=files("old", torch=False))
    with start(tmp_path, "command") as process:
        assert process.stdout
        assert [process.stdout.readline().strip() for _ in RELEASES] == ["prompt", "prompt"]
        assert len([process for process in running(tmp_path) if process.split()[1:2] == ["main.py"]]) == len(RELEASES)
        process.send_signal(signal.SIGINT)
    assert process.returncode == Exit.INTERRUPTED
    wait_until(lambda: is_gone(tmp_path), 60)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
