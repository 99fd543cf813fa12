"""The one door to git: which addresses are given to it, and with which environment and settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from patchforge.bot.discovery import list_tags
from patchforge.errors import PatchforgeError
from patchforge.escape import without_password
from patchforge.git.address import check_address
from patchforge.git.borrowed import checked_out
from patchforge.git.clone import CachedClone
from patchforge.git.command import git, git_environment, run_git, verb_of
from tests.sources.hostile import Witness, made, plain_git
from tests.support import ROOT


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/Comfy-Org/ComfyUI",
        "https://github.com:443/a/b.git",
        "HTTPS://GitHub.com/a/b",
        "ssh://git@github.com/a/b",
        "ssh://github.com:22/a/b",
        "git@github.com:a/b.git",
        "file:///srv/comfy.git",
        "http://127.0.0.1:8080/a.git",
        "http://localhost/a.git",
        "http://[::1]:1/a.git",
    ],
)
def test_addresses_that_are_taken(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("ext::sh -c touch% /tmp/x", "white space"),
        ("ext::sh", "helper"),
        ("fd::17", "helper"),
        ("https::https://github.com/a/b", "helper"),
        ("git://github.com/a/b", "scheme git"),
        ("ftp://example.org/a", "scheme ftp"),
        ("http://github.com/a/b", "plain http"),
        ("http://127.0.0.1.example.org/a", "plain http"),
        ("http://127.0.0.1@example.org/a", "user, password or token"),
        ("http://localhost.example.org/", "plain http"),
        ("http://0.0.0.0/a", "plain http"),
        ("https://me:secret@github.com/a/b", "user, password or token"),
        ("https://ghp_secret@github.com/a/b", "user, password or token"),
        ("https://:secret@github.com/a/b", "user, password or token"),
        ("ssh://git:secret@github.com/a/b", "user, password or token"),
        ("ssh://-oProxyCommand=secret/a", "dash"),
        ("ssh://-oProxyCommand=x@github.com/a", "dash"),
        ("git@-oProxyCommand=x:a/b", ""),
        ("git@github.com:-a", "dash"),
        ("--upload-pack=x://a", ""),
        ("https://", "no host"),
        ("https:///a/b", "no host"),
        ("https://github.com:port/a", "Port"),
        ("https://[::1/a", "IPv6"),
        ("https://github.com/a\nb", "control"),
        ("https://github.com/a b", "white space"),
        ("https://github.com/\x1b[2J", "control"),
        ("file://server/share", "another machine"),
        ("just-a-name", "no scheme"),
        ("", "no scheme"),
    ],
)
def test_addresses_that_are_not(address: str, why: str) -> None:
    with pytest.raises(PatchforgeError, match="is not accepted as an address") as caught:
        check_address(address)
    assert why in caught.value.found
    assert "secret@" not in str(caught.value)


def test_a_password_is_shown_nowhere() -> None:
    assert without_password("https://me:secret@host:1/a@b") == "https://*****:*****@host:1/a@b"
    assert without_password("https://token@host") == "https://*****:*****@host"
    assert without_password("ssh://git@host/a") == "ssh://git@host/a"
    assert without_password("https://host/a@b") == "https://host/a@b"


@pytest.mark.parametrize(
    "address", ["ext::touch x", "git://127.0.0.1/a", "http://example.invalid/a", "https://t@x.invalid/a"]
)
def test_no_command_gives_git_such_an_address(address: str, tmp_path: Path) -> None:
    for ask in (
        lambda: run_git("ls-remote", "--", address),
        lambda: run_git("clone", "--", address, str(tmp_path / "x")),
        lambda: CachedClone.of(address).ensure(),
        lambda: list_tags(address),
    ):
        with pytest.raises(PatchforgeError, match=r"is not accepted as an address|is not a git repository"):
            ask()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "verb"),
    [
        (["-c", "user.name=x", "commit"], "commit"),
        (["-C", "/x", "--git-dir=y", "fetch", "--", "a"], "fetch"),
        (["--git-dir", "y", "show"], "show"),
        (["--version"], ""),
    ],
)
def test_the_verb(arguments: list[str], verb: str) -> None:
    assert verb_of(arguments) == verb


def settings_in(environment: dict[str, str]) -> list[tuple[str, str]]:
    count = int(environment["GIT_CONFIG_COUNT"])
    return [
        (environment[f"GIT_CONFIG_KEY_{number}"], environment[f"GIT_CONFIG_VALUE_{number}"]) for number in range(count)
    ]


def test_nothing_of_the_callers_environment_but_what_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("GH_TOKEN", "AWS_SECRET_ACCESS_KEY", "GIT_SSH_COMMAND", "GIT_ANYTHING_NEW", "SSH_ASKPASS", "LD_PRELOAD")
    for name in (*secrets, "SSH_AUTH_SOCK", "https_proxy"):
        monkeypatch.setenv(name, "secret")
    reading, reaching = git_environment(["cat-file"]), git_environment(["fetch"])
    assert not [name for name in secrets if name in reading | reaching]
    assert "secret" not in reading.values()
    assert {name for name, value in reaching.items() if value == "secret"} == {"SSH_AUTH_SOCK", "https_proxy"}
    assert (reading["GIT_ALLOW_PROTOCOL"], reading["GIT_NO_LAZY_FETCH"]) == ("none", "1")
    assert reaching["GIT_ALLOW_PROTOCOL"] == "file:https:ssh"
    assert git_environment(["fetch", "http://127.0.0.1:1/x"])["GIT_ALLOW_PROTOCOL"] == "file:https:ssh:http"


def test_what_the_users_own_settings_may_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies, certificates, credential helpers and mirrors, for commands that reach other machines; nothing else."""
    taken = {
        "http.proxy": "p",
        "http.https://x/.sslcainfo": "c",
        "credential.helper": "h",
        "url.https://m/.insteadof": "u",
    }
    left = ("core.fsmonitor", "core.pager", "http.extraheader", "protocol.ext.allow", "init.templatedir", "alias.fetch")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    for key, value in {**taken, **dict.fromkeys(left, "evil")}.items():
        plain_git(tmp_path, "config", "--file", "config", key, value)
    assert set(taken.items()) <= set(settings_in(git_environment(["fetch"])))
    for environment in (git_environment(["fetch"]), git_environment(["rev-list"])):
        assert "evil" not in environment.values()
        assert environment["GIT_CONFIG_GLOBAL"] != str(tmp_path / "config")
    assert not set(taken.items()) & set(settings_in(git_environment(["rev-list"])))


