"""What ``patchforge test`` takes, for releases and for packs."""

from __future__ import annotations

import argparse
import sys

from patchforge.arguments.parser import Parser, seconds, whole
from patchforge.arguments.shared import (
    add_json,
    add_source,
    add_upstream,
    add_versions,
)


def test(parser: Parser) -> None:
    """``patchforge test``."""
    add_json(parser)
    add_upstream(parser)
    add_versions(parser)
    add_trial(parser)
    parser.add_argument(
        "--against-upstream", action="store_true", help="run upstream's own tree beside the patched one"
    )
    parser.add_argument(
        "--pairs",
        type=whole(0),
        default=5,
        metavar="N",
        help="with --against-upstream on a GPU: pairs of runs to compare bits, time and memory (default: 5; 0: none)",
    )
    parser.add_argument("--session", action="append", default=[], metavar="NAME", help="only this session; repeat")
    _add_old_packs(parser)


def add_interpreter(parser: Parser) -> None:
    """On what a release is run, and with what."""
    add_source(parser, "read the one release from here instead of from git")
    parser.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="auto, cuda, xpu, mps, cpu, emulated or emulated:PRESET (default: auto, CUDA before XPU before emulated)",
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter with the torch to test (default: this one)",
    )
    parser.add_argument(
        "--no-venv", action="store_true", help="use that interpreter itself: it has the release's requirements"
    )
    parser.add_argument(
        "--allow-building",
        action="store_true",
        help="let pip build requirements that have no wheel, which runs their code while they are installed",
    )
    parser.add_argument(
        "--skip-frontend",
        action="store_true",
        help="do not install the front end, the templates and the embedded documentation",
    )
    parser.add_argument(
        "--timeout", type=seconds, default=300.0, metavar="SECONDS", help="for one prompt (default: 300)"
    )


def add_trial(parser: Parser) -> None:
    """Where releases and packs are run, and what is kept of it."""
    add_interpreter(parser)
    parser.add_argument("--rerun", action="store_true", help="run also what an earlier command has finished")
    parser.add_argument(
        "--out", default="trials", metavar="DIR", help="where evidence, pictures and reports go (default: trials)"
    )
    for old, new in {"--as-it-is": "--no-venv", "--lean": "--skip-frontend", "--again": "--rerun"}.items():
        parser.old_name(old, new)


def _add_old_packs(parser: Parser) -> None:
    """What ``packs test`` was."""
    hidden = argparse.SUPPRESS
    parser.add_argument("--nodes", dest="packs", nargs="+", default=[], help=hidden)
    parser.add_argument("--without", dest="skip_requirement", action="append", default=[], help=hidden)
    parser.add_argument("--page", help=hidden)
