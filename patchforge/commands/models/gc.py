"""``patchforge models gc``: what the store keeps and nothing else refers to."""

from __future__ import annotations

import argparse

from patchforge.commands.models import shown
from patchforge.errors import Exit
from patchforge.models.store import Store
from patchforge.models.survey import taken


def run(options: argparse.Namespace) -> int:
    """Exit status 0."""
    places = shown.places(options)
    store = Store(places, dry=not options.delete)
    with store.locked():
        store.collect(survey := taken(places), delete=options.delete)
    shown.result(store.result, dry=not options.delete, json=options.json, found=survey.problems)
    return Exit.OK
