"""``patchforge packs explain``: what a rule for custom-node packs is for."""

from __future__ import annotations

import argparse

from patchforge.commands import explain


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 2 for a rule that is not there."""
    return explain.run(options)
