"""``patchforge models list``: every model file, who has it, and which are copies."""

from __future__ import annotations

import argparse

from patchforge.commands.common import show_json, table
from patchforge.commands.models import shown
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.models.hashing import Digests
from patchforge.models.survey import File, compare, taken, work_out


def run(options: argparse.Namespace) -> int:
    """Exit status 0, also where there are copies."""
    places = shown.places(options)
    survey, digests = taken(places), Digests()
    if options.hash:
        for one in survey.sorted():
            work_out(survey, one, digests)
    else:
        compare(survey, digests)
    for one in survey.files.values():
        one.digest = one.digest or digests.known(one.stamp)
    copies = {digest: files for digest, files in survey.by_digest().items() if len(files) > 1}
    spare = sum(sum(one.stamp.size for one in files[1:]) for files in copies.values())
    if options.json:
        files = [_told(one) for one in survey.sorted()]
        found = [{"path": one.path, "why": one.why} for one in survey.problems]
        told = {"store": str(places.store), "files": files, "duplicated": spare, "problems": found}
        show_json("models-list", told)
        return Exit.OK
    rows = [_row(one, len(copies.get(one.told, ()))) for one in survey.sorted()]
    if rows:
        table(rows)
    else:
        looked = [str(one) for one in (places.ollama, places.hub, *(path for _, path in places.comfyui)) if one]
        print(f"no model in {line(', '.join(looked) or 'any folder')}; --comfyui DIR names ComfyUI's")
    shown.problems(survey.problems)
    if survey.leftovers:
        print(f"{len(survey.leftovers)} links of a run that was killed; patchforge models gc removes them")
    if spare:
        print(f"{shown.size(spare)} twice or more; patchforge models import --merge makes one file of copies")
    return Exit.OK


def _row(one: File, copies: int) -> tuple[str, ...]:
    names = list(dict.fromkeys(f"{name.place}:{name.called}" for name in one.names))
    mark = f"copy, of {copies}" if copies > 1 else "shared" if len({name.place for name in one.names}) > 1 else ""
    return one.told[:12] or "-", shown.size(one.stamp.size), mark, ", ".join(names)


def _told(one: File) -> dict[str, object]:
    names = [{"place": name.place, "name": name.called, "path": str(name.path)} for name in one.names]
    return {"digest": one.told, "checked": bool(one.digest), "size": one.stamp.size, "names": names}
