"""The tables of ``docs/monitoring.md``, from the tables in the code."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from patchforge import bounded, resources
from patchforge.operate.metrics import METRICS

BEGIN, END = "<!-- begin: {} -->", "<!-- end: {} -->"


def metrics() -> Iterator[str]:
    """Every metric, by what it tells of."""
    for subject, group in groupby(METRICS, lambda one: one.of):
        yield f"### {subject}"
        yield ""
        yield "| metric | kind | labels | meaning |"
        yield "|---|---|---|---|"
        for one in group:
            labels = ", ".join(f"`{name}`" for name in one.labels)
            yield f"| `{one.name}` | {one.kind} | {labels} | {one.help} |"
        yield ""


PARTS = {"metrics": metrics}


def filled(page: str) -> str:
    """The page with its tables written anew, between their marks."""
    for name, lines in PARTS.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = "\n".join([f"{before}{begin}", "", *lines(), f"{end}{after}"])
    return page


def main() -> None:
    """``make docs``: writes the tables of this checkout's page."""
    page = (resources.repository() or Path()) / "docs" / "monitoring.md"
    page.write_text(filled(bounded.file(page).decode()), "utf-8")


if __name__ == "__main__":
    main()
