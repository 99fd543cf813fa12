"""``patchforge bench compare``: two benchmarks, or both sides of one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from patchforge import documents
from patchforge.bench.compare import TOO_FEW, BenchmarkComparison, against_upstream, compare
from patchforge.bench.model import read, shown
from patchforge.bench.statistics import LEAST
from patchforge.commands.common import show_json, table
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.progress import step


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when every exact figure is the same and no time is an alarm, else 1."""
    step("comparing")
    first = read(Path(options.before))
    comparison = compare(first, read(Path(options.after))) if options.after else against_upstream(first)
    step("")
    if options.json:
        show_json("bench-compare", documents.plain(comparison))
    else:
        report(comparison)
    return Exit.OK if comparison.same else Exit.FAILED


def report(comparison: BenchmarkComparison) -> None:
    """What differs, for people."""
    if not comparison.differences:
        both = f"{line(comparison.before)} and {line(comparison.after)}"
        print(f"no difference in {comparison.compared} exact figures of {both}")
    else:
        print(f"{len(comparison.differences)} of {comparison.compared} exact figures differ")
        sides = [comparison.before, comparison.after]
        table([["suite", "case", "side", "part", "figure", *sides, "more"], *_rows(comparison)])
    if comparison.times:
        print(
            f"times of {comparison.after} by {comparison.before}; "
            f"an alarm is what changed at {comparison.confidence:.0%} confidence, "
            f"and by more than {comparison.large:.0%}"
        )
        figures = ["before", "after", "ratio", "interval", "runs", "verdict"]
        table([["suite", "case", "side", *figures], *_times(comparison)])
        if any(times.verdict == TOO_FEW for times in comparison.times):
            print(f"too few runs: a change is told of {LEAST} or more, as with --pairs {LEAST}")
    for note in comparison.notes:
        print(f"note: {line(note)}")


def _rows(comparison: BenchmarkComparison) -> Iterator[list[str]]:
    for figure in comparison.differences:
        known = figure.before is not None and figure.after is not None
        more = f"{(figure.after or 0) - (figure.before or 0):+d}" if known else ""
        place = [figure.suite, figure.case, figure.side, figure.part]
        yield [*place, figure.what, shown(figure.before), shown(figure.after), more]


def _times(comparison: BenchmarkComparison) -> Iterator[list[str]]:
    for times in comparison.times:
        ratio = times.found.ratio
        runs = f"{times.found.runs}{' in turns' if times.found.pairs else ''}"
        interval = f"{ratio.low:.3f} to {ratio.high:.3f}"
        figures = [f"{times.before:.3f} s", f"{times.after:.3f} s", f"{ratio.median:.3f}", interval]
        yield [times.suite, times.case, times.side, *figures, runs, times.verdict]
