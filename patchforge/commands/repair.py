"""``patchforge repair``: finish what is half done in a patched folder, and put back what is lost."""

from __future__ import annotations

import argparse

from patchforge.checkout.change import repair
from patchforge.commands.checkout import put_right


def run(options: argparse.Namespace) -> int:
    """Exit status 0, or an error that says why it cannot be put right, and what a person can do."""
    return put_right(options, repair)
