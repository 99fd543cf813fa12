"""The scheduled workflow: its own steps, run by bash, with the fake GitHub and a patchforge that is a stand-in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from patchforge.cli import parser
from patchforge.errors import Exit
from tests.bot.fake_github import FakeGitHub, Fault
from tests.bot.world import REPOSITORY, TOKEN, UPSTREAM
from tests.support import ROOT

WORKFLOW = (ROOT / ".github" / "workflows" / "update.yml").read_text("utf-8")


def script(step: str) -> str:
    """What a step of the workflow runs."""
    block = re.search(rf"- name: {step}(?s:.*?)\n( +)run: \|\n((?:\1 +.*\n|\n)+)", WORKFLOW)
    assert block, step
    assert "${{" not in block[2], "a value is pasted into a script"
    return dedent(block[2])


def bash(step: str, environment: dict[str, str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-eo", "pipefail", "-c", script(step)]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_actions_are_pinned_by_commit() -> None:
    uses = re.findall(r"uses: (.*)", WORKFLOW)
    assert uses
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use) for use in uses)


def test_what_writes_in_the_checkout_is_the_code_of_the_checkout() -> None:
    """The installed patchforge refuses to (``in_repository``)."""
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        pattern = r"^.*patchforge (?:pin|nix|lock-torch|verify --online|track --index)\b.*$"
        writes = re.findall(pattern, file.read_text("utf-8"), re.MULTILINE)
        assert [line for line in writes if "python -m patchforge" not in line] == []
    assert "python -m patchforge nix" in WORKFLOW


PATCHFORGE = """echo "$*" >> told
printf '%s\\n' "$SAID"
read -r status < ends
sed -i 1d ends
exit "$status"
"""


class Runner:
    """Where the steps find a patchforge that writes down its arguments and ends as it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("patchforge", PATCHFORGE), ("sleep", 'echo "sleep $1" >> told\n')):
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/bash\n{text}")
            path.chmod(0o755)

    def run(self, step: str, *ends: int, **environment: str) -> tuple[int, list[str]]:
        """Status of the step, and what patchforge and sleep were told."""
        (self.folder / "ends").write_text("".join(f"{status}\n" for status in ends))
        (self.folder / "told").write_text("")
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        given = {"PATH": path, "GITHUB_OUTPUT": str(self.folder / "output"), "SAID": "{}", **environment}
        done = bash(step, given, self.folder)
        assert (self.folder / "ends").read_text() == "", done.stderr
        return done.returncode, (self.folder / "told").read_text().splitlines()


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_the_work_is_everything_that_is_new(runner: Runner) -> None:
    """What only shows may fail."""
    status, told = runner.run("Find the work", 1, 75, 0, VERSION="", SAID='{"include": []}')
    assert (status, told) == (0, ["track", "packs track", "matrix --all --json"])
    assert (runner.folder / "output").read_text() == 'matrix={"include": []}\n'


def test_a_version_can_be_asked_for(runner: Runner) -> None:
    assert runner.run("Find the work", 0, 0, 0, VERSION="v0.33.0")[1][2] == "matrix --all --json v0.33.0"
    assert runner.run("Find the work", VERSION="$(id)") == (2, [])


def test_a_matrix_that_fails_ends_the_plan(runner: Runner) -> None:
    assert runner.run("Find the work", 0, 0, 75, VERSION="")[0] == 75
    assert not (runner.folder / "output").exists()


@pytest.mark.parametrize(
    ("arguments", "dry", "told"),
    [
        ("bot v0.33.0", "false", "bot v0.33.0 --json"),
        ("bot", "true", "bot --json --dry-run"),
        ("packs bot supir res4lyf", "", "packs bot supir res4lyf --json"),
    ],
)
def test_each_job_runs_its_command(runner: Runner, arguments: str, dry: str, told: str) -> None:
    assert runner.run("Propose it", 0, ARGUMENTS=arguments, DRY_RUN=dry) == (0, [told])
    parser().parse_args(told.split())


