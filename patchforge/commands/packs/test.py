"""``patchforge packs test``: runs packs for real in releases of ComfyUI, as they come and converted."""

from __future__ import annotations

import argparse

from patchforge.arguments import Parser, add_generated, add_json, add_upstream
from patchforge.commands import test


def add_arguments(parser: Parser) -> None:
    """The arguments of the command."""
    add_json(parser)
    add_upstream(parser)
    parser.add_argument("packs", nargs="+", metavar="DIR", help="the packs' folders")
    parser.add_argument(
        "--release",
        action="append",
        default=[],
        metavar="VERSION",
        help="in this release; repeat (default: every release under generated/)",
    )
    add_generated(parser)
    test.add_trial(parser)
    parser.add_argument(
        "--skip-requirement",
        action="append",
        default=[],
        metavar="NAME",
        help="a requirement of the packs that is not to be installed; repeat",
    )
    parser.old_name("--without", "--skip-requirement")
    parser.add_argument("--page", metavar="FILE", help="put the tables into this page, between their marks")
    parser.set_defaults(session=[], against_upstream=False, pairs=0)


def run(options: argparse.Namespace) -> int:
    """Exit status 0 when something passed, and no pack lost by its conversion what it passed as it comes; else 1."""
    return test.run(options)
