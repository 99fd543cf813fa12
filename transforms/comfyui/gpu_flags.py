"""Nothing on the command line speaks of Intel GPUs."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import At, Example, Findings, Mismatch, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose

from .oneapi_selector import is_directml_flag


class GpuFlags(Transform):
    """--force-intel-xpu, --intel-device, --help-gpu, and the level, precision and options of what patchforge adds."""

    id = "gpu-flags"
    aliases = ("T28",)
    title = "flags for Intel GPUs"
    after = ("oneapi-selector",)
    purpose = Purpose.DEVICE
    files = ("comfy/cli_args.py",)
    needles = ("--directml",)
    hooks = ("add_flags",)
    retires = "never: these are patchforge's own flags"
    examples = (
        Example(
            "beside the flag of another vendor",
            """\
            import argparse

            parser.add_argument("--directml", type=int)
            parser.parse_args()
            """,
            """\
            import argparse
            from comfy import patchforge_xpu

            parser.add_argument("--directml", type=int)
            patchforge_xpu.add_flags(parser)
            parser.parse_args()
            """,
        ),
        Example("a renamed flag needs a person", 'parser.add_argument("--directml-device")\n', outcome=Outcome.DRIFTED),
    )

    def visit_Call(self, node: cst.Call, at: At) -> Findings:
        """``parser.add_argument("--directml", …)`` stands in every release."""
        if not is_directml_flag(node, at):
            return
        if same(node.func, "parser.add_argument"):
            yield rewrite(node, insert_after(at.statement, "patchforge_xpu.add_flags(parser)"))
        else:
            yield Mismatch(node, 'parser.add_argument("--directml", …)')
