"""What the commands of the door take."""

from __future__ import annotations

from patchforge.arguments.parser import Parser
from patchforge.arguments.shared import add_json

PARTS = ("whole", "http", "comfyui", "ollama")


def render(parser: Parser) -> None:
    """``patchforge door render``."""
    add_json(parser)
    parser.add_argument("config", metavar="FILE", help="what the door is told, as TOML or JSON; docs/door.md has one")
    parser.add_argument(
        "--part",
        choices=PARTS,
        default="whole",
        metavar="|".join(PARTS),
        help="the inside of nginx's http block, or that of one program's server block (default: whole, with servers)",
    )
    parser.add_argument("--out", metavar="FILE", help="write it here, such as /etc/nginx/conf.d/patchforge-door.conf")
    parser.epilog = "example: patchforge door render door.toml --out /etc/nginx/conf.d/patchforge-door.conf"


def routes(parser: Parser) -> None:
    """``patchforge door routes``."""
    add_json(parser)
    parser.add_argument(
        "--upstream", metavar="PATH|URL", help="clone or address of ComfyUI (default: PATCHFORGE_UPSTREAM, else GitHub)"
    )
    parser.add_argument("release", nargs="*", metavar="VERSION", help="default: the newest")
    parser.add_argument("--all", action="store_true", help="every release; only what is not decided is listed")
    parser.add_argument("--pack", metavar="DIR", help="what a node pack adds, instead of a release")
    parser.epilog = "example: patchforge door routes v0.33.0"
