"""What the tests of hashes share: real repositories, and two judges that are not patchforge: Nix and a plain NAR."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "someone",
    "GIT_AUTHOR_EMAIL": "someone@example.org",
    "GIT_COMMITTER_NAME": "someone",
    "GIT_COMMITTER_EMAIL": "someone@example.org",
    "GIT_ALLOW_PROTOCOL": "file",
}
needs_nix = pytest.mark.skipif(not shutil.which("nix"), reason="nix is not installed: nothing to compare with")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], env=ENVIRONMENT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def repository(folder: Path, files: Mapping[str, bytes | Path]) -> Path:
    """A repository whose first commit has these files; a Path stands for a link to it."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "master")
    return commit(folder, files)


def commit(folder: Path, files: Mapping[str, bytes | Path]) -> Path:
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            place.symlink_to(content)
        else:
            place.write_bytes(content)
            place.chmod(0o755 if content.startswith(b"#!") else 0o644)
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "--allow-empty", "-m", "a commit")
    return folder


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")


def archived(folder: Path, out: Path, *arguments: str) -> Path:
    """What git's own archive of HEAD unpacks to."""
    out.mkdir()
    made = subprocess.run(
        ["git", "-C", folder, "archive", "--format=tar", *arguments, "HEAD"],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
    )
    subprocess.run(["tar", "-x", "-C", out], input=made.stdout, check=True)
    return out


def judged(path: Path) -> str:
    """The hash according to Nix or, where it is not installed, to the plain serialiser below."""
    return nix_hash(path) if shutil.which("nix") else plain_hash(path)


def nix_hash(path: Path) -> str:
    """``nix hash path`` without daemon, network or store of its own."""
    private = path.parent / "nix"
    folders = {"STORE_DIR": "store", "STATE_DIR": "state", "LOG_DIR": "log", "LOCALSTATE_DIR": "lv", "CONF_DIR": "etc"}
    environment = {
        **os.environ,
        **{f"NIX_{name}": str(private / folder) for name, folder in folders.items()},
        "HOME": str(private / "home"),
        "NIX_REMOTE": "",
        "NIX_USER_CONF_FILES": os.devnull,
        "NIX_CONFIG": "substituters =\nbuild-users-group =",
    }
    command = ["nix", "--extra-experimental-features", "nix-command", "hash", "path", str(path)]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def plain_hash(path: Path) -> str:
    """A NAR by recursion, with every file in memory."""
    digest = hashlib.sha256(_text(b"nix-archive-1") + _nar(os.fsencode(path))).digest()
    return "sha256-" + base64.b64encode(digest).decode()


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data + b"\0" * (-len(data) % 8)


def _nar(place: bytes) -> bytes:
    mode = os.lstat(place).st_mode
    words = [b"(", b"type"]
    if stat.S_ISLNK(mode):
        words += [b"symlink", b"target", os.readlink(place)]  # noqa: PTH115 - bytes
    elif stat.S_ISREG(mode):
        words += [b"regular", *([b"executable", b""] if mode & 0o100 else []), b"contents"]
        words.append(Path(os.fsdecode(place)).read_bytes())
    else:
        body = b"".join(
            b"".join(map(_text, (b"entry", b"(", b"name", name, b"node"))) + _nar(place + b"/" + name) + _text(b")")
            for name in sorted(os.listdir(place))  # noqa: PTH208 - bytes
        )
        return b"".join(map(_text, [*words, b"directory"])) + body + _text(b")")
    return b"".join(map(_text, [*words, b")"]))


@needs_nix
def test_the_judges_agree(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "empty").mkdir(parents=True)
    (top / "run").write_bytes(b"#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "link").symlink_to("nowhere")
    assert plain_hash(top) == nix_hash(top)
