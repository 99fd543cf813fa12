"""Asks another interpreter about its torch. A crash or a hang there is an answer, not our end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from patchforge import interpreters, processes, resources
from patchforge.doctor.facts import InterpreterFacts

SECONDS = 180  #: torch alone takes several seconds on a slow disk, and a first contact with a driver some more
_ALLOWED = processes.HARDWARE | {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PATCHFORGE_*"}


def question(
    python: str, environment: Mapping[str, str], seconds: float = SECONDS, flags: Sequence[str] = ()
) -> InterpreterFacts:
    """What ``python``'s torch says, with what ``environment`` has for devices and for that Python.

    PatchforgeError when ``python`` is not there, or is not Python.
    """
    own = processes.environment(allow=_ALLOWED, inherited=environment)
    interpreters.need(python, flags=flags, environment=own)
    arithmetic = resources.path("transforms/runtime/patchforge_xpu/arithmetic.py")
    command = [python, *flags, str(resources.path("doctor/probe.py")), str(arithmetic)]
    try:
        done = processes.run(
            command,
            env=own,
            capture_output=True,
            timeout=seconds,
        )
        out, said, end = done.stdout, done.stderr, processes.how_ended(done.returncode)
    except processes.TimeoutExpired as late:
        out, said, end = late.stdout or b"", late.stderr or b"", f"did not end within {seconds:g} seconds"
    return _heard(python, out.decode(errors="replace"), said.decode(errors="replace"), end)


def _heard(python: str, out: str, said: str, end: str) -> InterpreterFacts:
    answers: dict[str, Any] = {}
    errors: dict[str, str] = {}
    last = ""
    for line in _documents(out):
        if "answer" in line:
            answers[line["of"]] = line["answer"]
        elif "error" in line:
            errors[line["of"]] = line["error"]
        last = line.get("question", last)
        end = "" if "end" in line else end
    return InterpreterFacts(python, answers, errors, end, last if end else "", "\n".join(said.splitlines()[-5:]))


def _documents(out: str) -> list[dict[str, Any]]:
    """The JSON objects among the lines; libraries print as they like."""
    documents = []
    for line in out.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            documents.append(document)
    return documents
