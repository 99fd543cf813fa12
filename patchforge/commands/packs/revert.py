"""``patchforge packs revert``: takes everything of patchforge out of packs again."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchforge.arguments import Parser, add_dry_run
from patchforge.checkout import change
from patchforge.checkout.subject import NodePack
from patchforge.commands.checkout import planned, undone
from patchforge.errors import Exit
from patchforge.escape import line


def add_arguments(parser: Parser) -> None:
    """The arguments of the command."""
    parser.add_argument("folder", nargs="+", metavar="DIR")
    add_dry_run(parser, "list what would be written and removed")


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1, and nothing written, where an edit and ours are in one place."""
    for folder in options.folder:
        with change.opened(Path(folder), dry_run=options.dry_run) as inside:
            plan = change.revert(inside, NodePack(), dry_run=options.dry_run)
        print(f"{line(folder)}: {undone(plan)}" + (" (not written)" if options.dry_run else ""))
        if options.dry_run:
            planned(plan)
    return int(Exit.OK)