@pytest.mark.parametrize("way", ["settings", "variables"])
def test_a_secret_header_is_for_its_host_alone(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    plain_git(tmp_path, "config", "--file", "config", "credential.helper", "!evil")
    pair = ("http.https://github.com/.extraHeader", "Authorization: x")
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": pair[0], "GIT_CONFIG_VALUE_0": pair[1]}
    if way == "settings":
        settings = settings_in(git_environment(["push"], settings=[pair]))
    else:
        settings = settings_in(git_environment(["push"], given=given))
    assert pair in settings
    assert ("http.followRedirects", "false") in settings
    assert ("credential.helper", "!evil") not in settings
    assert ("http.followRedirects", "initial") in settings_in(git_environment(["push"]))


class Hosts:
    """Two servers: the first sends git on to the second. ``headers``: what the second one was told."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        hosts = self

        class Second(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hosts.headers.append(dict(self.headers))
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        class First(Second):
            def do_GET(self) -> None:
                self.send_response(302)
                self.send_header("Location", f"{hosts.addresses[1]}{self.path}")
                self.end_headers()

        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (First, Second)]
        self.addresses = [f"http://127.0.0.1:{server.server_port}" for server in self.servers]
        self.threads = [threading.Thread(target=server.serve_forever) for server in self.servers]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        for server, thread in zip(self.servers, self.threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    running = Hosts()
    yield running
    running.close()


def test_a_secret_does_not_follow_a_redirect(hosts: Hosts) -> None:
    address = f"{hosts.addresses[0]}/a.git"
    header = (f"http.{hosts.addresses[0]}/.extraHeader", "Authorization: secret")
    assert git("ls-remote", "--", address, settings=[header]).returncode
    assert hosts.headers == []
    assert git("ls-remote", "--", address).returncode
    assert len(hosts.headers) == 1
    assert "Authorization" not in hosts.headers[0]


def test_a_repository_around_us_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings say how its remotes are reached; ours are reached in our own way."""
    witness = Witness.at(tmp_path)
    clone = made(tmp_path / "clone", {"a": b"a\n"})
    for key, value in {
        "core.sshCommand": str(witness.program),
        "url.ext::x.insteadOf": "file://",
        "credential.helper": f"!{witness.program}",
        "core.fsmonitor": str(witness.program),
    }.items():
        plain_git(clone, "config", key, value)
    monkeypatch.chdir(clone)
    assert git("ls-remote", "--", "ssh://127.0.0.1:1/x").returncode
    other = made(tmp_path / "other", {"b": b"b\n"})
    assert "v0.33.0" in list_tags(other.as_uri())[0]
    assert "v0.33.0" in list_tags("../other")[0]
    run_git("clone", "--quiet", "--", "../other", str(tmp_path / "made"))
    assert (tmp_path / "made" / "b").read_bytes() == b"b\n"
    assert witness.seen == ""


def test_a_relative_path_after_the_dashes_stays_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "clone", {"a": b"a\n"})
    monkeypatch.chdir(tmp_path / "clone")
    run_git("clone", "--quiet", "--", ".", str(tmp_path / "copy"))
    assert re.search("v0.33.0$", run_git("ls-remote", "--tags", "--", "../copy", "refs/tags/v0.33.0").strip())


