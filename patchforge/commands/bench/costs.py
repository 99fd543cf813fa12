"""``patchforge bench costs``: what releases cost in exact counts, of the files that ``bench record`` keeps."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from patchforge import documents
from patchforge.bench import costs
from patchforge.bench.costs import ReleaseCost
from patchforge.bench.model import NOT_MEASURED, shown
from patchforge.commands.common import show_json, table
from patchforge.errors import Exit
from patchforge.templating import environment


def run(options: argparse.Namespace) -> int:
    """Exit status 0."""
    kept = costs.load_all(Path(options.generated))
    priced = list(costs.costs(kept))
    if options.json:
        show_json("bench-costs", documents.plain(priced))
    elif options.markdown:
        values = {"kept": kept, "costs": priced, "peak": costs.peak, "shown": shown, "change": change}
        print(environment("bench").get_template("costs.md.j2").render(values), end="")
    else:
        table(
            [
                ["release", "suite", "case", *_NAMES, "peak", "patches change", "since the release before"],
                *_rows(priced),
            ]
        )
    return Exit.OK


_NAMES = ("operations", "copies", "waits", "allocations")


def _rows(priced: Sequence[ReleaseCost]) -> Iterator[list[str]]:
    for cost in priced:
        figures = [shown(cost.figures[name]) for name in _NAMES]
        changes = change(cost, added=True), change(cost, added=False)
        yield [cost.release, cost.suite, cost.case, *figures, costs.peak(cost.figures), *changes]


def change(cost: ReleaseCost, *, added: bool) -> str:
    """What the patches add, or what the release does than the one before, in a line."""
    differences = cost.added if added else cost.more
    if differences is None:
        return NOT_MEASURED
    said = [
        costs.told(each) + (f" ({by})" if added and (by := costs.explained(each, cost.release)) else "")
        for each in differences[:3]
    ]
    more = [f"{len(differences) - 3} more figures"] if len(differences) > 3 else []
    return "; ".join([*said, *more]) or "nothing"
