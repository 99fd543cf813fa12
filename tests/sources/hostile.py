"""Repositories that strangers made: settings that run programs, refs and objects that git would not write."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PERSON = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
_DATE = {f"GIT_{who}_DATE": "2026-03-04T05:06:07+01:00" for who in ("AUTHOR", "COMMITTER")}
_NOBODY = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **_PERSON, **_DATE}


def plain_git(folder: Path, *arguments: str, given: bytes = b"") -> str:
    """Git as the test itself uses it."""
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**{name: value for name, value in os.environ.items() if not name.startswith("GIT_")}, **_NOBODY},
        input=given,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def made(folder: Path, files: dict[str, bytes]) -> Path:
    """A checkout with one commit, tagged v0.33.0 and ``note`` (annotated)."""
    folder.mkdir()
    plain_git(folder, "init", "-q", "-b", "main")
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    plain_git(folder, "add", "-A")
    plain_git(folder, "commit", "-q", "-m", "one")
    plain_git(folder, "tag", "v0.33.0")
    plain_git(folder, "tag", "-a", "-m", "said", "note")
    return folder


@dataclass(frozen=True)
class Witness:
    """A program that leaves a trace wherever it is started."""

    program: Path
    trace: Path

    @classmethod
    def at(cls, folder: Path) -> Witness:
        witness = cls(folder / "witness", folder / "trace")
        witness.program.write_text(
            f'#!/bin/sh\necho "$0 $*" >> {witness.trace}\ncat >/dev/null 2>&1 </dev/null\nexit 0\n'
        )
        witness.program.chmod(0o755)
        return witness

    @property
    def seen(self) -> str:
        return self.trace.read_text() if self.trace.exists() else ""


def setting(*lines: str) -> Callable[[Path, Witness], None]:
    """Adds lines to a clone's config; ``W`` in them becomes the program."""

    def harm(clone: Path, witness: Witness) -> None:
        with (clone / ".git" / "config").open("a") as stream:
            stream.write("".join(f"{line}\n" for line in lines).replace("W", str(witness.program)))

    return harm


def attributes(*lines: str) -> Callable[[Path, Witness], None]:
    """Settings, and attributes of the clone that use them for every file."""

    def harm(clone: Path, witness: Witness) -> None:
        setting(*lines)(clone, witness)
        (clone / ".git" / "info").mkdir(exist_ok=True)
        (clone / ".git" / "info" / "attributes").write_text("* diff=x filter=x merge=x text=auto\n")

    return harm


HOOKS = (
    *("applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit", "prepare-commit-msg"),
    *("commit-msg", "post-commit", "pre-rebase", "post-checkout", "post-merge", "pre-push", "pre-receive", "update"),
    *("proc-receive", "post-receive", "post-update", "reference-transaction", "push-to-checkout", "pre-auto-gc"),
    *("post-rewrite", "sendemail-validate", "fsmonitor-watchman", "post-index-change"),
)


def hooks(clone: Path, witness: Witness) -> None:
    """Every hook that git knows, in its own place and in another."""
    for folder in (clone / ".git" / "hooks", clone / "more"):
        folder.mkdir(exist_ok=True)
        for name in HOOKS:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(witness.program)


def hooks_path(clone: Path, witness: Witness) -> None:
    hooks(clone, witness)
    setting("[core]", f"hooksPath = {clone / 'more'}")(clone, witness)


def included(clone: Path, witness: Witness) -> None:
    (clone / "evil").write_text(f"[core]\nfsmonitor = {witness.program}\npager = {witness.program}\n")
    setting("[include]", f"path = {clone / 'evil'}")(clone, witness)


def included_if(clone: Path, witness: Witness) -> None:
    (clone / "evil").write_text(f"[core]\nfsmonitor = {witness.program}\nsshCommand = {witness.program}\n")
    setting('[includeIf "gitdir:/"]', f"path = {clone / 'evil'}")(clone, witness)


def worktree_config(clone: Path, witness: Witness) -> None:
    setting("[extensions]", "worktreeConfig = true")(clone, witness)
    (clone / ".git" / "config.worktree").write_text(f"[core]\nfsmonitor = {witness.program}\n")