def test_what_may_pass_is_tried_again(runner: Runner) -> None:
    given = {"ARGUMENTS": "bot", "DRY_RUN": ""}
    status, told = runner.run("Propose it", 75, 75, 75, **given)
    assert status == 75
    assert told == ["bot --json", "sleep 60", "bot --json", "sleep 300", "bot --json", "sleep 0"]
    shutil.rmtree(runner.folder / "report")
    assert runner.run("Propose it", 75, 0, **given)[0] == 0


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq, which GitHub's runners have, is not here")
@pytest.mark.parametrize(
    ("ends", "said", "status"),
    [
        (3, '{"problems": [{"about": "drift"}]}', 0),
        (1, '{"problems": [{"about": "moved"}]}', 0),
        (1, '{"problems": []}', 1),
        (1, "", 1),
        (2, '{"problems": [{"about": "moved"}]}', 2),
    ],
)
def test_only_what_an_issue_tells_is_no_failure(runner: Runner, ends: int, said: str, status: int) -> None:
    assert runner.run("Propose it", ends, ARGUMENTS="bot", DRY_RUN="", SAID=said)[0] == status


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    server = FakeGitHub(REPOSITORY, UPSTREAM, lambda _: True)
    yield server
    server.close()


def scheduled(github: FakeGitHub, *results: str) -> tuple[int, str]:
    """A scheduled run whose jobs end like this: status and words of its last job."""
    number = len(github.runs) + 1
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "GITHUB_API_URL": github.url,
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_RUN_ID": str(number),
        "GITHUB_TOKEN": TOKEN,
        "RESULTS": " ".join(results),
    }
    done = bash("Open an issue when the run before failed too", environment)
    said = done.stdout + done.stderr
    assert "SeCrEt" not in said
    conclusion = "success" if set(results) <= {"success", "skipped"} else "failure"
    url = f"https://github.com/{REPOSITORY}/actions/runs/{number}"
    github.runs.append({"conclusion": conclusion, "html_url": url})
    return done.returncode, said


GOOD, BAD = ("success", "success"), ("success", "failure")


def test_one_failure_is_no_news(github: FakeGitHub) -> None:
    assert scheduled(github, *BAD)[0] == Exit.OK
    assert scheduled(github, *GOOD)[0] == Exit.OK
    assert github.writes == []


def test_the_second_failure_in_a_row_opens_one_issue(github: FakeGitHub) -> None:
    for _ in range(4):
        assert scheduled(github, *BAD)[0] == Exit.OK
    (issue,) = github.issues
    assert issue["title"] == "The scheduled update failed twice"
    assert f"{REPOSITORY}/actions/runs/1 and" in issue["body"]
    assert f"{REPOSITORY}/actions/runs/2\n" in issue["body"]
    assert len(github.writes) == 1


def test_a_success_in_between_begins_anew(github: FakeGitHub) -> None:
    for results in (BAD, GOOD, BAD, GOOD):
        scheduled(github, *results)
    assert github.writes == []


def test_the_issue_is_closed_when_it_works_again(github: FakeGitHub) -> None:
    for results in (BAD, BAD, GOOD, GOOD):
        assert scheduled(github, *results)[0] == Exit.OK
    assert [issue["state"] for issue in github.issues] == ["closed"]
    assert len(github.writes) == 2
    for results in (BAD, BAD):
        scheduled(github, *results)
    assert [issue["state"] for issue in github.issues] == ["closed", "open"]


@pytest.mark.parametrize("results", [("failure", "skipped"), ("success", "cancelled")])
def test_what_counts_as_a_failure(github: FakeGitHub, results: tuple[str, str]) -> None:
    """A job that takes too long is cancelled."""
    scheduled(github, *BAD)
    scheduled(github, *results)
    assert len(github.issues) == 1


def test_a_first_run_that_fails(github: FakeGitHub) -> None:
    assert scheduled(github, *BAD) == (Exit.OK, "the run before was fine\n")


def test_other_issues_do_not_count(github: FakeGitHub) -> None:
    forged = '<!-- patchforge: {"about": "failed twice", "project": "update"} -->\nmore'
    for body in ("The scheduled update failed twice", forged, None):
        issue = {"number": github.number(), "state": "open", "title": "The scheduled update failed twice"}
        github.issues.append({**issue, "body": body})
    scheduled(github, *BAD)
    scheduled(github, *BAD)
    assert len(github.issues) == 4


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault("GET", 502), Exit.AGAIN), (Fault("GET", 0), Exit.AGAIN), (Fault("GET", 403), Exit.USAGE)],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_what_github_does_wrong(github: FakeGitHub, fault: Fault, status: Exit) -> None:
    github.faults.append(fault)
    seen_status, said = scheduled(github, *BAD)
    assert seen_status == status
    assert "GitHub did not take GET issues" in said
    assert github.writes == []


def test_it_needs_nothing_that_is_not_in_python_itself() -> None:
    command = [sys.executable, "-S", "-c", "import patchforge.bot.notify"]  # -S: without what is installed
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
