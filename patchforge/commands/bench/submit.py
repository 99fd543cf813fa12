"""``patchforge bench submit``: one anonymous file of a benchmark, to be attached to an issue."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchforge import documents, outputs
from patchforge.bench.model import read
from patchforge.bench.submission import Submitted, anonymous, file_name, is_ours, rendered
from patchforge.commands.common import inputs, show_json
from patchforge.errors import Exit


def run(options: argparse.Namespace) -> int:
    """Exit status 0."""
    named = Path(options.benchmark)
    benchmark = anonymous(read(named))
    path = Path(options.out) / file_name(benchmark)
    outputs.check_document(path, is_ours, inputs(named))
    outputs.write_document(path, rendered(benchmark), is_ours)
    if options.json:
        show_json("bench-submit", documents.plain(Submitted(str(path), len(benchmark.cases))))
        return Exit.OK
    print(f"written: {path}")
    print(
        "It holds counts, times, energy and how near pictures are, of what was fresh; the names of processor and GPUs,"
    )
    print("the versions of system and torch, and the day. Look at it, and attach it to an issue.")
    return Exit.OK
