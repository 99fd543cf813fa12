"""``patchforge bench compare``: two benchmarks, or both sides of one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from patchforge import documents
from patchforge.bench.compare import BenchmarkComparison, against_upstream, compare
from patchforge.bench.model import read, shown
from patchforge.commands.common import show_json, table
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.progress import step


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when every exact figure is the same and no time is an alarm, else 1."""
    step("comparing")
    first = read(Path(options.before))
    found = compare(first, read(Path(options.after))) if options.after else against_upstream(first)
    step("")
    if options.json:
        show_json("bench-compare", documents.plain(found))
    else:
        report(found)
    return Exit.OK if found.same else Exit.FAILED


def report(found: BenchmarkComparison) -> None:
    """What differs, for people."""
    if not found.differences:
        print(f"no difference in {found.compared} exact figures of {line(found.before)} and {line(found.after)}")
    else:
        print(f"{len(found.differences)} of {found.compared} exact figures differ")
        table([["suite", "case", "part", "figure", found.before, found.after, "more"], *_rows(found)])
    if found.times:
        print(
            f"times of {found.after} by {found.before}; "
            f"an alarm is what changed at {found.confidence:.0%} confidence, and by more than {found.large:.0%}"
        )
        table([["suite", "case", "before", "after", "ratio", "interval", "runs", "verdict"], *_times(found)])
    for note in found.notes:
        print(f"note: {line(note)}")


def _rows(found: BenchmarkComparison) -> Iterator[list[str]]:
    for one in found.differences:
        known = one.before is not None and one.after is not None
        more = f"{(one.after or 0) - (one.before or 0):+d}" if known else ""
        yield [one.suite, one.case, one.part, one.what, shown(one.before), shown(one.after), more]


def _times(found: BenchmarkComparison) -> Iterator[list[str]]:
    for one in found.times:
        ratio = one.found.ratio
        runs = f"{one.found.runs}{' in turns' if one.found.pairs else ''}"
        figures = [f"{one.before:.3f} s", f"{one.after:.3f} s", f"{ratio.median:.3f}"]
        yield [one.suite, one.case, *figures, f"{ratio.low:.3f} to {ratio.high:.3f}", runs, one.verdict]
