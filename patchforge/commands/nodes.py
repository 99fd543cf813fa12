"""``patchforge nodes``: custom-node packs."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from patchforge.checkout import change
from patchforge.checkout.place import command
from patchforge.checkout.subject import NodePack
from patchforge.commands.checkout import planned, undone
from patchforge.commands.common import inputs, show_json, table
from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import line
from patchforge.nodes.pack import read_pack
from patchforge.nodes.patched import PatchedPack
from patchforge.nodes.report import figures, is_ours, sarif_file, summary
from patchforge.nodes.store import cached
from patchforge.nodes.words import Options
from patchforge.outputs import PATCHES, check_document, check_folder, write_document, write_folder
from patchforge.sources.command import checked_out, run_git

_ADDRESS = re.compile(r"[\w.-]+/[\w.-]+|https?://\S+|git@\S+")


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 where ``check`` finds something or a file could not be converted."""
    return {"apply": _apply, "check": _check, "revert": _revert}[options.action](options)


def _apply(options: argparse.Namespace) -> int:
    if options.in_place:
        return _in_place(options)
    with _folder(options.pack) as (folder, name):
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


def _in_place(options: argparse.Namespace) -> int:
    folder, asked = Path(options.pack), _options(options)
    on = {"comfy": asked.comfy, "fp64": asked.fp64, "torch-load": asked.torch_load, "half": asked.half}
    subject = NodePack(tuple(flag for flag, wanted in on.items() if wanted))
    with change.opened(folder, dry_run=options.dry_run) as inside:
        change.refuse_unless_untouched(inside, subject)
        patched = _converted(options, folder)
        plan = change.patch(inside, subject, patched, dry_run=options.dry_run)
    status = _tell(options, patched)
    if options.dry_run and not options.json:
        planned(plan)
    elif not options.json:
        print(f"written: {line(str(folder))}; to undo: {line(command('pack', 'revert', folder))}")
    return status


def _converted(options: argparse.Namespace, folder: Path) -> PatchedPack:
    patched = PatchedPack(cached().convert(read_pack(folder), _options(options)), checked_out(folder))
    patched.check()
    return patched


def _tell(options: argparse.Namespace, patched: PatchedPack) -> int:
    report = patched.manifest()
    if options.json:
        show_json(report)
    else:
        _show(report)
    return int(Exit.FAILED if patched.converted.problems else Exit.OK)


def _check(options: argparse.Namespace) -> int:
    folders = [Path(folder) for folder in options.folder]
    if options.sarif:
        check_document(Path(options.sarif), is_ours, inputs(*folders))
    reports = _reports(folders)
    if options.sarif:
        write_document(Path(options.sarif), sarif_file(reports), is_ours, inputs=inputs(*folders))
    if options.figures:
        print(figures(reports), end="")
    elif options.json:
        show_json(reports)
    else:
        for report in reports:
            _list(report)
    return int(Exit.FAILED if any(_findings(report) for report in reports) else Exit.OK)


def _revert(options: argparse.Namespace) -> int:
    for folder in options.folder:
        with change.opened(Path(folder), dry_run=options.dry_run) as inside:
            plan = change.revert(inside, NodePack(), dry_run=options.dry_run)
        print(f"{line(folder)}: {undone(plan)}" + (" (not written)" if options.dry_run else ""))
        if options.dry_run:
            planned(plan)
    return int(Exit.OK)


def _reports(folders: Sequence[Path]) -> list[dict[str, Any]]:
    if len(folders) == 1 or (os.cpu_count() or 1) == 1:
        return [_report(folder) for folder in folders]
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(folders)), get_context("fork")) as pool:
        return list(pool.map(_report, folders))


def _report(folder: Path) -> dict[str, Any]:
    pack = read_pack(folder)
    store = cached()
    return summary(store.convert(pack, Options()), store.needs(pack))


def _findings(report: dict[str, Any]) -> bool:
    sites = report["figures"]["converted"] + report["figures"]["person"]
    return bool(sites or report["problems"] or any(one["path"].endswith((".txt", ".toml")) for one in report["needs"]))


def _options(options: argparse.Namespace) -> Options:
    enabled = {name for text in options.enable for name in text.split(",") if name}
    if unknown := sorted(enabled - {"fp64", "half", "torch-load"}):
        raise PatchforgeError(
            f"--enable does not know {', '.join(unknown)}", expected="fp64, half, torch-load", do="name one of these"
        )
    return Options(options.idiom == "comfy", "fp64" in enabled, "torch-load" in enabled, "half" in enabled)


@contextmanager
def _folder(pack: str) -> Iterator[tuple[Path, str]]:
    """The pack's folder; a repository is cloned for the time being."""
    if Path(pack).is_dir():
        yield Path(pack), Path(pack).resolve().name
        return
    if not _ADDRESS.fullmatch(pack):
        raise PatchforgeError(f"there is no {pack}", expected="a pack's folder, or OWNER/REPO", do="name one")
    address = pack if ":" in pack else f"https://github.com/{pack}"
    name = pack.rstrip("/").rpartition("/")[2].removesuffix(".git")
    with tempfile.TemporaryDirectory(prefix="patchforge-") as scratch:
        target = Path(scratch, name)
        run_git("clone", "--quiet", "--depth", "1", "--", address, str(target))
        yield target, name


def _show(report: dict[str, Any]) -> None:
    rows = [["rule", "converted", "left", "person"]]
    rows += [
        [name, *(str(count.get(one, 0)) for one in ("converted", "left", "person"))]
        for name, count in report["by_rule"].items()
    ]
    table([*rows, ["all", *(str(report["figures"][one]) for one in ("converted", "left", "person"))]])
    _list(report, decisions=("person",))


def _list(report: dict[str, Any], decisions: Sequence[str] = ("converted", "person")) -> None:
    for one in report["sites"]:
        if one["decision"] in decisions:
            what = "can be converted" if one["decision"] == "converted" else one["reason"]
            print(f"{report['pack']}/{one['path']}:{one['line']}: {one['rule'] or 'T0'} {one['text']}: {what}")
    for package, advice in sorted({(one["package"], one["advice"]) for one in report["needs"]}):
        places = [f"{one['path']}:{one['line']}" for one in report["needs"] if one["package"] == package]
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        print(f"{report['pack']}/{places[0]}{more}: {package}: {advice}")
    for one in report["problems"]:
        print(f"{report['pack']}/{one['path']}:{one['line']}: not looked at: {one['reason']}")
