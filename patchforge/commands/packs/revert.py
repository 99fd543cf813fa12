"""``patchforge packs revert``: takes everything of patchforge out of packs again."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchforge.checkout import change
from patchforge.checkout.subject import NodePack
from patchforge.commands.checkout import tell_undone
from patchforge.errors import Exit


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1, and nothing written, where an edit and ours are in one place."""
    for folder in options.folder:
        with change.opened(Path(folder), dry_run=options.dry_run) as inside:
            plan = change.revert(inside, NodePack(), dry_run=options.dry_run)
        tell_undone(folder, plan, dry_run=options.dry_run)
    return int(Exit.OK)