def promisor(clone: Path, witness: Witness) -> None:
    """A blob is missing, and the remote that has promised it is a program."""
    blob = plain_git(clone, "rev-parse", "HEAD:requirements.txt")
    (clone / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    setting(
        "[core]",
        "repositoryformatversion = 1",
        "[extensions]",
        "partialClone = origin",
        '[remote "origin"]',
        "url = ext::W %S",
        "promisor = true",
        "partialclonefilter = blob:none",
        "uploadpack = W",
        '[protocol "ext"]',
        "allow = always",
    )(clone, witness)


def signed(clone: Path, witness: Witness) -> None:
    """The commit has a signature, and the programs that would check it are the stranger's."""
    old = plain_git(clone, "cat-file", "commit", "HEAD")
    head, _, body = old.partition("\n\n")
    text = f"{head}\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n{body}\n"
    commit = plain_git(clone, "hash-object", "-t", "commit", "-w", "--stdin", given=text.encode())
    for ref in ("refs/heads/main", "refs/tags/v0.33.0"):
        plain_git(clone, "update-ref", ref, commit)
    lines = ["[log]", "showSignature = true", "[gpg]", "program = W", '[gpg "ssh"]', "program = W"]
    setting(*lines, '[gpg "x509"]', "program = W")(clone, witness)


def worktree_elsewhere(clone: Path, witness: Witness) -> None:
    setting("[core]", f"worktree = {clone.parent}", "fsmonitor = W")(clone, witness)


_VERBS = ("cat-file", "rev-list", "rev-parse", "for-each-ref", "show", "log", "fsck", "ls-remote", "archive", "config")

#: What a stranger can write into a clone so that a program runs.
SETTINGS: dict[str, Callable[[Path, Witness], None]] = {
    "core.fsmonitor": setting("[core]", "fsmonitor = W"),
    "core.fsmonitor, hook version 2": setting("[core]", "fsmonitor = W", "fsmonitorHookVersion = 2"),
    "core.sshCommand": setting("[core]", "sshCommand = W", '[remote "origin"]', "url = ssh://example.invalid/x"),
    "core.pager": setting("[core]", "pager = W", "[pager]", *(f"{verb} = W" for verb in _VERBS)),
    "core.editor": setting("[core]", "editor = W", "[sequence]", "editor = W"),
    "core.askPass": setting("[core]", "askPass = W"),
    "core.gitProxy": setting("[core]", "gitProxy = W"),
    "core.alternateRefsCommand": setting("[core]", "alternateRefsCommand = W"),
    "core.hooksPath": hooks_path,
    "core.worktree": worktree_elsewhere,
    "hooks": hooks,
    "diff.external": setting("[diff]", "external = W"),
    "diff.x.command": attributes('[diff "x"]', "command = W"),
    "diff.x.textconv": attributes('[diff "x"]', "textconv = W", "cachetextconv = true"),
    "filter.x.smudge": attributes('[filter "x"]', "smudge = W", "clean = W", "required = true"),
    "filter.x.process": attributes('[filter "x"]', "process = W", "required = true"),
    "merge.x.driver": attributes('[merge "x"]', "driver = W"),
    "gpg.program": signed,
    "credential.helper": setting("[credential]", "helper = !W", '[credential "https://github.com"]', "helper = !W"),
    "remote.x.uploadpack": setting('[remote "origin"]', "url = .", "uploadpack = W", "receivepack = W"),
    "remote.x.vcs": setting('[remote "origin"]', "vcs = ext", "url = ext::W", '[protocol "ext"]', "allow = always"),
    "url.x.insteadOf": setting(
        '[url "ext::W "]', "insteadOf = /", "insteadOf = file://", "[protocol]", "allow = always"
    ),
    "alias": setting("[alias]", *(f"{verb} = !W" for verb in _VERBS)),
    "include.path": included,
    "includeIf": included_if,
    "extensions.worktreeConfig": worktree_config,
    "extensions.partialClone": promisor,
    "uploadpack.packObjectsHook": setting("[uploadpack]", "packObjectsHook = W"),
    "trailer": setting('[trailer "x"]', "key = X", "ifmissing = add", "cmd = W", "command = W"),
    "interactive.diffFilter": setting("[interactive]", "diffFilter = W"),
    "tar.x.command": setting('[tar "tar"]', "command = W", '[tar "tar.gz"]', "command = W"),
    "submodule.x.update": setting('[submodule "x"]', "url = ext::W", "update = !W", "active = true"),
    "browser and man": setting("[web]", "browser = x", '[browser "x"]', "cmd = W", '[man "x"]', "cmd = W"),
    "trace2": setting("[trace2]", "eventTarget = W", "normalTarget = W"),
    "maintenance": setting("[gc]", "auto = 1", "[maintenance]", "auto = true", "[core]", "fsmonitor = W"),
}
