"""What commands about a folder of ComfyUI's or of a pack, or about this machine, take."""

from __future__ import annotations

from patchforge.arguments.parser import Parser
from patchforge.arguments.shared import (
    add_dry_run,
    add_generated,
    add_json,
    add_source,
    add_upstream,
)


def revert(parser: Parser) -> None:
    """``patchforge revert``."""
    add_json(parser)
    parser.add_argument("folder", metavar="DIR", help="the checkout of ComfyUI, or the pack")
    add_dry_run(parser, "list what would be written and removed")


def repair(parser: Parser) -> None:
    """``patchforge repair``."""
    _add_put_right(parser)


def update(parser: Parser) -> None:
    """``patchforge update``."""
    _add_put_right(parser)


def status(parser: Parser) -> None:
    """``patchforge status``."""
    add_json(parser)
    parser.add_argument("folder", nargs="?", metavar="DIR", help="the state of this checkout or pack instead")
    add_generated(parser)


def cache(parser: Parser) -> None:
    """``patchforge cache``."""
    add_json(parser)
    parser.add_argument("--clean", action="store_true", help="remove what is in it")


def doctor(parser: Parser) -> None:
    """``patchforge doctor``."""
    add_json(parser)
    parser.add_argument("tree", nargs="?", metavar="DIR", help="ComfyUI's folder: is it patched, and does it fit")
    parser.add_argument(
        "--python", metavar="PATH", help="interpreter whose torch is examined (default: that of DIR, else this one)"
    )
    parser.add_argument("--root", default="/", metavar="DIR", help="examine the files under DIR instead (default: /)")
    parser.add_argument(
        "--upstream",
        nargs="?",
        const="",
        metavar="PATH|URL",
        help="instead examine a clone or the address of ComfyUI (default: PATCHFORGE_UPSTREAM, else GitHub)",
    )


def _add_put_right(parser: Parser) -> None:
    """The arguments of ``repair`` and ``update``."""
    add_json(parser)
    add_upstream(parser)
    parser.add_argument("folder", metavar="DIR", help="the checkout of ComfyUI, or the pack")
    add_source(parser, "the unpatched release, where no journal and no git has it")
    add_dry_run(parser, "list what would be written and removed")
