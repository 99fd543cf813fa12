"""``patchforge repair``: finish what is half done in a patched folder, and put back what is lost."""

from __future__ import annotations

import argparse

from patchforge.arguments import Parser
from patchforge.checkout.change import repair
from patchforge.commands.checkout import add_put_right, put_right


def add_arguments(parser: Parser) -> None:
    """The arguments of the command."""
    add_put_right(parser)


def run(options: argparse.Namespace) -> int:
    """Exit status 0, or an error that says why it cannot be put right, and what a person can do."""
    return put_right(options, repair)
