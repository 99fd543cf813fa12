"""``patchforge packs bot``: proposes packs that have moved on as pull requests."""

from __future__ import annotations

import argparse

from patchforge.commands import bot


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 or 3 while an issue says what a person must look at; 75 when it should be run again."""
    return bot.run(options)
