"""What ``patchforge bench …`` takes."""

from __future__ import annotations

from patchforge.arguments.parser import Parser, whole
from patchforge.arguments.shared import add_generated, add_json, add_upstream
from patchforge.arguments.trials import add_interpreter

SIZES = ("tiny", "real")  #: of generated models


def run(parser: Parser) -> None:
    """``patchforge bench run``."""
    add_json(parser)
    add_upstream(parser)
    parser.add_argument(
        "release", nargs="?", metavar="VERSION|DIR", help="a release, or a ComfyUI (default: the newest generated)"
    )
    add_generated(parser)
    add_interpreter(parser)
    parser.add_argument(
        "--suite",
        action="append",
        default=[],
        metavar="NAME,...",
        help="tensor, conv, sd, workflows, batch, load; repeat (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="a few cases only, in a minute or two")
    parser.add_argument(
        "--precision",
        action="append",
        default=[],
        metavar="TYPE,...",
        help="fp16, bf16: run workflows in these as well as in float32; repeat",
    )
    parser.add_argument(
        "--level",
        action="append",
        default=[],
        metavar="LEVEL,...",
        help="O0 to O3: run workflows at these levels of the patches as well; repeat",
    )
    parser.add_argument(
        "--pairs",
        type=whole(0),
        metavar="N",
        help="timed runs of each side, in turns (default: 16, of one side alone 12, with --quick 3; 0: only count)",
    )
    parser.add_argument(
        "--workflow", action="append", default=[], metavar="NAME", help="only this workflow; repeat (default: all)"
    )
    parser.add_argument(
        "--model", metavar="CHECKPOINT", help="run workflows that need no other with this .safetensors file"
    )
    parser.add_argument(
        "--size",
        choices=SIZES,
        default=SIZES[0],
        help="real: run workflows with generated models as large as published ones (SD 1.5, SDXL, SD3, ...), which are "
        "written into the cache first: up to 13 GB (default: tiny)",
    )
    parser.add_argument("--pixels", type=whole(64), metavar="N", help="with --model: width and height (default: 512)")
    parser.add_argument(
        "--baseline",
        metavar="SIDE|FILE",
        help="measure this beside it, in turns: upstream is the release as it comes, cpu and cuda that on these; "
        "or compare it with an earlier benchmark",
    )
    parser.add_argument(
        "--out",
        default="bench",
        metavar="DIR",
        help="where the benchmark goes, in a folder of its own (default: bench)",
    )


def compare(parser: Parser) -> None:
    """``patchforge bench compare``."""
    add_json(parser)
    parser.add_argument("before", metavar="A", help="a benchmark: its file, or the folder that it is in")
    parser.add_argument("after", nargs="?", metavar="B", help="another (default: both sides of A, upstream first)")


def history(parser: Parser) -> None:
    """``patchforge bench history``."""
    add_json(parser)
    parser.add_argument("folder", metavar="DIR", help="a folder with benchmarks, at any depth")


def report(parser: Parser) -> None:
    """``patchforge bench report``."""
    add_json(parser)
    parser.add_argument("benchmark", metavar="A", help="a benchmark: its file, or the folder that it is in")
    parser.add_argument("--before", metavar="B", help="an earlier one, against which times and counts are shown")
    parser.add_argument("--out", metavar="DIR", help="where the pages go (default: the benchmark's own folder)")


def record(parser: Parser) -> None:
    """``patchforge bench record``."""
    add_json(parser)
    parser.add_argument(
        "benchmarks", nargs="+", metavar="A", help="a benchmark: its file, or a folder with benchmarks, at any depth"
    )
    add_generated(parser, more="; the costs are beside it, in costs/")


def costs(parser: Parser) -> None:
    """``patchforge bench costs``."""
    add_json(parser)
    parser.add_argument("--markdown", action="store_true", help="print the page of the documentation")
    add_generated(parser, more="; the costs are beside it, in costs/")


def submit(parser: Parser) -> None:
    """``patchforge bench submit``."""
    add_json(parser)
    parser.add_argument("benchmark", metavar="A", help="a benchmark: its file, or the folder that it is in")
    parser.add_argument("--out", default=".", metavar="DIR", help="where the file goes (default: this folder)")
