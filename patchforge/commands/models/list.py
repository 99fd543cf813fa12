"""``patchforge models list``: every model file, who has it, and which are copies."""

from __future__ import annotations

import argparse

from patchforge.commands.common import show_json, table
from patchforge.commands.models import shown
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.models.hashing import Digests
from patchforge.models.store import mergeable
from patchforge.models.survey import TO as _TO
from patchforge.models.survey import ModelFile, compare, misnamed, taken, work_out


def run(options: argparse.Namespace) -> int:
    """Exit status 0, also where there are copies."""
    places = shown.places(options)
    survey, digests = taken(places), Digests()
    if options.hash:
        for file in survey.sorted():
            work_out(survey, file, digests, anew=True)
    else:
        compare(survey, digests)
    for file in survey.files.values():
        file.digest = file.digest or digests.known(file.stamp)
        survey.problems += misnamed(file)
    copies = {digest: files for digest, files in survey.by_digest().items() if len(files) > 1}
    spare = sum(sum(file.stamp.size for file in files[1:]) for files in copies.values())
    if options.json:
        files = [_told(file) for file in survey.sorted()]
        problems = [{"path": problem.path, "why": problem.why} for problem in survey.problems]
        told = {"store": str(places.store), "files": files, "duplicated": spare, "problems": problems}
        show_json("models-list", told)
        return Exit.OK
    rows = [_row(file, len(copies.get(file.told, ()))) for file in survey.sorted()]
    if rows:
        table(rows)
    else:
        looked = [
            str(folder) for folder in (places.ollama, places.hub, *(path for _, path in places.comfyui)) if folder
        ]
        print(f"no model in {line(', '.join(looked) or 'any folder')}; --comfyui DIR names ComfyUI's")
    shown.problems(survey.problems)
    if survey.leftovers:
        print(f"{len(survey.leftovers)} links of a run that was killed; patchforge models gc removes them")
    if spare:
        freed = sum(map(mergeable, copies.values()))
        advice = f"patchforge models import --merge makes one file of copies, which frees {shown.size(freed)}"
        print(f"{shown.size(spare)} twice or more; {advice if freed else 'none that models import --merge can free'}")
    return Exit.OK


def _row(file: ModelFile, copies: int) -> tuple[str, ...]:
    targets = {name.called.partition(_TO)[0] for name in file.names if _TO in name.called}
    shown_names = (name for name in file.names if not (name.link and name.called in targets))
    names = list(dict.fromkeys(f"{name.place}:{name.called}" for name in shown_names))
    mark = f"copy, of {copies}" if copies > 1 else "shared" if len({name.place for name in file.names}) > 1 else ""
    return file.told[:12] or "-", shown.size(file.stamp.size), mark, ", ".join(names)


def _told(file: ModelFile) -> dict[str, object]:
    own = {name.path for name in file.names if _TO not in name.called}  #: what a link leads to is told once
    told = [name for name in file.names if _TO not in name.called or name.path not in own]
    names = [{"place": name.place, "name": name.called, "path": str(name.path)} for name in told]
    return {"digest": file.told, "checked": bool(file.digest), "size": file.stamp.size, "names": names}
