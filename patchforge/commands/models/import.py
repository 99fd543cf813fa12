"""``patchforge models import``: models into the store, and one file in place of copies."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

from patchforge.commands.models import shown
from patchforge.errors import Exit
from patchforge.models.hashing import Digests
from patchforge.models.store import Store
from patchforge.models.survey import File, Name, Place, Survey, taken, work_out
from patchforge.paths import not_there


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 69 where a file could not be read."""
    places = shown.places(options)
    survey, digests = taken(places), Digests()
    chosen = _named(survey, options.paths) if options.paths else survey.sorted()
    wanted = {one.stamp.identity for one in chosen}
    sizes = Counter(one.stamp.size for one in survey.files.values())
    store = Store(places, dry=options.dry_run)
    with store.locked():
        for one in survey.sorted():
            if one.stamp.identity in wanted or (options.merge and sizes[one.stamp.size] > 1):
                work_out(survey, one, digests)
        kept: dict[str, File] = {}
        for one in survey.sorted():  # those of the store come first, then Ollama's
            if one.digest and one.paths:
                kept.setdefault(one.digest, one)
        for one in chosen:
            if one.digest and one.paths and kept[one.digest] is one:
                store.adopt(one.paths[0], one.digest, one.stamp)
            elif one.digest and options.merge:
                store.merge(kept[one.digest], one)
    shown.result(store.result, dry=options.dry_run, json=options.json, found=survey.problems)
    return Exit.UNCHECKED if survey.problems else Exit.OK


def _named(survey: Survey, paths: list[str]) -> list[File]:
    """The files that are named, which need not be in any folder of models. PatchforgeError where one is not there."""
    found = []
    for text in paths:
        path = Path(text).expanduser()
        if not path.is_file():
            raise not_there(path, "a file of a model")
        there = Path(os.path.realpath(path))
        identity = (there.stat().st_dev, there.stat().st_ino)
        if identity not in survey.files:
            survey.add(Name(Place.COMFYUI, there.name, there))
        found.append(survey.files[identity])
    return found
