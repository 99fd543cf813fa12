"""What the commands about models share: the places, and how results are told."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from patchforge import documents
from patchforge.commands.common import show_json
from patchforge.escape import line
from patchforge.models import places as models_places
from patchforge.models.places import Places
from patchforge.models.store import StoreResult
from patchforge.models.survey import ModelProblem


def places(options: argparse.Namespace) -> Places:
    """The folders that the options name, and those that are usual."""
    return models_places.known(options.comfyui, ollama=options.ollama, hub=options.hub, store=options.store)


def problems(listed: Iterable[ModelProblem], what: str = "passed over") -> None:
    """Says each problem on a line of its own."""
    for problem in listed:
        print(f"{what}: {line(str(problem))}")


def size(number: int) -> str:
    """Bytes as people read them."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} B"


def result(told: StoreResult, *, dry: bool, json: bool, passed_over: Iterable[ModelProblem] = ()) -> None:
    """What a command did, or would do."""
    freed = sum(change.freed for change in told.done)
    unread = list(passed_over)
    if json:
        more: Mapping[str, Any] = documents.plain(told)
        show_json("models-done", {**more, "freed": freed, "dry": dry, "problems": documents.plain(unread)})
        return
    for change in told.done:
        freed_here = f"  {size(change.freed)}" if change.freed else ""
        of = f"  (of {line(change.of)})" if change.of else ""
        print(f"{'would be ' if dry else ''}{change.what}  {line(change.path)}{of}{freed_here}")
    problems(told.left, "left")
    problems(unread)
    for note in told.notes:
        print(f"note: {line(note)}")
    if freed:
        print(f"{size(freed)} {'would be ' if dry else ''}freed")
    if not told.done:
        print("nothing to do" + (", as far as that can be told" if unread else ""))
