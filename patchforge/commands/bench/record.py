"""``patchforge bench record``: keeps the exact counts of benchmarks beside the patches of their releases."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchforge import documents, outputs
from patchforge.arguments.shared import RELEASES
from patchforge.bench import costs
from patchforge.bench.costs import Recorded
from patchforge.bench.history import benchmarks
from patchforge.bench.model import FORMAT, read
from patchforge.commands.common import in_repository, inputs, show_json
from patchforge.errors import Exit
from patchforge.paths import need_folder


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 69 where a benchmark has no counts to keep, and then nothing is written."""
    generated = in_repository(options.generated, RELEASES)
    named = [Path(text) for text in options.benchmarks]
    measured = [benchmark for path in named for benchmark in (benchmarks(path) if path.is_dir() else [read(path)])]
    made = {costs.place(generated, benchmark.release): FORMAT.dump(costs.recorded(benchmark)) for benchmark in measured}
    need_folder(generated, "a folder with the patches of releases")
    for path in made:
        outputs.check_document(path, costs.is_ours, inputs(*named))
    for path, data in made.items():
        outputs.write_document(path, data, costs.is_ours)
    releases = tuple(path.stem for path in made)
    if options.json:
        show_json("bench-record", documents.plain(Recorded(tuple(map(str, made)), releases)))
    else:
        for path in made:
            print(f"written: {path}")
    return Exit.OK
