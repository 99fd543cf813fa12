"""``patchforge models import``: models into the store, and one file in place of copies."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

from patchforge.commands.models import shown
from patchforge.errors import Damaged, Exit
from patchforge.models.hashing import Digests
from patchforge.models.store import ModelStore, known_as, need_whole
from patchforge.models.survey import ModelFile, ModelProblem, Name, Place, Survey, taken, work_out
from patchforge.paths import not_there


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 65 where a file is damaged or none of a model, 69 where one could not be read."""
    places = shown.places(options)
    survey, digests = taken(places), Digests()
    chosen = _named(survey, options.paths) if options.paths else survey.sorted()
    wanted = {file.stamp.identity for file in chosen}
    sizes = Counter(file.stamp.size for file in survey.files.values())
    store = ModelStore(places, dry=options.dry_run, digests=digests)
    with store.locked():
        for file in survey.sorted():
            if file.stamp.identity in wanted or (options.merge and sizes[file.stamp.size] > 1):
                work_out(survey, file, digests)
        unread = bool(survey.problems)
        whole = [file for file in chosen if file.digest and _is_whole(survey, file, named=bool(options.paths))]
        kept: dict[str, ModelFile] = {}
        for file in survey.sorted():  # those of the store come first, then Ollama's
            if file.digest and file.paths and not file.misnamed:
                kept.setdefault(file.digest, file)
        for file in whole:
            if kept.get(file.digest) is file:
                store.adopt(file.paths[0], file.digest, file.stamp, of=known_as(file))
            elif options.merge and file.digest in kept:
                store.merge(kept[file.digest], file)
    shown.result(store.result, dry=options.dry_run, json=options.json, passed_over=survey.problems)
    damaged = len([file for file in chosen if file.digest]) > len(whole)
    return Exit.DATA if damaged else Exit.UNCHECKED if unread else Exit.OK


def _is_whole(survey: Survey, file: ModelFile, *, named: bool) -> bool:
    """Whether a file is one of a model, and what its names tell; else that is noted, or raised as Damaged."""
    try:
        need_whole(file)
    except Damaged as error:
        if named:
            raise
        survey.problems.append(ModelProblem(str(file.names[0].path), error.found or error.problem))
        return False
    return True


def _named(survey: Survey, paths: list[str]) -> list[ModelFile]:
    """The files that are named, which need not be in any folder of models. PatchforgeError where one is not there."""
    files = []
    for text in paths:
        path = Path(text).expanduser()
        if not path.is_file():
            raise not_there(path, "a file of a model")
        there = Path(os.path.realpath(path))
        identity = (there.stat().st_dev, there.stat().st_ino)
        if identity not in survey.files:
            survey.add(Name(Place.COMFYUI, there.name, there))
        files.append(survey.files[identity])
    return files
