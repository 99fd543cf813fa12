"""The arguments that several commands share."""

from __future__ import annotations

import argparse

from patchforge.arguments.parser import whole

GENERATED = "generated"
RELEASES = "generated/comfyui"
PINS = "upstream/pins"


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def add_upstream(parser: argparse.ArgumentParser) -> None:
    """--upstream, --jobs and --no-cache, for commands that convert releases."""
    parser.add_argument(
        "--upstream",
        metavar="PATH|URL",
        help="clone or address of ComfyUI (default: PATCHFORGE_UPSTREAM, else GitHub)",
    )
    parser.add_argument("--jobs", type=whole(1), metavar="N", help="processes to use (default: one per core)")
    parser.add_argument("--no-cache", action="store_true", help="look at every file again")


def add_versions(parser: argparse.ArgumentParser) -> None:
    """VERSION …, and where to find all of them."""
    parser.add_argument("release", nargs="*", metavar="VERSION", help="default: every release under generated/")
    add_generated(parser)


def add_generated(parser: argparse.ArgumentParser, default: str = RELEASES, more: str = "") -> None:
    """--generated."""
    parser.add_argument("--generated", default=default, metavar="DIR", help=f"default: {default}{more}")


def add_pins(parser: argparse.ArgumentParser, more: str = "") -> None:
    """--pins."""
    parser.add_argument("--pins", default=PINS, metavar="DIR", help=f"default: {PINS}{more}")


def add_source(parser: argparse.ArgumentParser, text: str = "read the release from here instead of from git") -> None:
    """--from, as ``source``."""
    parser.add_argument("--from", dest="source", metavar="ARCHIVE|DIR", help=text)


def add_token(parser: argparse.ArgumentParser) -> None:
    """--token-file."""
    parser.add_argument("--token-file", metavar="FILE", help="GitHub token (default: GH_TOKEN, GITHUB_TOKEN)")


def add_dry_run(parser: argparse.ArgumentParser, text: str = "do everything but write") -> None:
    """--dry-run."""
    parser.add_argument("--dry-run", action="store_true", help=text)


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """--verbose."""
    parser.add_argument("--verbose", action="store_true", help="also list every transform with its outcome")
