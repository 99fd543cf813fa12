"""What ``patchforge packs …`` takes."""

from __future__ import annotations

import argparse

from patchforge.arguments.following import add_proposing
from patchforge.arguments.parser import Parser
from patchforge.arguments.shared import (
    add_dry_run,
    add_generated,
    add_json,
    add_upstream,
)
from patchforge.arguments.trials import add_trial


def check(parser: Parser) -> None:
    """``patchforge packs check``."""
    add_json(parser)
    parser.add_argument("folder", nargs="+", metavar="DIR")
    parser.add_argument("--sarif", metavar="FILE", help="also write the findings for code hosts; - prints them instead")
    parser.add_argument("--by-rule", action="store_true", help="print what each rule finds, as a table, instead")
    parser.old_name("--figures", "--by-rule")


def apply(parser: Parser) -> None:
    """``patchforge packs apply``."""
    add_json(parser)
    parser.add_argument(
        "packs", nargs="+", metavar="DIR|OWNER/REPO", help="the pack's folder, or a repository; with --in-place several"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--in-place", action="store_true", help="change the folder itself")
    where.add_argument("--out", metavar="DIR", help="where the patch goes (default: generated/nodes/NAME)")
    devices = parser.add_mutually_exclusive_group()
    devices.add_argument(
        "--comfy-devices",
        action="store_true",
        help="ask ComfyUI for the device where no string is wanted (default: as strictly as the pack named it)",
    )
    devices.add_argument("--idiom", choices=("strict", "comfy"), help=argparse.SUPPRESS)  # what it was
    parser.add_argument("--enable", action="append", default=[], metavar="NAMES", help="fp64, half, torch-load")
    add_dry_run(parser)


def revert(parser: Parser) -> None:
    """``patchforge packs revert``."""
    add_json(parser)
    parser.add_argument("folder", nargs="+", metavar="DIR")
    add_dry_run(parser, "list what would be written and removed")


def test(parser: Parser) -> None:
    """``patchforge packs test``."""
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
    add_trial(parser)
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


def track(parser: Parser) -> None:
    """``patchforge packs track``."""
    add_json(parser)


def bot(parser: Parser) -> None:
    """``patchforge packs bot``."""
    add_json(parser)
    parser.add_argument("packs", nargs="*", metavar="NAME", help="these only (default: all that have moved on)")
    add_proposing(parser, "print the plan; without a repository GitHub's API is not asked")
    parser.set_defaults(release=None, test=False, upstream=None)


def explain(parser: Parser) -> None:
    """``patchforge packs explain``."""
    add_json(parser)
    parser.add_argument("name", nargs="?", metavar="RULE", help="such as pack-autocast; all are listed without it")
    parser.add_argument("--markdown", action="store_true", help="the reference page of all rules")
    parser.set_defaults(nodes=True)
