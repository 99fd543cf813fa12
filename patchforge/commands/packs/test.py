"""``patchforge packs test``: runs packs for real in releases of ComfyUI, as they come and converted."""

from __future__ import annotations

import argparse

from patchforge.commands import test


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when something passed, and no pack lost by its conversion what it passed as it comes; else 1."""
    return test.run(options)
