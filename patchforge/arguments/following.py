"""What commands take that follow what is tracked."""

from __future__ import annotations

import argparse

from patchforge.arguments.parser import Parser, whole
from patchforge.arguments.shared import (
    add_dry_run,
    add_generated,
    add_json,
    add_token,
    add_upstream,
)


def track(parser: Parser) -> None:
    """``patchforge track``."""
    add_json(parser)
    add_survey(parser)
    parser.add_argument("--index", action="store_true", help="add the newest to the release index")
    parser.add_argument("--nodes", action="store_true", help=argparse.SUPPRESS)  # what ``packs track`` was


def add_survey(parser: Parser) -> None:
    """What ``survey`` asks for."""
    parser.add_argument(
        "--upstream", metavar="PATH|URL", help="clone or address of ComfyUI (with a clone GitHub is not asked)"
    )
    add_generated(parser)
    add_token(parser)


def bot(parser: Parser) -> None:
    """``patchforge bot``."""
    add_json(parser)
    add_upstream(parser)
    parser.add_argument("release", nargs="?", metavar="VERSION", help="this one only (default: the newest that is new)")
    add_proposing(parser, "print the plan; with a clone as --upstream no network is used")
    parser.add_argument(
        "--test", action="store_true", help="also run the release, on the GPU at hand or an emulated one"
    )
    parser.add_argument("--nodes", dest="packs", nargs="*", help=argparse.SUPPRESS)  # what ``packs bot`` was


def add_proposing(parser: Parser, dry_run: str) -> None:
    """What releases and packs are proposed with."""
    parser.add_argument("--repository", metavar="OWNER/NAME", help="ours on GitHub (default: GITHUB_REPOSITORY)")
    parser.add_argument("--remote", metavar="URL|PATH", help="the same for git (default: its address on GitHub)")
    parser.add_argument("--base", default="main", metavar="BRANCH", help="default: main")
    add_token(parser)
    add_dry_run(parser, dry_run)
    parser.add_argument("--recreate", action="store_true", help="propose again what a person closed")
    parser.add_argument(
        "--max-open", type=whole(0), default=3, metavar="N", help="open pull requests at most (default: 3)"
    )
    parser.old_name("--most-open", "--max-open")


def matrix(parser: Parser) -> None:
    """``patchforge matrix``."""
    add_json(parser)
    parser.add_argument("release", nargs="?", metavar="VERSION", help="this one only")
    parser.add_argument("--all", action="store_true", help="every new version, not only the newest")
    add_survey(parser)
