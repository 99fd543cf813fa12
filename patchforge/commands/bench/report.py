"""``patchforge bench report``: a benchmark as a page with plots, as Markdown and as CSV."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchforge import documents, outputs
from patchforge.bench.model import FILE, FORMAT, read
from patchforge.bench.places import KIND, check
from patchforge.bench.report import CSV, HTML, MARKDOWN, BenchmarkReport, headline, html, markdown, rows, table
from patchforge.commands.common import inputs, show_json
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.progress import step


def run(options: argparse.Namespace) -> int:
    """Exit status 0."""
    named = Path(options.benchmark)
    benchmark = read(named)
    before = read(Path(options.before)) if options.before else None
    folder = Path(options.out) if options.out else named if named.is_dir() else named.parent
    first = headline(benchmark, rows(benchmark, before), before)
    read_from = inputs(*([named] if options.out else []), options.before)
    check(folder, read_from)
    step("drawing")
    made = {
        FILE: FORMAT.dump(benchmark),
        HTML: html(benchmark, before).encode(),
        MARKDOWN: markdown(benchmark, before).encode(),
        CSV: table(benchmark).encode(),
    }
    step("")
    outputs.write_folder(folder, made, KIND, inputs=read_from)
    pages = BenchmarkReport(first, str(folder), tuple(sorted(made)))
    if options.json:
        show_json("bench-report", documents.plain(pages))
    else:
        print(line(first))
        print(f"written: {folder / HTML}")
    return Exit.OK
