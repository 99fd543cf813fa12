"""``patchforge update``: patches for the release that a patched checkout holds by now."""

from __future__ import annotations

import argparse

from patchforge.checkout.change import update
from patchforge.commands.checkout import put_right


def run(options: argparse.Namespace) -> int:
    """Exit status 0; the errors of ``apply`` where the release does not convert."""
    return put_right(options, update)
