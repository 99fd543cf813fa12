"""What commands take that watch what runs and keep it in order."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

from patchforge.arguments.parser import Parser, seconds, whole
from patchforge.arguments.shared import add_dry_run, add_json

COMFYUI = "http://127.0.0.1:8188"
LISTEN = "127.0.0.1:9188"
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def exporter(parser: Parser) -> None:
    """``patchforge exporter``."""
    parser.add_argument("--listen", default=LISTEN, metavar="HOST:PORT", help=f"where it answers (default: {LISTEN})")
    parser.add_argument("--comfyui", action="append", default=[], metavar="URL", help="watch this ComfyUI; repeat")
    parser.add_argument("--ollama", action="append", default=[], metavar="URL", help="watch this Ollama; repeat")
    parser.add_argument(
        "--disk", action="append", default=[], metavar="DIR", help="tell what is left of the disk with this; repeat"
    )
    parser.add_argument(
        "--certificate",
        action="append",
        default=[],
        metavar="FILE|HOST:PORT",
        help="tell when this certificate ends; repeat",
    )
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="DIR",
        help="tell what health, validate and maintain recorded here; repeat",
    )
    parser.add_argument(
        "--prometheus", metavar="URL", help="the page at / shows the last hours, asked of this Prometheus"
    )
    parser.add_argument(
        "--interval", type=seconds, default=5.0, metavar="SECONDS", help="between looks at servers (default: 5)"
    )
    parser.add_argument("--root", default="/", metavar="DIR", help="read /sys and /proc under DIR (default: /)")
    parser.add_argument("--once", action="store_true", help="look once, print the metrics and end")


def health(parser: Parser) -> None:
    """``patchforge health``."""
    add_json(parser)
    _add_url(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--live", action="store_true", help="it answers")
    how.add_argument("--ready", action="store_true", help="its device is there and its worker lives (the default)")
    how.add_argument("--deep", action="store_true", help="it samples a tiny model, on the GPU; needs patchforge-watch")
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="for an answer (default: 5), or the sample of --deep (60)"
    )
    parser.add_argument("--watch", type=seconds, metavar="SECONDS", help="look again and again, and tell systemd")
    parser.add_argument(
        "--failures", type=whole(1), default=3, metavar="N", help="with --watch: so many in a row end it (default: 3)"
    )
    parser.add_argument(
        "--stalled",
        type=seconds,
        default=600.0,
        metavar="SECONDS",
        help="with --deep: how long a job of somebody's may stand still (default: 600)",
    )
    _add_cpu(parser)
    parser.add_argument(
        "--disk", action="append", default=[], metavar="DIR", help="the disk with this must have 1 GiB left; repeat"
    )
    _add_state(parser, "record the result here, for the exporter")
    parser.add_argument("--write-pack", metavar="DIR", help="write the pack patchforge-watch into this custom_nodes")


def maintain(parser: Parser) -> None:
    """``patchforge maintain``."""
    add_json(parser)
    add_dry_run(parser, "say what would be removed; remove nothing")
    parser.add_argument("folder", nargs="?", metavar="DIR", help="ComfyUI's base folder: output, temp and models in it")
    _add_days(parser, "--output-age", "remove outputs that are older")
    parser.add_argument(
        "--output-size", type=size, metavar="SIZE", help="remove the oldest outputs above this size, such as 50G"
    )
    _add_days(parser, "--temp-age", "remove temporary files that are older")
    parser.add_argument(
        "--cache",
        action="append",
        default=[],
        metavar="DIR",
        help="a cache of compiled code, named like one; repeat",
    )
    _add_days(parser, "--cache-age", "remove of the caches what was not used for so long (default: 30)", default=30)
    _add_days(parser, "--model-age", "list models that were not read for so long")
    parser.add_argument("--remove-models", action="store_true", help="remove them, too")
    parser.add_argument("--journal", type=size, metavar="SIZE", help="keep at most this of systemd's journal")
    _add_days(parser, "--nix-age", "remove Nix generations that are older, and what only they need")
    _add_state(parser, "record the result here, for the exporter")


def validate(parser: Parser) -> None:
    """``patchforge validate``."""
    add_json(parser)
    _add_url(parser)
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="the Python that ComfyUI runs in, for doctor (default: that of the process that answers at URL)",
    )
    parser.add_argument(
        "--timeout", type=seconds, default=600.0, metavar="SECONDS", help="for the server to be ready (default: 600)"
    )
    _add_cpu(parser)
    parser.add_argument("--runs", type=whole(0), default=12, metavar="N", help="timed runs (default: 12; 0: none)")
    _add_state(parser, "where the last good result is kept, and this one recorded")
    parser.add_argument(
        "--rollback-command", metavar="COMMAND", help="what goes back, such as 'nixos-rebuild switch --rollback'"
    )
    parser.add_argument("--rollback", action="store_true", help="run it when the update does not pass")


def size(text: str) -> int:
    """A number with K, M, G or T: of bytes nobody means 50."""
    match = re.fullmatch(r"(\d{1,12})([KMGT])(iB|B)?", text)
    if not match:
        raise ArgumentTypeError(f"{text!r} is not a size, such as 500M or 50G")
    return int(match[1]) << _UNITS[match[2]]


def _add_url(parser: Parser) -> None:
    parser.add_argument("url", nargs="?", default=COMFYUI, metavar="URL", help=f"the ComfyUI (default: {COMFYUI})")


def _add_cpu(parser: Parser) -> None:
    parser.add_argument("--allow-cpu", action="store_true", help="it is to compute on the CPU")


def _add_state(parser: Parser, text: str) -> None:
    parser.add_argument("--state", metavar="DIR", help=text)


def _add_days(parser: Parser, name: str, text: str, default: int | None = None) -> None:
    parser.add_argument(name, type=whole(0), default=default, metavar="DAYS", help=text)
