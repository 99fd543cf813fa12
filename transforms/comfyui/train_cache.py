"""Training nodes empty CUDA's cache only."""

import libcst as cst

from patchforge.transform import At, Example, Findings, Mismatch, Span, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose

_EMPTY = "torch.cuda.empty_cache"


class TrainCache(Transform):
    """``torch.cuda.empty_cache()`` does nothing on an XPU, so training keeps what it no longer needs.

    The XPU call is added after upstream's: asking ComfyUI to empty the cache would synchronise CUDA as well.
    """

    id = "train-cache"
    aliases = ("T21",)
    title = "nodes empty the XPU's cache too"
    purpose = Purpose.CUDA_ONLY
    files = ("comfy_extras/*",)
    needles = ("torch.cuda.empty_cache",)
    hooks = ("empty_cache",)
    absent = (Span(last="v0.3.40"),)
    retires = "nodes call comfy.model_management.soft_empty_cache"
    examples = (
        Example(
            "beside upstream's call",
            """\
            import torch

            def train():
                torch.cuda.empty_cache()
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def train():
                torch.cuda.empty_cache()
                patchforge_xpu.empty_cache()
            """,
            path="comfy_extras/nodes_train.py",
        ),
        Example(
            "another name for the same call is found too",
            "import torch.cuda as c\ndef f():\n    return c.empty_cache\n",
            outcome=Outcome.DRIFTED,
            path="comfy_extras/nodes_train.py",
        ),
    )

    def visit_Expr(self, node: cst.Expr, at: At) -> Findings:
        """The call as a statement of its own."""
        if isinstance(node.value, cst.Call) and at.name(node.value.func) == _EMPTY:
            yield rewrite(node, insert_after(at.statement, "patchforge_xpu.empty_cache()"))

    def visit_Attribute(self, node: cst.Attribute, at: At) -> Findings:
        """The call as a part of something else, or the function handed on."""
        if at.name(node) != _EMPTY:
            return
        call, around = at.ancestors[-1], at.ancestors[-2]
        if not (isinstance(call, cst.Call) and call.func is node and isinstance(around, cst.Expr)):
            yield Mismatch(node, f"{_EMPTY}() as a statement")
