"""``patchforge packs apply``: converts a pack, proves it and writes its patch."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchforge.checkout import change
from patchforge.checkout.place import command, refuse_file
from patchforge.checkout.subject import NodePack
from patchforge.commands.checkout import planned
from patchforge.commands.common import inputs, show_json, table
from patchforge.commands.packs.sites import list_sites
from patchforge.errors import Exit, PatchforgeError, worst
from patchforge.escape import line
from patchforge.git.address import check_address, looks_like_address
from patchforge.git.borrowed import checked_out
from patchforge.git.command import run_git
from patchforge.git.size import check_size
from patchforge.nodes.manifest import FORMAT, PackManifest
from patchforge.nodes.pack import read_pack
from patchforge.nodes.pack_cache import cached
from patchforge.nodes.patched import PatchedPack
from patchforge.outputs import PATCHES, check_folder, write_folder
from patchforge.paths import not_there
from patchforge.pattern import Options

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 where a file could not be converted. Of several packs the worst."""
    if len(options.packs) > 1:
        return _several(options)
    return _in_place(options, options.packs[0]) if options.in_place else _apart(options, options.packs[0])


def _several(options: argparse.Namespace) -> int:
    """Each pack by itself: one that cannot be converted keeps no other from it."""
    if not options.in_place or options.json:
        raise PatchforgeError(
            f"{len(options.packs)} packs are named",
            expected="one pack at a time with --json" if options.in_place else "one pack at a time, or --in-place",
            do="name one pack"
            if options.in_place
            else f"{line(command('pack', 'apply', *map(Path, options.packs)))} changes them; or name one pack",
        )
    statuses: list[int] = []
    for pack in options.packs:
        try:
            statuses.append(_in_place(options, pack))
        except PatchforgeError as error:
            print(f"patchforge: {error}", file=sys.stderr)
            statuses.append(error.status)
    return worst(statuses)


def _apart(options: argparse.Namespace, pack: str) -> int:
    refuse_file(Path(pack))
    with _folder(pack) as (folder, name):
        target = Path(options.out or Path("generated", "nodes", name.lower()))
        if not options.dry_run:
            check_folder(target, PATCHES, inputs(folder))
        patched = _converted(options, folder)
        if not options.dry_run:
            write_folder(target, patched.files(), PATCHES, inputs=inputs(folder))
    status = _tell(options, patched)
    if not options.json:
        print("nothing written (dry run)" if options.dry_run else f"written: {line(str(target))}")
    return status


def _in_place(options: argparse.Namespace, pack: str) -> int:
    refuse_file(Path(pack))
    folder, asked = Path(pack), _options(options)
    on = {"comfy": asked.comfy, "fp64": asked.fp64, "torch-load": asked.torch_load, "half": asked.half}
    subject = NodePack(tuple(flag for flag, wanted in on.items() if wanted))
    with change.opened(folder, dry_run=options.dry_run) as inside:
        change.refuse_unless_untouched(inside, subject, dry_run=options.dry_run)
        patched = _converted(options, folder)
        plan = change.patch(inside, subject, patched, dry_run=options.dry_run)
    status = _tell(options, patched)
    if options.dry_run and not options.json:
        planned(plan)
    elif not options.json and not plan.writes:
        print(f"nothing to convert in {line(str(folder))}; nothing written")
    elif not options.json:
        count = len(patched.converted.changes)
        files = f"{count} file{'s' if count > 1 else ''}"
        print(f"changed: {files} in {line(str(folder))}; the originals are in its .patchforge/")
        print("to use it: restart ComfyUI")
        print(f"to undo: {line(command('pack', 'revert', folder))}")
    return status


def _converted(options: argparse.Namespace, folder: Path) -> PatchedPack:
    return PatchedPack(cached().convert(read_pack(folder), _options(options)), checked_out(folder)).checked()


def _tell(options: argparse.Namespace, patched: PatchedPack) -> int:
    report = patched.manifest()
    if options.json:
        show_json("packs-apply", FORMAT.data(report))
    else:
        _show(report)
    return int(Exit.FAILED if patched.converted.problems else Exit.OK)


def _options(options: argparse.Namespace) -> Options:
    enabled = {name for text in options.enable for name in text.split(",") if name}
    if unknown := sorted(enabled - {"fp64", "half", "torch-load"}):
        raise PatchforgeError(
            f"--enable does not know {', '.join(unknown)}", expected="fp64, half, torch-load", do="name one of these"
        )
    comfy = options.comfy_devices or options.idiom == "comfy"
    return Options(comfy, "fp64" in enabled, "torch-load" in enabled, "half" in enabled)


@contextmanager
def _folder(pack: str) -> Iterator[tuple[Path, str]]:
    """The pack's folder; a repository is cloned for the time being."""
    if Path(pack).is_dir():
        yield Path(pack), Path(pack).resolve().name
        return
    if looks_like_address(pack):
        address = check_address(pack)
    elif _REPOSITORY.fullmatch(pack):
        address = f"https://github.com/{pack}"
    else:
        raise not_there(Path(pack), "a pack's folder, OWNER/REPO, or an address")
    name = pack.rstrip("/").rpartition("/")[2].removesuffix(".git")
    with tempfile.TemporaryDirectory(prefix="patchforge-") as scratch:
        target = Path(scratch, name)
        run_git("clone", "--depth", "1", "--no-checkout", "--", address, str(target))
        check_size(target)
        run_git("reset", "--quiet", "--hard", folder=target)
        yield target, name


def _show(report: PackManifest) -> None:
    rows = [["rule", "converted", "left", "person"]]
    rows += [
        [name, *(str(count.get(kind, 0)) for kind in ("converted", "left", "person"))]
        for name, count in report.by_rule.items()
    ]
    table([*rows, ["all", *(str(report.figures[kind]) for kind in ("converted", "left", "person"))]])
    list_sites(report, decisions=("person",))
