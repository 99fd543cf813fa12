"""GitPython's command class, with every git started by our door: it ends a process that nobody reads from any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from patchforge import faults
from patchforge.errors import PatchforgeError
from patchforge.git.command import Settings, git_environment, start_git


def reading(folder: Path, settings: Settings, said: IO[bytes]) -> Any:
    """A ``git cat-file --batch`` of a git folder of ours, as ``proc``; git's own words go to ``said``."""
    return _command_type()(folder, settings, said).cat_file("--batch")


def import_git() -> Any:
    """GitPython, imported on first use (it costs 50 ms); an error a person can act on when git is not installed.

    ModuleNotFoundError when GitPython is not: what is said of packages that are missing is said of it too.
    """
    try:
        with _plain_environment():
            import git  # noqa: PLC0415 - keeps start-up light
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        problem = "git cannot be run"
        raise PatchforgeError(
            problem, expected="a git command on PATH", found=faults.reason(error), do="install git"
        ) from error
    return git


@contextmanager
def _plain_environment() -> Iterator[None]:
    """GitPython starts ``git version`` when it is imported, with all that this process's environment has."""
    before, plain = dict(os.environ), git_environment(["version"])
    os.environ.clear()
    os.environ.update(plain)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@cache
def _command_type() -> Any:
    """GitPython's commands, started as every git of ours is: its own ``execute`` passes the whole environment on."""

    class GitCommand(import_git().Git):  # type: ignore[misc]
        def __init__(self, folder: Path, settings: Settings, said: IO[bytes]) -> None:
            super().__init__(folder)
            self._given: dict[str, Any] = {"repository": folder, "settings": settings, "stderr": said}

        def execute(self, command: list[str], **_: Any) -> Any:
            return self.AutoInterrupt(start_git(*command[1:], **self._given), command)

    return GitCommand
