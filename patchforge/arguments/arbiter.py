"""What ``patchforge arbiter …`` takes."""

from __future__ import annotations

from patchforge.arguments.parser import Parser, seconds
from patchforge.arguments.shared import add_dry_run, add_json

POLICIES = ("comfyui-first", "ollama-first", "fair", "fit")


def run(parser: Parser) -> None:
    """``patchforge arbiter run``."""
    parser.add_argument("--policy", choices=POLICIES, default="fair", help="who comes first (default: fair)")
    parser.add_argument(
        "--comfyui", default="http://127.0.0.1:8188", metavar="URL", help="default: http://127.0.0.1:8188"
    )
    parser.add_argument(
        "--ollama", default="http://127.0.0.1:11434", metavar="URL", help="default: http://127.0.0.1:11434"
    )
    parser.add_argument(
        "--listen-comfyui", default="127.0.0.1:8288", metavar="HOST:PORT", help="default: 127.0.0.1:8288"
    )
    parser.add_argument(
        "--listen-ollama", default="127.0.0.1:11534", metavar="HOST:PORT", help="default: 127.0.0.1:11534"
    )
    parser.add_argument(
        "--patience", type=seconds, default=30.0, metavar="SECONDS", help="until memory must be seen free (default: 30)"
    )
    parser.add_argument(
        "--timeout", type=seconds, default=5.0, metavar="SECONDS", help="for an answer of either (default: 5)"
    )
    _add_card(parser)


def limit(parser: Parser) -> None:
    """``patchforge arbiter limit``."""
    add_json(parser)
    parser.add_argument("unit", metavar="UNIT", help="a unit of systemd's, such as ollama.service")
    parser.add_argument("size", metavar="SIZE", help="such as 8GiB")
    _add_card(parser)
    add_dry_run(parser, "say what would be written")


def _add_card(parser: Parser) -> None:
    parser.add_argument("--memory", metavar="REGION", help="such as drm/0000:03:00.0/vram0 (default: the largest)")
    parser.add_argument("--root", default="/", metavar="DIR", help="read the kernel's files under DIR (default: /)")
