"""``patchforge packs bot``: proposes packs that have moved on as pull requests."""

from __future__ import annotations

import argparse

from patchforge.arguments import Parser, add_json
from patchforge.commands import bot


def add_arguments(parser: Parser) -> None:
    """The arguments of the command."""
    add_json(parser)
    parser.add_argument("packs", nargs="*", metavar="NAME", help="these only (default: all that have moved on)")
    bot.add_proposing(parser, "print the plan; without a repository GitHub's API is not asked")
    parser.set_defaults(release=None, test=False, upstream=None)


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 or 3 while an issue says what a person must look at; 75 when it should be run again."""
    return bot.run(options)
