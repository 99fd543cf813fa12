"""``patchforge models verify``: whether every file is what its name says, read byte by byte."""

from __future__ import annotations

import argparse

from patchforge import documents
from patchforge.commands.common import show_json
from patchforge.commands.models import shown
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.models.hashing import Digests
from patchforge.models.survey import add_blobs, taken, work_out


def run(options: argparse.Namespace) -> int:
    """Exit status 1 where a file is not what it should be, 69 where one could not be read or looked at."""
    places = shown.places(options)
    survey, digests = taken(places), Digests()
    add_blobs(survey, places)
    wrong: list[dict[str, str]] = []
    read = 0
    for file in survey.sorted():
        expected = sorted({name.told for name in file.names if name.told})
        if not expected or not work_out(survey, file, digests, anew=True):
            continue
        read += 1
        wrong += ({"path": str(name.path), "expected": name.told, "found": file.digest} for name in file.misnamed)
    if options.json:
        told = {"read": read, "wrong": wrong, "problems": documents.plain(survey.problems)}
        show_json("models-verify", told)
    else:
        for each in wrong:
            print(f"wrong: {line(each['path'])}: SHA-256 {each['found']}, its name says {each['expected']}")
        shown.problems(survey.problems)
        print(f"{read} files read, {len(wrong)} names wrong")
    return Exit.FAILED if wrong else Exit.UNCHECKED if survey.problems else Exit.OK
