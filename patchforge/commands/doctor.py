"""``patchforge doctor``: what stands between ComfyUI and the Intel GPU of this machine; or, is upstream in order."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import Any

from patchforge import __version__, progress
from patchforge.checkout import installation
from patchforge.commands.common import coloured, show_json
from patchforge.doctor import checkout, hardware, software, upstream, variables
from patchforge.doctor.facts import Facts, FactState, Finding
from patchforge.doctor.interpreter import question
from patchforge.doctor.machine import examine
from patchforge.errors import Exit, PatchforgeError, worst
from patchforge.project import load_project

_STATUSES = {FactState.WRONG: Exit.FAILED, FactState.UNKNOWN: Exit.UNCHECKED}
_COLOURS = {FactState.OK: "ok", FactState.WRONG: "failed", FactState.WARNING: "upstream"}


def run(options: argparse.Namespace) -> int:
    """Exit status 0, 1 when something is wrong, else 69 when something could not be examined.

    Writes nothing. With --upstream the machine is not looked at.
    """
    if getattr(options, "upstream", None) is not None:
        return _upstream(options)
    root = Path(options.root)
    if not root.is_dir():
        raise PatchforgeError(f"{root} is not a folder", expected="the root of a file system", do="correct --root")
    seen = checkout.examine(Path(options.tree)) if options.tree else None
    python, flags = _interpreter(options.python, Path(options.tree) if options.tree else None)
    progress.step("examining the machine")
    machine = examine(root, os.environ)
    progress.step(f"asking the torch of {python}")
    facts = Facts(machine, question(python, os.environ, flags=flags), variables.shown(os.environ), seen)
    findings = judge(facts)
    return _tell(options, findings, asdict(facts))


def _interpreter(named: str | None, comfyui: Path | None) -> tuple[str, tuple[str, ...]]:
    """The one that is named, else the one that starts this ComfyUI, else ours; and how the portable build calls it."""
    if named or comfyui is None:
        return named or sys.executable, ()
    comfyui_installation = installation.of(comfyui)
    return str(comfyui_installation.python or sys.executable), (
        "-s",
    ) if comfyui_installation.way is installation.Way.PORTABLE else ()


def _upstream(options: argparse.Namespace) -> int:
    project = load_project()
    where = options.upstream or os.environ.get("PATCHFORGE_UPSTREAM") or project.url
    remote, clone = upstream.examine(where, project)
    facts = {"remote": remote and asdict(remote), "clone": clone and asdict(clone)}
    return _tell(options, list(upstream.findings(project, remote, clone)), facts, "doctor-upstream")


def _tell(
    options: argparse.Namespace, findings: Sequence[Finding], facts: Mapping[str, Any], name: str = "doctor"
) -> int:
    if options.json:
        show_json(
            name, {"patchforge": __version__, "findings": [asdict(finding) for finding in findings], "facts": facts}
        )
    else:
        _show(findings)
    return worst(_STATUSES.get(finding.state, Exit.OK) for finding in findings)


def judge(facts: Facts) -> list[Finding]:
    """Every finding, in the order of a report."""
    parts = (hardware, software, variables, checkout)
    return [finding for part in parts for finding in part.findings(facts)]


def _show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        label = finding.state.ljust(len(FactState.NOT_APPLICABLE))
        body = _filled(f"{finding.subject}: {finding.text}", " ", 17)
        print(coloured(label, _COLOURS.get(finding.state, "")) + body)
        if finding.do:
            what = "hint" if finding.state is FactState.OK else "to do"
            print(_filled(f"{what}: {finding.do}", " " * 17, 24))
    counts = Counter(finding.state for finding in findings)
    print(", ".join(f"{counts[state]} {state}" for state in FactState if counts[state]))


def _filled(text: str, first: str, others: int) -> str:
    """Lines of some 110 columns; what is to be typed keeps its words and paths whole."""
    return fill(
        text,
        110,
        initial_indent=first,
        subsequent_indent=" " * others,
        break_on_hyphens=False,
        break_long_words=False,
    )
