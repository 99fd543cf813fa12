"""``patchforge packs check``: what packs have for CUDA only."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from patchforge import processes
from patchforge.checkout.place import command
from patchforge.commands.common import inputs, show_json
from patchforge.commands.packs.sites import list_outside, list_sites
from patchforge.documents import plain
from patchforge.errors import Exit
from patchforge.escape import document, line
from patchforge.nodes.manifest import PackReport
from patchforge.nodes.pack import read_pack
from patchforge.nodes.pack_cache import cached
from patchforge.nodes.report import figures, is_ours, sarif, sarif_file, summary
from patchforge.outputs import check_document, write_document
from patchforge.pattern import Options

_STDOUT = "-"


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 where something is found."""
    folders = [Path(folder) for folder in options.folder]
    if options.sarif and options.sarif != _STDOUT:
        check_document(Path(options.sarif), is_ours, inputs(*folders))
    reports, places = _reports(folders), list(map(in_repository, folders))
    if options.sarif and options.sarif != _STDOUT:
        write_document(Path(options.sarif), sarif_file(reports, places), is_ours, inputs=inputs(*folders))
    if options.sarif == _STDOUT:
        print(document(sarif(reports, places)))
    elif options.by_rule:
        print(figures(reports), end="")
    elif options.json:
        show_json("packs-check", plain(reports))
    else:
        for report in reports:
            list_sites(report)
            list_outside(report)
        print(_summary(reports, folders))
    return int(Exit.FAILED if any(_findings(report) for report in reports) else Exit.OK)


def in_repository(folder: Path) -> str:
    """Where a folder is in the git checkout around it, "" for its root; outside of one its name alone."""
    path = folder.resolve()
    root = next((above for above in (path, *path.parents) if (above / ".git").exists()), path)
    path_in_repository = path.relative_to(root).as_posix()
    return "" if path_in_repository == "." else path_in_repository


def _summary(reports: Sequence[PackReport], folders: Sequence[Path]) -> str:
    """How much was found, and how to go on."""
    count = {name: sum(report.figures[name] for report in reports) for name in ("converted", "person", "left")}
    counts = f"{count['converted']} can be converted, {count['person']} for a person, {count['left']} left on purpose"
    counts += _not_looked_at(reports)
    apt = [folder for folder, report in zip(folders, reports, strict=True) if report.figures["converted"]]
    return counts + (f"; to convert: {line(command('pack', 'apply', *apt))}" if apt else "")


def _not_looked_at(reports: Sequence[PackReport]) -> str:
    sites = sum(len(report.outside) for report in reports)
    files = sum(len(report.problems) for report in reports)
    said = (_several(sites, "site"), _several(files, "file"))
    return f", {' and '.join(filter(None, said))} not looked at" if sites or files else ""


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}" if count else ""


def _reports(folders: Sequence[Path]) -> list[PackReport]:
    if len(folders) == 1 or (os.cpu_count() or 1) == 1:
        return [_report(folder) for folder in folders]
    with processes.workers(min(os.cpu_count() or 1, len(folders))) as pool:
        return list(pool.map(_report, folders))


def _report(folder: Path) -> PackReport:
    pack = read_pack(folder)
    store = cached()
    return summary(store.convert(pack, Options()), store.needs(pack))


def _findings(report: PackReport) -> bool:
    sites = report.figures["converted"] + report.figures["person"]
    return bool(sites or report.problems or any(need.path.endswith((".txt", ".toml")) for need in report.needs))
