"""What is done for a version before it is proposed: conversion with proofs, then commands of patchforge's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchforge import pipeline
from patchforge.bot.words import Candidate
from patchforge.engine.convert import Engine
from patchforge.outputs import PATCHES, write_document, write_folder
from patchforge.pipeline import Patched
from patchforge.project import Project
from patchforge.sources import Upstream
from patchforge.vocabulary import Release, Version

_TOLD = 20  #: last lines of a command's output that are kept
_SECONDS = 3600.0  #: that a command may take


@dataclass(frozen=True, slots=True)
class Step:
    """A command of patchforge that is run in our own repository's folder.

    For a release ``arguments`` may use {version}, {clone} (upstream's) and {out} (a folder outside the repository).
    """

    name: str
    command: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a step. ``text``: the end of what it printed, where that matters."""

    name: str
    outcome: str  #: ok, failed or not there
    text: str = ""


HASHES = Step("hashes", "pin", ("comfyui", "python", "--upstream", "{clone}"))
NIX = Step("Nix", "nix", ())
TEST = Step("tests on hardware", "test", ("{version}", "--device", "auto", "--upstream", "{clone}", "--out", "{out}"))


def convert(engine: Engine, upstream: Upstream, project: Project, candidate: Candidate, folder: Path) -> Patched:
    """Converts, proves and writes a version into ``folder``, a copy of our repository, and lists it in the index.

    Raises Drifted or CheckFailed as ``pipeline`` does; then ``folder`` is as it was.
    """
    release = Release(candidate.version, candidate.commit, indexed=False)
    patched = pipeline.convert(engine, release, upstream.tree(release))
    pipeline.check(patched)
    write_folder(folder / "generated" / project.name / str(candidate.version), patched.files(), PATCHES)
    return patched


def list_in_index(index: Path, candidate: Candidate, date: str) -> None:
    """Adds a version to a release index, in numeric order, unless it is listed. ``date`` is YYYY-MM-DD."""
    head, *lines = index.read_text("utf-8").splitlines()
    if any(line.partition("\t")[0] == str(candidate.version) for line in lines):
        return
    lines.append(f"{candidate.version}\t{candidate.commit}\t{date}")
    lines.sort(key=lambda line: Version.parse(line.partition("\t")[0]))
    write_document(index, "\n".join([head, *lines, ""]).encode(), lambda data: data.startswith(f"{head}\n".encode()))


def run_step(step: Step, folder: Path, **values: object) -> Result:
    """Runs a step with the patchforge that is in ``folder``, if that has the command. ``values``: for its arguments."""
    if not (folder / "patchforge" / "commands" / f"{step.command}.py").is_file():
        return Result(step.name, "not there")
    filled = [one.format(**values) for one in step.arguments]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "patchforge", step.command, *filled],
            cwd=folder,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result(step.name, "failed", f"not finished after {_SECONDS:g} seconds")
    said = _tail(done.stdout).replace(str(folder), ".")
    if "clone" in values:
        said = said.replace(str(values["clone"]), "UPSTREAM")
    return Result(step.name, "failed" if done.returncode else "ok", said)


def _environment() -> dict[str, str]:
    """Without tokens: what is tested is upstream's code. No byte code is left behind in the folder."""
    kept = {
        name: value for name, value in os.environ.items() if "TOKEN" not in name and name != "CREDENTIALS_DIRECTORY"
    }
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}


def _tail(said: bytes) -> str:
    lines: Sequence[str] = said.decode("utf-8", "replace").splitlines()
    return "\n".join(line.rstrip() for line in lines[-_TOLD:])
