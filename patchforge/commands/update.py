"""``patchforge update``: patches for the release that a patched checkout holds by now."""

from __future__ import annotations

import argparse

from patchforge.arguments import Parser
from patchforge.checkout.change import update
from patchforge.commands.checkout import add_put_right, put_right


def add_arguments(parser: Parser) -> None:
    """The arguments of the command."""
    add_put_right(parser)


def run(options: argparse.Namespace) -> int:
    """Exit status 0; the errors of ``apply`` where the release does not convert."""
    return put_right(options, update)
