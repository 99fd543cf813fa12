"""What commands about releases take."""

from __future__ import annotations

import argparse

from patchforge.arguments.parser import Parser, whole
from patchforge.arguments.shared import (
    add_dry_run,
    add_json,
    add_pins,
    add_source,
    add_upstream,
    add_verbose,
    add_versions,
)


def apply(parser: Parser) -> None:
    """``patchforge apply``."""
    add_json(parser)
    add_upstream(parser)
    parser.add_argument(
        "release",
        nargs="?",
        metavar="VERSION|COMMIT|DIR",
        help="a release, such as v0.32.0 or latest; with --in-place the folder of your ComfyUI",
    )
    add_source(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", metavar="DIR", help="where patches go (default: generated/comfyui/VERSION)")
    where.add_argument("--to", metavar="DIR", help="write the whole patched tree into a new folder")
    where.add_argument(
        "--in-place", nargs="?", const="", metavar="DIR", help="patch the ComfyUI in DIR; its version is recognised"
    )
    where.add_argument("--revert", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument(
        "--context", type=whole(0), default=0, metavar="N", help="upstream lines around each hunk (default: 0)"
    )
    add_verbose(parser)
    add_dry_run(parser)


def check(parser: Parser) -> None:
    """``patchforge check``."""
    add_json(parser)
    add_upstream(parser)
    parser.add_argument("release", nargs="*", metavar="VERSION", help="default: every release under generated/")
    parser.add_argument("--generated", default="generated/comfyui", metavar="DIR", help="default: generated/comfyui")


def replay(parser: Parser) -> None:
    """``patchforge replay``."""
    add_json(parser)
    add_upstream(parser)
    parser.add_argument("--since", metavar="VERSION", help="first release (default: the oldest)")
    parser.add_argument("--until", metavar="VERSION", help="last release (default: the newest)")
    parser.add_argument(
        "--commits", action="store_true", help="every commit between --since and --until that touches a target file"
    )
    parser.add_argument(
        "--check", action="store_true", help="also compile, prove, apply in every way and run a second time"
    )


def verify(parser: Parser) -> None:
    """``patchforge verify``."""
    add_json(parser)
    add_upstream(parser)
    add_versions(parser)
    parser.add_argument(
        "--dynamic", action="store_true", help="also import both trees against a faked torch and compare answers"
    )
    parser.add_argument(
        "--python", metavar="PATH", help="interpreter with torch and ComfyUI's requirements (for --dynamic)"
    )
    parser.add_argument(
        "--online", action="store_true", help="settle pinned hashes that are published, not computed, instead"
    )
    add_pins(parser, " (for --online)")


def explain(parser: Parser) -> None:
    """``patchforge explain``."""
    add_json(parser)
    parser.add_argument(
        "name", nargs="?", metavar="RULE", help="such as free-memory; all transforms are listed without it"
    )
    parser.add_argument("--markdown", action="store_true", help="the reference page of all transforms")
    parser.add_argument("--nodes", action="store_true", help=argparse.SUPPRESS)  # what ``packs explain`` was
