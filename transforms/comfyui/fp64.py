"""A card that has fp64 is told that it has none."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import At, Example, Findings, Mismatch, Span, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class Fp64(Transform):
    """Max cards have fp64, and RoPE is computed on the CPU each step all the same.

    Opt-in: a driver that emulates fp64 reports it as present.
    """

    id = "fp64"
    aliases = ("T26",)
    title = "fp64 where the card has it"
    purpose = Purpose.MODEL
    issues = ("ComfyUI#4210", "ComfyUI#13368", "intel-extension-for-pytorch#663")
    files = ("comfy/model_management.py",)
    needles = ("def supports_fp64",)
    hooks = ("fp64",)
    absent = (Span(last="v0.18.1"),)
    retires = "supports_fp64 asks the device"
    declares = ("supports_fp64*",)
    opt_in = "fp64"
    examples = (
        Example(
            "the device can say yes",
            """\
            import torch

            def supports_fp64(device=None):
                if is_intel_xpu():
                    return False
                return True
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def supports_fp64(device=None):
                if is_intel_xpu():
                    if patchforge_xpu.fp64(False, device):
                        return True
                    return False
                return True
            """,
        ),
        Example(
            "a computed answer needs a person",
            "def supports_fp64(device=None):\n    if is_intel_xpu():\n        return ask(device)\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Return(self, node: cst.Return, at: At) -> Findings:
        """The XPU arm's answer."""
        if at.function == "supports_fp64" and at.xpu_arm() and node.value is not None:
            if same(node.value, "False"):
                yield rewrite(
                    node, insert_before(at.statement, "if patchforge_xpu.fp64(False, device):", "    return True")
                )
            else:
                yield Mismatch(node, "return False")
