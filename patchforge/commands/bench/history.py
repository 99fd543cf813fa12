"""``patchforge bench history``: many benchmarks by date, and where something changed for good."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchforge import documents
from patchforge.bench.history import LEAST, BenchmarkHistory, Point, benchmarks, history
from patchforge.bench.model import NOT_MEASURED, shown
from patchforge.commands.common import show_json, table
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.progress import step


def run(options: argparse.Namespace) -> int:
    """Exit status 0, or 1 where the newest change of something made it slower."""
    step("reading and comparing")
    told = history(benchmarks(Path(options.folder)))
    step("")
    if options.json:
        show_json("bench-history", documents.plain(told))
    else:
        _report(told)
    return Exit.FAILED if told.slower else Exit.OK


def _report(told: BenchmarkHistory) -> None:
    rows = [["device", "suite", "case", "side", "benchmarks", "first", "last", "changes"]]
    for series in told.series:
        ends = [_point(point) for point in (series.points[:1] + series.points[-1:])] or [NOT_MEASURED] * 2
        changes = ", ".join(
            f"{change.ratio:.2f} times as long from {change.release} ({change.date[:10]})" for change in series.changes
        )
        said = changes or ("none" if series.enough else f"not told of fewer than {LEAST} benchmarks")
        rows.append([series.device, series.suite, series.case, series.side, str(len(series.points)), *ends, said])
    table(rows)
    for series in told.series:
        for exact in series.exact:
            where = f"{series.device} {series.suite} {series.case}, {series.side}"
            print(line(f"{where}: {exact.what} {shown(exact.before)} → {shown(exact.after)} in {exact.release}"))
    print(f"{told.benchmarks} benchmarks")


def _point(point: Point) -> str:
    return f"{point.seconds:.3f} s ({point.release}, {point.date[:10]})"