def test_a_zero_byte_is_an_error() -> None:
    with pytest.raises(PatchforgeError, match="zero byte"):
        git("rev-parse", "a\0b")


def test_worktrees_submodules_and_links_to_a_git_folder(tmp_path: Path) -> None:
    clone = made(tmp_path / "clone", {"a": b"a\n"})
    plain_git(clone, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    (tmp_path / "tree" / "b").write_text("b")
    plain_git(tmp_path / "tree", "add", "b")
    plain_git(tmp_path / "tree", "commit", "-q", "-m", "two")
    assert checked_out(tmp_path / "tree") == plain_git(tmp_path / "tree", "rev-parse", "HEAD") != checked_out(clone)
    with_tags = list_tags(str(tmp_path / "tree"))[0]
    assert set(with_tags) == {"note", "v0.33.0"}
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / ".git").symlink_to(clone / ".git")
    assert checked_out(linked) == checked_out(clone)
    plain_git(
        clone, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--", str(tmp_path / "clone"), "sub"
    )
    assert checked_out(clone / "sub") == plain_git(clone / "sub", "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "text", ["", "gitdir: ", "gitdir: /nowhere", "nonsense", "gitdir: \0", "gitdir: .", "gitdir: ../x/.git"]
)
def test_a_git_file_that_leads_nowhere(tmp_path: Path, text: str) -> None:
    (tmp_path / ".git").write_text(text)
    assert checked_out(tmp_path) == ""
    with pytest.raises(PatchforgeError, match="is not a git repository"):
        list_tags(str(tmp_path))


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("[core", "cannot be read"),
        ("[extensions]\nrefStorage = sqlite\n", "a kind of repository"),
        ("[extensions]\nobjectFormat = md5\n", "a kind of repository"),
        ("[extensions]\nsomethingNew = x\n", "a kind of repository"),
    ],
)
def test_a_kind_of_repository_that_is_not_read(tmp_path: Path, lines: str, why: str) -> None:
    clone = made(tmp_path / "clone", {"a": b"a\n"})
    with (clone / ".git" / "config").open("a") as stream:
        stream.write(lines)
    with pytest.raises(PatchforgeError, match=why):
        list_tags(str(clone))


def test_a_repository_with_sha256(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    plain_git(clone, "init", "-q", "--object-format=sha256")
    (clone / "a").write_text("a\n")
    plain_git(clone, "add", "a")
    plain_git(clone, "commit", "-q", "-m", "one")
    plain_git(clone, "tag", "v1.0")
    head = plain_git(clone, "rev-parse", "HEAD")
    assert list_tags(str(clone)) == ({"v1.0": head}, [])
    assert list_tags(clone.as_uri()) == ({"v1.0": head}, [])


def test_the_import_of_gitpython_shows_git_nothing_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\nenv >> {tmp_path}/seen\necho git version 2.39.5\n")
    (tmp_path / "git").chmod(0o755)
    given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "SECRET": "mine", "LC_SECRET": "mine"}
    code = "import os; from patchforge.git.gitpython import import_git; import_git(); print(os.environ['SECRET'])"
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert done.stdout == "mine\n"
    assert "mine" not in (tmp_path / "seen").read_text()
