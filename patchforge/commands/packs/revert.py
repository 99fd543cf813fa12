"""``patchforge packs revert``: takes everything of patchforge out of packs again."""

from __future__ import annotations

import argparse

from patchforge.checkout.subject import NodePack
from patchforge.commands import revert


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1, and nothing written, where an edit and ours are in one place."""
    return revert.put_back(options.folder, dry_run=options.dry_run, as_json=options.json, subject=NodePack())
