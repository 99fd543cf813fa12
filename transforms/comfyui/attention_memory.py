"""Attention scores are materialised whole."""

import libcst as cst

from patchforge.transform import At, Example, Findings, Mismatch, Transform, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose

_ATTENTION = "torch.nn.functional.scaled_dot_product_attention"
_SITES = frozenset(
    {
        ("comfy/ops.py", "scaled_dot_product_attention"),
        ("comfy/ldm/modules/attention.py", "attention_pytorch"),
        ("comfy/ldm/modules/diffusionmodules/model.py", "pytorch_attention"),
    }
)


class AttentionMemory(Transform):
    """Where no fused kernel applies (Arc A-series, or any explicit mask) PyTorch on XPU builds the full score matrix.

    128 GiB allocations were reported. The hook slices the queries when the scores would pass a limit; softmax runs along
    the keys, so the slices are computed from the same numbers. The limit has not been tuned on hardware.
    """

    id = "attention-memory"
    aliases = ("T04",)
    title = "attention in slices of the queries"
    purpose = Purpose.MODEL
    issues = ("ComfyUI#7004", "ComfyUI#8767", "torch-xpu-ops#4886", "torch-xpu-ops#2390")
    files = tuple(sorted({path for path, _ in _SITES}))
    needles = ("scaled_dot_product_attention",)
    hooks = ("attention",)
    retires = "torch's XPU attention never materialises the scores (torch-xpu-ops#4886, #2390)"
    examples = (
        Example(
            "the callee is chosen by the hook",
            """\
            import torch

            def scaled_dot_product_attention(q, k, v, *args, **kwargs):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, *args, **kwargs)
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def scaled_dot_product_attention(q, k, v, *args, **kwargs):
                return patchforge_xpu.attention(torch.nn.functional.scaled_dot_product_attention)(q, k, v, *args, **kwargs)
            """,
            path="comfy/ops.py",
        ),
        Example(
            "the override for CUDA is upstream's alone",
            """\
            import torch

            if torch.cuda.is_available():
                def scaled_dot_product_attention(q, k, v):
                    return torch.nn.functional.scaled_dot_product_attention(q, k, v)
            """,
            outcome=Outcome.DRIFTED,
            path="comfy/ops.py",
        ),
    )

    def visit_Call(self, node: cst.Call, at: At) -> Findings:
        """A call of torch's own function in one of the places that XPU reaches."""
        if not _is_attention(node.func, at):
            return
        if isinstance(at.ancestors[1], cst.FunctionDef):
            yield rewrite(node, wrap(node.func, "attention"))
        else:
            yield Mismatch(node, "a function of the top level")

    def visit_Attribute(self, node: cst.Attribute, at: At) -> Findings:
        """The function under another name, or handed on."""
        user = at.ancestors[-1]
        if _is_attention(node, at) and not (isinstance(user, cst.Call) and user.func is node):
            yield Mismatch(node, f"{_ATTENTION}(…)")


def _is_attention(node: cst.BaseExpression, at: At) -> bool:
    """Whether ``node`` is torch's function, where XPU reaches it."""
    reached = (at.path, at.function) in _SITES and not at.arm(lambda test: at.mentions(test, "cuda"))
    return reached and at.name(node) == _ATTENTION
