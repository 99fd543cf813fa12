"""Transcripts: what a person types from an empty home, and what is printed, with paths and numbers made the same."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
Run = Callable[[Sequence[str]], tuple[int, str]]  #: a command's words → its exit status, and all that it printed

_COUNTS = re.compile(r"\d+(?= (?:files? changed|added|patches for|files put back|claimed|left on purpose|unclaimed))")
_COMMIT = re.compile(r"\b[0-9a-f]{12}\b")


def played(name: str, home: Path, patchforge: Run) -> tuple[list[str], list[str]]:
    """The transcript as it is kept, and as it comes out now: each ``$ command`` is run in ``home``, in their order."""
    kept = (HERE / f"{name}.txt").read_text("utf-8").splitlines()
    made: list[str] = []
    for line in kept:
        if not line.startswith("$ "):
            continue
        words = shlex.split(line[2:])
        status, said = patchforge(words[1:]) if words[0] == "patchforge" else _run(words, home)
        made += [line, *_same(said, home).splitlines(), *([f"(status {status})"] if status else [])]
    return kept, made


def _run(words: Sequence[str], home: Path) -> tuple[int, str]:
    done = subprocess.run(words, cwd=home, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _same(said: str, home: Path) -> str:
    """Without what differs from machine to machine and from day to day, and without what is shown of what lasts."""
    lasting, listed = " ...\n", "\t"  # of git's, which names files
    lines = said.splitlines(keepends=True)
    said = "".join(line for line in lines if not line.endswith(lasting) and not line.startswith(listed))
    for place, name in ((str(home), "~"), (sys.executable, "PYTHON")):
        said = said.replace(place, name)
    return _COMMIT.sub("COMMIT", _COUNTS.sub("N", said))
