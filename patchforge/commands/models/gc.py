"""``patchforge models gc``: what the store keeps and nothing else refers to."""

from __future__ import annotations

import argparse
import errno
import os

from patchforge.commands.models import shown
from patchforge.errors import Exit, NotChecked
from patchforge.models.store import ModelStore
from patchforge.models.survey import taken

#: Of a name that leads to nothing: no model's.
_HARMLESS = {os.strerror(errno.ENOENT).lower(), "neither a file nor a link to one"}


def run(options: argparse.Namespace) -> int:
    """Exit status 0. NotChecked, and nothing removed, where something that may refer to a model cannot be looked at."""
    places = shown.places(options)
    store = ModelStore(places, dry=not options.delete)
    with store.locked():
        survey = taken(places)
        if not places.tops and not options.no_comfyui:
            if options.delete:
                raise NotChecked(
                    "what ComfyUI's links lead to cannot be told: no ComfyUI was named",
                    expected="--comfyui DIR for each that has links to models, or --no-comfyui where there is none",
                    do="name them; without --delete this says what the store keeps",
                )
            store.result.notes.append("no ComfyUI was named: what its symlinks lead to is listed as well")
        unseen = [problem for problem in survey.problems if problem.why not in _HARMLESS]
        if options.delete and unseen:
            raise NotChecked(
                f"what refers to models cannot be told: {unseen[0]}",
                expected="manifests and folders that can be read",
                found=f"{len(unseen)} that cannot be",
                do="mend that, or run this as a user who may read them; then run it again",
            )
        if unseen:
            store.result.notes.append("nothing is removed until what is passed over can be looked at")
        store.collect(survey, delete=options.delete)
    shown.result(store.result, dry=not options.delete, json=options.json, passed_over=survey.problems)
    return Exit.OK
