"""``patchforge maintain``: remove what is old, and keep what is in use."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from patchforge import processes
from patchforge.commands.common import show_json, shown_size, table
from patchforge.errors import Exit, PatchforgeError, worst
from patchforge.escape import line
from patchforge.faults import told
from patchforge.operate import records, upkeep
from patchforge.operate.upkeep import UpkeepFolder, UpkeepPart
from patchforge.paths import need_folder

_SHOWN = 5


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when all was done that was asked for. What cannot be done in one place stops no other."""
    processes.need_posix("patchforge maintain")
    todo = list(_todo(options))
    limits = (options.output_age, options.output_size, options.temp_age, options.model_age)
    if not todo and limits.count(None) == len(limits):
        raise PatchforgeError(
            "there is nothing to do",
            expected="a limit",
            found="none",
            do="for example: patchforge maintain ~/ComfyUI --output-age 30, or --journal 1G",
        )
    parts, statuses = [], []
    for name, work in todo:
        try:
            part = work()
        except Exception as error:  # noqa: BLE001 - one place's fault
            said = told(error)
            part = UpkeepPart(name, "", said=said.problem, ok=False)
            statuses.append(said.status)
        parts.append(part)
        statuses.append(Exit.OK if part.ok else Exit.FAILED)
    freed = sum(part.freed for part in parts)
    if options.state and not options.dry_run:
        ok = all(part.ok for part in parts)
        records.write(Path(options.state), "maintenance", "", records.MaintenanceRecord(ok, freed, records.now()))
    if options.json:
        show_json("maintain", {"dry_run": options.dry_run, "freed": freed, "parts": [asdict(part) for part in parts]})
    else:
        _show(parts, freed, dry=options.dry_run)
    return worst(statuses)


def _todo(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], UpkeepPart]]]:
    now, dry = records.now(), options.dry_run
    if options.remove_models and options.model_age is None:
        raise PatchforgeError(
            "--remove-models needs --model-age", expected="for how long nobody has read them", do="name it"
        )
    if options.folder:
        base = Path(options.folder)
        need_folder(base, "ComfyUI's base folder")
        there = upkeep.existing(base)

        def within(name: str) -> UpkeepFolder:
            return UpkeepFolder(there[name], now, dry=dry, base=base)

        if "output" in there and (options.output_age is not None or options.output_size is not None):
            yield "outputs", lambda: upkeep.outputs(within("output"), options.output_age, options.output_size)
        if "temp" in there and options.temp_age is not None:
            yield "temporary files", lambda: upkeep.temporary(within("temp"), options.temp_age)
        if "models" in there and options.model_age is not None:
            yield (
                "unused models",
                lambda: upkeep.models(within("models"), options.model_age, remove=options.remove_models),
            )
    elif named := [name for name in ("output_age", "output_size", "model_age") if getattr(options, name) is not None]:
        option = f"--{named[0].replace('_', '-')}"
        raise PatchforgeError(f"{option} needs ComfyUI's base folder", expected="DIR", do="name it")
    for place in options.cache:
        yield "cache", partial(_cache, Path(place), now, options.cache_age, dry=dry)
    if options.journal is not None:
        yield "journal", lambda: upkeep.journal(options.journal, dry=dry)
    if options.nix_age is not None:
        yield "Nix", lambda: upkeep.nix(options.nix_age, dry=dry)


def _cache(place: Path, now: float, days: int, *, dry: bool) -> UpkeepPart:
    if not place.exists():
        return UpkeepPart("cache", str(place), said="not there")
    need_folder(place, "a cache")
    upkeep.need_cache(place := place.resolve())
    return upkeep.cache(UpkeepFolder(place, now, dry=dry), days)


def _show(parts: list[UpkeepPart], freed: int, *, dry: bool) -> None:
    verb = "would be removed" if dry else "removed"
    table(
        [("nothing to clean",)]
        if not parts
        else [
            (part.name, f"{len(part.removed)} files", shown_size(part.freed), part.said or part.place) for part in parts
        ]
    )
    for part in parts:
        for gone in part.removed[:_SHOWN]:
            print(f"  {verb}: {line(f'{part.place}/{gone.path}')}, {shown_size(gone.size)}")
        if len(part.removed) > _SHOWN:
            print(f"  {verb}: {len(part.removed) - _SHOWN} more in {line(part.place)}")
        for path, why in part.kept[:_SHOWN]:
            print(f"  kept: {line(f'{part.place}/{path}')}: {why}")
        if len(part.kept) > _SHOWN:
            print(f"  kept: {len(part.kept) - _SHOWN} more in {line(part.place)}")
    print(f"{'would free' if dry else 'freed'} {shown_size(freed)}")
