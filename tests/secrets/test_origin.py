"""No token leaves the origin that it is for: real git, real servers on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from patchforge.bot.mirror import Mirror
from patchforge.bot.repository import Repository
from patchforge.bot.token import Token, refuse_secrets
from patchforge.errors import PatchforgeError
from patchforge.project import load_project
from tests.bot.world import TOKEN, bare, git, put
from tests.secrets.git_servers import GitServer

WANTED = Token(TOKEN).basic.replace("basic", "Basic")


@pytest.fixture
def ours(tmp_path: Path) -> GitServer:
    """A server of our repository that wants the token."""
    put(bare(tmp_path / "served" / "ours.git"), {"file": b"one\n"})
    git(tmp_path / "served" / "ours.git", "config", "http.receivepack", "true")
    return GitServer(tmp_path / "served", wants=WANTED)


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[GitServer]:
    """Another host, which has a copy and takes whatever is sent."""
    put(bare(tmp_path / "other" / "ours.git"), {"file": b"theirs\n"})
    git(tmp_path / "other" / "ours.git", "config", "http.receivepack", "true")
    server = GitServer(tmp_path / "other")
    yield server
    server.close()


def clone(server: GitServer, folder: Path) -> Repository:
    return Repository(f"{server.url}/ours.git", "main", folder / "clone", token=Token(TOKEN))


def commit(repository: Repository) -> str:
    (repository.folder / "file").write_text("two\n")
    return repository.commit(["file"], "a change", "2026-01-01T00:00:00Z")


def test_git_gets_the_token_when_its_origin_asks(ours: GitServer, tmp_path: Path) -> None:
    repository = clone(ours, tmp_path)
    made = commit(repository)
    repository.push("patchforge/one", made, "")
    assert repository.tip("patchforge/one") == made
    repository.delete("patchforge/one", made)
    assert repository.tip("patchforge/one") == ""
    assert set(ours.secrets) == {WANTED}


def test_an_origin_that_does_not_ask_is_told_nothing(theirs: GitServer, tmp_path: Path) -> None:
    commit(clone(theirs, tmp_path))
    assert theirs.asked
    assert not theirs.secrets


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("asks", [False, True], ids=["takes", "asks"])
def test_a_redirect_to_another_host_takes_no_token_along(
    ours: GitServer, theirs: GitServer, tmp_path: Path, status: int, asks: bool
) -> None:
    theirs.wants = "Basic anything" if asks else ""
    ours.moves, ours.status = {"/": theirs.url}, status
    with pytest.raises(PatchforgeError, match="leads to another address") as failed:
        clone(ours, tmp_path)
    assert TOKEN not in str(failed.value)
    assert not theirs.secrets


@pytest.mark.parametrize("after", range(1, 5))
def test_nor_does_a_redirect_after_the_first_answers(
    ours: GitServer, theirs: GitServer, tmp_path: Path, after: int
) -> None:
    """The first request is told to ask for a token, or even served, and a later one is led away."""
    repository = clone(ours, tmp_path)
    made = commit(repository)
    ours.moves, ours.after = {"/": theirs.url}, len(ours.asked) + after
    for ask in (repository.tip, repository.tip, lambda name: repository.push(name, made, "")):
        with suppress(PatchforgeError):
            ask("patchforge/one")
    assert not theirs.secrets
    assert len(ours.asked) > ours.after, "it was never led away"


def test_another_port_of_the_same_host_is_another_host(ours: GitServer, theirs: GitServer, tmp_path: Path) -> None:
    repository = clone(ours, tmp_path)
    git(repository.folder, "remote", "set-url", "origin", f"{theirs.url}/ours.git")
    theirs.wants = "Basic anything"
    with pytest.raises(PatchforgeError, match="git ls-remote failed"):
        repository.tip("main")
    assert theirs.asked
    assert not theirs.secrets


def test_users_own_programs_for_passwords_are_not_asked(
    ours: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper of the user's would be told our address, and would answer with another secret."""
    told = tmp_path / "told"
    helper = tmp_path / "helper"
    helper.write_text(f"#!/bin/sh\necho asked >> {told}\necho username=me; echo password=users-own\n")
    helper.chmod(0o755)
    (tmp_path / "gitconfig").write_text(f'[credential]\nhelper = "!{helper}"\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_ASKPASS", str(helper))
    monkeypatch.setenv("SSH_ASKPASS", str(helper))
    ours.wants = "Basic of somebody else"
    with pytest.raises(PatchforgeError):
        clone(ours, tmp_path)
    assert not told.exists()


SECRET = "ghp_" + "a" * 36


@pytest.mark.parametrize(
    "address",
    [
        "https://someone:secret@example.org/ours.git",
        "https://:secret@example.org/ours.git",
        f"https://{SECRET}@example.org/ours.git",
        f"https://{SECRET}:x-oauth-basic@example.org/ours.git",
        "HTTPS://someone:secret@example.org/ours.git",
        "https://@example.org/ours.git",
        "ssh://git:secret@example.org/ours.git",
        "ftp://someone:secret@example.org/ours.git",
        f"https://example.org/ours.git?token={SECRET}",
        f"https://example.org/{SECRET}/ours.git",
        f"ssh://git@example.org/{SECRET.replace('_', '%5F')}/ours.git",
        "http://example.org/ours.git",
        "http://192.168.1.4/ours.git",
        "http://127.0.0.1.example.org/ours.git",
        "http://localhost.example.org/ours.git",
        "HTTP://example.org/ours.git",
        "http://0.0.0.0/ours.git",
        "http:///ours.git",
        "http://[2001:db8::1]/ours.git",
    ],
)
def test_addresses_that_give_a_secret_away(address: str, tmp_path: Path) -> None:
    with pytest.raises(PatchforgeError) as failed:
        Repository(address, "main", tmp_path / "clone", token=Token(SECRET))
    assert SECRET not in str(failed.value)
    assert "secret@" not in str(failed.value)
    assert not (tmp_path / "clone").exists()


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/someone/patchforge.git",
        "git@github.com:someone/patchforge.git",
        "ssh://git@github.com/someone/patchforge.git",
        "http://127.0.0.1:8080/ours.git",
        "http://localhost/ours.git",
        "http://[::1]/ours.git",
        "/srv/ours.git",
        ".",
    ],
)
def test_addresses_that_do_not(address: str) -> None:
    refuse_secrets(address, Token(SECRET))


def test_upstreams_address_holds_no_secret_either() -> None:
    with pytest.raises(PatchforgeError, match="password or token"):
        Mirror(load_project(), "https://someone:secret@example.org/ComfyUI.git")
