"""Git as a command: in a plain environment, without prompts, and with errors that a person can act on."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from patchforge.errors import PatchforgeError, TryAgain

#: Reading a clone fetches nothing (patchforge/sources/git.py says why both).
OFFLINE = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
_PLAIN = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
#: A git around this one, such as that of a hook, would lead to another repository.
_NOT_PASSED_ON = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
#: Whatever the machine's git is set to, commits and checkouts have the same bytes and start no hooks.
_SETTINGS = ("core.autocrlf=false", "core.hooksPath=/dev/null", "commit.gpgSign=false", "gc.auto=0")
_PASSING = re.compile(
    r"could not resolve host|connection (?:timed out|reset|refused)|couldn't connect|early eof|timed out|rpc failed"
    r"|unexpected disconnect|the remote end hung up|http 5\d\d|error: 5\d\d|error: 429|ssl_error_syscall",
    re.IGNORECASE,
)
_PAUSE = 1.0
_TAKES_A_VALUE = ("-c", "-C")


def is_passing(said: str) -> bool:
    """Whether git's words tell of the network or the other side's health, so that trying again may help."""
    return bool(_PASSING.search(said))


def git(
    *arguments: str,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    given: str = "",
    timeout: float | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """What became of a git command, which gets ``pass_fds``. Status 127 without git, 124 after ``timeout`` seconds."""
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**inherited, **_PLAIN, **(environment or {})},
            input=given.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=timeout,
            pass_fds=pass_fds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(arguments, 124, "", f"fatal: no answer within {timeout} seconds")
    except FileNotFoundError as error:
        what = "git is not installed" if error.filename == "git" else f"there is no {error.filename}"
        return subprocess.CompletedProcess(arguments, 127, "", f"fatal: {what}")
    said, told = done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "replace")
    return subprocess.CompletedProcess(arguments, done.returncode, said, told)


def run_git(
    *arguments: str,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    hide: Callable[[str], str] = str,
    tries: int = 1,
    pass_fds: Sequence[int] = (),
) -> str:
    """What git prints. ``tries``: how often to begin again when the network failed; TryAgain when it still fails.

    ``hide`` takes secrets out of git's words before they are shown.
    """
    settings = [word for one in _SETTINGS for word in ("-c", one)]
    for attempt in range(1, tries + 1):
        done = git(*settings, *arguments, folder=folder, environment=environment, pass_fds=pass_fds)
        if done.returncode == 0:
            return done.stdout
        said = hide(done.stderr.strip())
        if not is_passing(said):
            break
        if attempt < tries:
            time.sleep(_PAUSE * 2 ** (attempt - 1))
    pairs = zip(("", *arguments), arguments, strict=False)
    verb = next(word for before, word in pairs if not word.startswith("-") and before not in _TAKES_A_VALUE)
    if is_passing(said):
        raise TryAgain(f"git {verb} did not reach the other side", found=said, do="run this again later")
    raise PatchforgeError(f"git {verb} failed", found=said or f"status {done.returncode}", do="read git's reason")


def checked_out(folder: Path) -> str:
    """The commit that a checkout stands on; "" for a folder that is none, and before its first commit."""
    if not (folder / ".git").exists():
        return ""
    done = git("rev-parse", "HEAD", folder=folder)
    return "" if done.returncode else done.stdout.strip()
