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
    found = judge(facts)
    return _tell(options, found, asdict(facts))


def _interpreter(named: str | None, comfyui: Path | None) -> tuple[str, tuple[str, ...]]:
    """The one that is named, else the one that starts this ComfyUI, else ours; and how the portable build calls it."""
    if named or comfyui is None:
        return named or sys.executable, ()
    found = installation.of(comfyui)
    return str(found.python or sys.executable), ("-s",) if found.way is installation.Way.PORTABLE else ()


def _upstream(options: argparse.Namespace) -> int:
    project = load_project()
    where = options.upstream or os.environ.get("PATCHFORGE_UPSTREAM") or project.url
    remote, clone = upstream.examine(where, project)
    facts = {"remote": remote and asdict(remote), "clone": clone and asdict(clone)}
    return _tell(options, list(upstream.findings(project, remote, clone)), facts, "doctor-upstream")


def _tell(options: argparse.Namespace, found: Sequence[Finding], facts: Mapping[str, Any], name: str = "doctor") -> int:
    if options.json:
        show_json(name, {"patchforge": __version__, "findings": [asdict(one) for one in found], "facts": facts})
    else:
        _show(found)
    return worst(_STATUSES.get(one.state, Exit.OK) for one in found)


def judge(facts: Facts) -> list[Finding]:
    """Every finding, in the order of a report."""
    parts = (hardware, software, variables, checkout)
    return [one for part in parts for one in part.findings(facts)]


def _show(found: Sequence[Finding]) -> None:
    for one in found:
        label = one.state.ljust(len(FactState.NOT_APPLICABLE))
        body = _filled(f"{one.subject}: {one.text}", " ", 17)
        print(coloured(label, _COLOURS.get(one.state, "")) + body)
        if one.do:
            print(_filled(f"to do: {one.do}", " " * 17, 24))
    counts = Counter(one.state for one in found)
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
