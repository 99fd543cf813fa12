"""Git as a command."""

from __future__ import annotations

import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from patchforge.errors import Damaged, NotChecked, PatchforgeError, TryAgain
from patchforge.git import command, size
from patchforge.git.borrowed import checked_out
from patchforge.git.command import git, git_bytes, is_passing, run_git, watch_git
from patchforge.git.size import check_size
from tests.web.hostile import Speech, endless, serving, silent


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
    with pytest.raises(TryAgain, match="did not reach the server"):
        run_git("fetch", folder=checkout, tries=3)
    assert len(asked) == 3


def test_without_git_or_folder(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no" in git("status", folder=checkout / "absent").stderr
    monkeypatch.setenv("PATH", str(checkout))
    starts = (git, run_git, partial(watch_git, folder=checkout, hear=print), partial(git_bytes, repository=checkout))
    for start in starts:
        with pytest.raises(NotChecked, match="git is not installed"):
            start("status")


def test_an_answer_that_takes_too_long(checkout: Path) -> None:
    done = git("-c", "alias.wait=!sleep 1", "wait", folder=checkout, timeout=0.05)
    assert (done.returncode, done.stderr) == (124, "fatal: no answer within 0.05 seconds")


ADVERTISED = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n"
SERVERS: dict[str, Speech] = {
    "silence": silent,
    "a byte now and then": endless(ADVERTISED + b"X: ", b"y", 0.1),
    "a body that drips": endless(ADVERTISED + b"Content-Length: 60000\r\n\r\n", b"0", 0.1),
    "refs without an end": endless(ADVERTISED + b"\r\n001e# service=git-upload-pack\n0000", b"003d" + b"1" * 57, 0.01),
}


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("verb", ["ls-remote", "clone", "watched"])
def test_a_server_that_keeps_git_waiting(name: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git is ended with all that it started; none of it asks again."""
    monkeypatch.setattr(command, "_SILENCE", 0.5)
    begun = time.monotonic()
    with serving(SERVERS[name]) as server:
        if verb == "watched":
            said: list[str] = []
            words = ("clone", "--bare", "--", server.url, str(tmp_path / "clone"))
            assert watch_git(*words, folder=tmp_path, hear=said.append) != 0
            assert is_passing(" ".join(said))
        else:
            with pytest.raises(TryAgain):
                run_git(verb, "--", server.url, *([str(tmp_path / "clone")] if verb == "clone" else []), tries=3)
        assert len(server.asked) == 1
    assert time.monotonic() - begun < 9


def test_what_would_fill_the_disk_is_not_written(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "zeros").write_bytes(bytes(5000))
    run_git("add", ".", folder=checkout)
    commit(checkout)
    check_size(checkout)
    for name, most in (("MOST_BYTES", 4999), ("MOST_FILES", 0)):
        monkeypatch.setattr(size, name, most)
        with pytest.raises(Damaged, match="would fill the disk"):
            check_size(checkout)
