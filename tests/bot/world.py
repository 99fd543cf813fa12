"""The bot's world for tests: upstream and our repository as bare git repositories, a fake GitHub, and people."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from patchforge import cli, pipeline
from patchforge.bot import forge, repository
from patchforge.bot.token import Token
from patchforge.commands import bot as command
from patchforge.engine.convert import Engine
from patchforge.errors import PatchforgeError
from patchforge.git import command as git_command
from patchforge.rules import transforms
from patchforge.sources.git import GitObjects, GitTree
from patchforge.vocabulary import Release, Version
from tests.bot.fake_github import FakeGitHub
from tests.support import MINIATURES, engine_of, miniature

REPOSITORY, UPSTREAM = "someone/patchforge", "Comfy-Org/ComfyUI"
TOKEN = "ghp_SeCrEt+token/of=tests"
BOT = "patchforge@users.noreply.github.com"
BASE, FIRST, SECOND, THIRD = "v0.30.0", "v0.31.0", "v0.32.0", "v0.33.0"
TOML = (MINIATURES.parent.parent / "upstream" / "comfyui.toml").read_text()


class CrashError(BaseException):
    """Stands for a killed process: no except clause of the bot's catches it."""


def _person(who: str = "person", date: str = "2026-01-01T00:00:00Z") -> dict[str, str]:
    """The variables by which git commits as somebody."""
    person = {"NAME": who, "EMAIL": BOT if who == "patchforge" else f"{who}@example.org", "DATE": date}
    return {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in person.items()}


def git(folder: Path, *arguments: str, given: bytes = b"", **who: str) -> str:
    environment = {**os.environ, **_person(**who), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, input=given, capture_output=True, check=False
    )
    assert done.returncode == 0, f"git {arguments}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def bare(path: Path) -> Path:
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--bare", "--initial-branch=main", ".")
    return path


def put(
    target: Path, files: Mapping[str, bytes], *, branch: str = "main", message: str = "a commit", **who: str
) -> str:
    """Commits files on a branch of a bare repository, as somebody; returns the commit. A new branch begins at main."""
    names = git(target, "for-each-ref", "--format=%(refname)", f"refs/heads/{branch}", "refs/heads/main").splitlines()
    start = next((name for name in (f"refs/heads/{branch}", "refs/heads/main") if name in names), "")
    person = _person(**who)
    when = datetime.fromisoformat(person["GIT_AUTHOR_DATE"])
    author = f"{person['GIT_AUTHOR_NAME']} <{person['GIT_AUTHOR_EMAIL']}> {int(when.timestamp())} {when:%z}"
    stream = [f"commit refs/heads/{branch}\nmark :1\nauthor {author}\ncommitter {author}\n".encode()]
    stream += [_data(f"{message}\n".encode()), *([f"from {start}^0\n".encode()] if start else [])]
    stream += [b"M 100644 inline %b\n%b" % (path.encode(), _data(data)) for path, data in files.items()]
    return git(target, "fast-import", "--quiet", given=b"".join([*stream, b"\nget-mark :1\ndone\n"]))


def _data(data: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(data), data)


def source(version: str) -> dict[str, bytes]:
    """The miniature release under another number."""
    files = miniature("v0.33.0")
    stated = f'__version__ = "{version.removeprefix("v")}"\n'.encode()
    return {**files, "comfyui_version.py": stated, "requirements.txt": f"torch\nfront-end=={version[1:]}\n".encode()}


def build(folder: Path) -> Engine:
    """Upstream with BASE, and our repository with BASE generated; returns the engine that all tests share."""
    engine = engine_of(transforms(), cache=folder / "cache")
    upstream, ours = bare(folder / "upstream.git"), bare(folder / "ours.git")
    commit = put(upstream, source(BASE))
    git(upstream, "tag", BASE)
    objects = GitObjects(upstream)
    patched = pipeline.convert(engine, Release(Version.parse(BASE), commit), GitTree(objects, commit))
    files = {f"generated/comfyui/{BASE}/{name}": data for name, data in patched.files().items()}
    objects.close()
    files["upstream/comfyui.toml"] = TOML.encode()
    files["upstream/comfyui.releases.tsv"] = f"version\tcommit\tdate\n{BASE}\t{commit}\t2026-01-01\n".encode()
    put(ours, files)
    return engine


PARSER = cli.parser()
_MERGED = ("-m", "merge", "-p", "main")
CHECK, CHECKED = pipeline.check, set[Hashable]()


def checked(patched: pipeline.PatchedRelease, context: int = 0) -> None:
    """The check, once for the same bytes before and after: the bot comes upon them in run after run."""
    bytes_of = tuple(tuple(sorted(files.items())) for files in (patched.before, patched.after))
    if (asked := (patched.release, bytes_of, context)) not in CHECKED:
        CHECK(patched, context)
        CHECKED.add(asked)


def bot_options(*arguments: str) -> argparse.Namespace:
    """The options of ``patchforge bot``."""
    return PARSER.parse_args(["bot", *arguments])


