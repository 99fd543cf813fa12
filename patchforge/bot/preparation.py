"""What is done for a version before it is proposed: conversion with proofs, then commands of patchforge's own."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from patchforge import bounded, documents, pipeline, processes, progress
from patchforge.bot.model import Candidate
from patchforge.engine.convert import Engine
from patchforge.outputs import PATCHES, write_document, write_folder
from patchforge.pipeline import PatchedRelease
from patchforge.project import Project
from patchforge.sources import Upstream
from patchforge.trial.server.supervisor import Supervised
from patchforge.vocabulary import Release, Version

_READ = 1 << 20  #: bytes of a command's output that are read, from its end
_TOLD = 20  #: last lines of a command's output that are kept
#: What patchforge itself reads.
_OWN = frozenset(["PATCHFORGE_CACHE", "PATCHFORGE_UPSTREAM", "GITHUB_API_URL", "PYTHONPATH"])
_SECONDS = 3600.0  #: that a command may take


@dataclass(frozen=True, slots=True)
class BotStep:
    """A command of patchforge that is run in our own repository's folder.

    For a release ``arguments`` may use {version}, {clone} (upstream's) and {out} (a folder outside the repository).
    """

    name: str
    command: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of a step. ``text``: the end of what it printed, where that matters."""

    name: str
    outcome: str  #: ok, told, failing, failed, not there, lost (nothing depends on it) or off
    text: str = ""


HASHES = BotStep("hashes", "pin", ("comfyui", "python", "--upstream", "{clone}"))
NIX = BotStep("Nix", "nix", ())
COUNT = BotStep(
    "exact costs",
    "bench",
    (
        *("run", "{version}", "--device", "emulated", "--suite", "workflows", "--quick", "--pairs", "0"),
        *("--baseline", "upstream", "--skip-frontend", "--upstream", "{clone}", "--out", "{out}-costs-{version}"),
    ),
)
RECORD = BotStep(COUNT.name, "bench", ("record", "{out}-costs-{version}"))
TEST = BotStep(
    "tests on hardware", "test", ("{version}", "--device", "auto", "--upstream", "{clone}", "--out", "{out}")
)


def convert(engine: Engine, upstream: Upstream, project: Project, candidate: Candidate, folder: Path) -> PatchedRelease:
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
    head, *lines = documents.read_text(index).splitlines()
    if any(line.partition("\t")[0] == str(candidate.version) for line in lines):
        return
    lines.append(f"{candidate.version}\t{candidate.commit}\t{date}")
    lines.sort(key=lambda line: Version.parse(line.partition("\t")[0]))
    write_document(index, "\n".join([head, *lines, ""]).encode(), lambda data: data.startswith(f"{head}\n".encode()))


def is_there(step: BotStep, folder: Path) -> bool:
    """Whether the patchforge in ``folder`` has the command of a step."""
    commands = folder / "patchforge" / "commands"
    return (commands / f"{step.command}.py").is_file() or (commands / step.command).is_dir()


def run_step(step: BotStep, folder: Path, hide: Callable[[str], str] = str, **values: object) -> StepResult:
    """Runs a step with the patchforge that is in ``folder``, if that has the command. ``values``: for its arguments.

    ``hide`` takes secrets out of what it printed. What the step started and left behind is ended with it.
    """
    if not is_there(step, folder):
        return StepResult(step.name, "not there")
    progress.step(f"running {step.name}")
    filled = [argument.format(**values) for argument in step.arguments]
    with tempfile.TemporaryFile() as output:
        status = _supervised([sys.executable, "-m", "patchforge", step.command, *filled], folder, output)
        said = hide(bounded.ended(output, _READ))
    if status is None:
        return StepResult(step.name, "failed", f"not finished after {_SECONDS:g} seconds")
    said = _tail(said).replace(str(folder), ".")
    if "clone" in values:
        said = said.replace(str(values["clone"]), "UPSTREAM")
    return StepResult(step.name, "failed" if status else "ok", said)


def _supervised(command: Sequence[str], folder: Path, output: IO[bytes]) -> int | None:
    """The exit status; None when it did not end in time. No token is among what it gets, and no byte code is left."""
    allowed = processes.PIP | processes.NIX | processes.HARDWARE | _OWN
    variables = processes.environment({"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}, allow=allowed, passwords=True)
    supervised = Supervised(command, cwd=folder, variables=variables, output=output)
    try:
        return supervised.wait(_SECONDS)
    finally:
        supervised.stop()


def _tail(said: str) -> str:
    lines: Sequence[str] = said.splitlines()
    return "\n".join(line.rstrip() for line in lines[-_TOLD:])
