"""``patchforge bench history``: many benchmarks by date, and where something changed for good."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchforge import documents
from patchforge.bench.history import LEAST, BenchmarkHistory, benchmarks, history
from patchforge.bench.model import NOT_MEASURED, shown
from patchforge.commands.common import show_json, table
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.progress import step


def run(options: argparse.Namespace) -> int:
    """Exit status 0, or 1 where the newest change of something made it slower."""
    step("reading and comparing")
    found = history(benchmarks(Path(options.folder)))
    step("")
    if options.json:
        show_json("bench-history", documents.plain(found))
    else:
        _report(found)
    return Exit.FAILED if found.slower else Exit.OK


def _report(found: BenchmarkHistory) -> None:
    rows = [["device", "suite", "case", "side", "runs", "first", "last", "changes"]]
    for one in found.series:
        ends = [f"{point.seconds:.3f} s" for point in (one.points[:1] + one.points[-1:])] or [NOT_MEASURED] * 2
        changes = ", ".join(
            f"{change.ratio:.2f} times as long from {change.release} ({change.date[:10]})" for change in one.changes
        )
        said = changes or ("none" if one.enough else f"too few runs, {LEAST} are needed")
        rows.append([one.device, one.suite, one.case, one.side, str(len(one.points)), *ends, said])
    table(rows)
    for one in found.series:
        for exact in one.exact:
            where = f"{one.device} {one.suite} {one.case}, {one.side}"
            print(line(f"{where}: {exact.what} {shown(exact.before)} → {shown(exact.after)} in {exact.release}"))
    print(f"{found.benchmarks} benchmarks")