@dataclass
class World:
    """One test's copy of everything, and what it does to it."""

    folder: Path
    engine: Engine
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    said: list[str] = field(default_factory=list)
    has_token: bool = True
    crash: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self.upstream, self.ours = self.folder / "upstream.git", self.folder / "ours.git"
        self.github = FakeGitHub(REPOSITORY, UPSTREAM, self.branch_exists)
        self.publish(BASE)
        quick = forge.Patience(tries=3, first=0.01, longest=5, timeout=1, between_requests=0, between_writes=0)
        self.monkeypatch.setattr(forge, "Patience", lambda: quick)
        self.monkeypatch.setattr(git_command, "_PAUSE", 0.01)
        self.monkeypatch.setattr(pipeline, "check", checked)
        self.monkeypatch.setattr(command, "make_engine", lambda _: self.engine)
        self.monkeypatch.setattr(command, "Forge", lambda *a, **k: forge.Forge(*a, **k, step=self.step))
        self.monkeypatch.setattr(command, "Repository", lambda *a, **k: repository.Repository(*a, **k, step=self.step))
        self.monkeypatch.setenv("GITHUB_API_URL", self.github.url)
        self.give_token()
        for name in ("GH_TOKEN", "GITHUB_REPOSITORY", "CREDENTIALS_DIRECTORY"):
            self.monkeypatch.delenv(name, raising=False)

    def give_token(self) -> None:
        """Each run takes it out of the environment."""
        self.monkeypatch.setenv("GITHUB_TOKEN", TOKEN)

    def step(self, name: str) -> None:
        self.crash(name)

    def branch_exists(self, branch: str) -> bool:
        return bool(git(self.ours, "for-each-ref", f"refs/heads/{branch}"))

    def release(
        self,
        version: str,
        files: Mapping[str, bytes] | None = None,
        *,
        published: bool = True,
        date: str = "2026-02-01T00:00:00Z",
        **more: Any,
    ) -> str:
        """Upstream makes a commit and tags it; with ``published``, GitHub has a release of it."""
        commit = put(self.upstream, {**source(version), **(files or {})}, date=date)
        git(self.upstream, "tag", "--force", version)
        if published:
            self.publish(version, **more)
        return commit

    def publish(self, tag: str, **more: Any) -> None:
        when = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        row = {"tag_name": tag, "name": tag, "body": f"Notes of {tag}", "draft": False, "prerelease": False}
        self.github.releases.insert(0, {**row, "published_at": when, **more})

    def bot(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit status and JSON of a run, with an error's text under "error"."""
        return self.call("bot", "--upstream", str(self.upstream), *arguments)

    def call(self, *words: str) -> tuple[int, dict[str, Any]]:
        """As ``bot``, for the whole command line but what names the repository."""
        named = ["--repository", REPOSITORY, "--remote", str(self.ours)]
        command = 2 if words[0] == "packs" else 1
        options = PARSER.parse_args([*words[:command], *named, "--json", *words[command:]])
        before = len(self.github.writes)
        if self.has_token:
            self.give_token()
        try:
            status, error = options.run(options), ""
        except PatchforgeError as failed:
            status, error = int(failed.status), str(failed)
        out, err = self.capsys.readouterr()
        self.said += [out, err, error]
        data = json.loads(out) if out else {}
        return int(status), {**data, "error": error, "api_writes": self.github.writes[before:]}

    def pull(self, number: int) -> dict[str, Any]:
        return next(pull for pull in self.github.pulls if pull["number"] == number)

    def merge(self, number: int) -> None:
        """A person merges a pull request, and leaves its branch."""
        branch = self.pull(number)["head"]["ref"]
        tree = git(self.ours, "merge-tree", "--write-tree", "main", branch)
        git(self.ours, "update-ref", "refs/heads/main", git(self.ours, "commit-tree", tree, *_MERGED, "-p", branch))
        self.pull(number).update(state="closed", merged_at="2026-03-01T00:00:00Z")

    def commit(self, branch: str, files: Mapping[str, bytes], who: str = "person") -> str:
        return put(self.ours, files, branch=branch, who=who)

    def branches(self) -> dict[str, str]:
        rows = git(self.ours, "for-each-ref", "--format=%(refname:strip=2) %(objectname)", "refs/heads").splitlines()
        return dict(row.split(" ") for row in rows if not row.startswith("main "))

    def end_state(self) -> dict[str, Any]:
        """All that a run leaves in the world, without numbers that depend on the order of failures."""
        return {
            "branches": self.branches(),
            "pulls": [(pull["state"], pull["head"]["ref"], pull["title"], pull["body"]) for pull in self.github.pulls],
            "issues": [(issue["state"], issue["title"], issue["body"]) for issue in self.github.issues],
            "comments": {
                number: [comment["body"] for comment in said] for number, said in self.github.comments.items()
            },
        }

    def close(self) -> None:
        """Ends the server, and looks for the token in everything that was printed, sent or stored."""
        self.github.close()
        everything = [*self.said, *self.github.bodies, *self.github.log, json.dumps(self.end_state())]
        everything += [(path / "config").read_text() for path in (self.upstream, self.ours)]
        for secret in (TOKEN, Token(TOKEN).basic.split()[1], "SeCrEt"):
            assert not [text for text in everything if secret in text]
