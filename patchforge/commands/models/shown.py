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
from patchforge.models.store import Result
from patchforge.models.survey import Problem


def places(options: argparse.Namespace) -> Places:
    """The folders that the options name, and those that are usual."""
    return models_places.known(options.comfyui, ollama=options.ollama, hub=options.hub, store=options.store)


def problems(found: Iterable[Problem], what: str = "passed over") -> None:
    """Says each problem on a line of its own."""
    for one in found:
        print(f"{what}: {line(f'{one.path}: ' if one.path else '')}{line(one.why)}")


def size(number: int) -> str:
    """Bytes as people read them."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} B"


def result(told: Result, *, dry: bool, json: bool, found: Iterable[Problem] = ()) -> None:
    """What a command did, or would do."""
    freed = sum(one.freed for one in told.done)
    if json:
        more: Mapping[str, Any] = documents.plain(told)
        problems_found = documents.plain(list(found))
        show_json("models-done", {**more, "freed": freed, "dry": dry, "problems": problems_found})
        return
    for one in told.done:
        print(f"{'would be ' if dry else ''}{one.what}  {line(one.path)}{f'  {size(one.freed)}' if one.freed else ''}")
    problems(told.left, "left")
    problems(found)
    for note in told.notes:
        print(f"note: {line(note)}")
    if freed:
        print(f"{size(freed)} {'would be ' if dry else ''}freed")
    if not told.done:
        print("nothing to do")
