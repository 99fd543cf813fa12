"""Git as a command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from patchforge.errors import PatchforgeError, TryAgain
from patchforge.sources import command
from patchforge.sources.command import checked_out, git, run_git


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "_PAUSE", 0)
    run_git("init", "--quiet", "--initial-branch=main", ".", folder=tmp_path)
    return tmp_path


def commit(folder: Path) -> str:
    who = {f"GIT_{role}_{key}": "x@y" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    run_git("commit", "--quiet", "--allow-empty", "--message", "one", folder=folder, environment=who)
    return run_git("rev-parse", "HEAD", folder=folder).strip()


def test_where_a_checkout_stands(checkout: Path) -> None:
    assert checked_out(checkout) == ""
    made = commit(checkout)
    assert checked_out(checkout) == made
    assert checked_out(checkout / ".git") == ""  # no checkout of its own


def test_a_git_around_this_one_leads_nowhere_else(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    run_git("init", "--quiet", ".", folder=other)
    made = commit(checkout)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert checked_out(checkout) == made


def test_no_hook_and_no_prompt(checkout: Path) -> None:
    hook = checkout / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    commit(checkout)


def test_what_git_says_is_shown_without_secrets(checkout: Path) -> None:
    with pytest.raises(PatchforgeError, match="git show failed") as caught:
        run_git("show", "secret", folder=checkout, hide=lambda text: text.replace("secret", "***"))
    assert "secret" not in str(caught.value)
    assert "'***'" in str(caught.value)


def test_the_network_is_tried_again(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def broken(*arguments: str, **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(arguments)
        return subprocess.CompletedProcess(arguments, 128, "", "fatal: Could not resolve host: github.com")

    monkeypatch.setattr(command, "git", broken)
    with pytest.raises(TryAgain, match="did not reach the other side"):
        run_git("fetch", folder=checkout, tries=3)
    assert len(asked) == 3


def test_without_git_or_folder(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no" in git("status", folder=checkout / "absent").stderr
    monkeypatch.setenv("PATH", str(checkout))
    done = git("status")
    assert (done.returncode, done.stderr) == (127, "fatal: git is not installed")
    with pytest.raises(PatchforgeError, match="git is not installed"):
        run_git("status")


def test_an_answer_that_takes_too_long(checkout: Path) -> None:
    done = git("-c", "alias.wait=!sleep 1", "wait", folder=checkout, timeout=0.05)
    assert (done.returncode, done.stderr) == (124, "fatal: no answer within 0.05 seconds")
