"""Attention goes to a kernel that is known to fail, or materialises its scores whole."""

import libcst as cst

from patchforge.transform import At, Example, Findings, Mismatch, Transform, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose

_ATTENTION = "torch.nn.functional.scaled_dot_product_attention"


class AttentionMemory(Transform):
    """Torch's fused kernel loses the device or gives NaN for some shapes; without it XPU builds the full score matrix.

    T5 and Flux's text encoder meet the first with their masks of rank 4, SDXL's cross-attention the second. The hook
    hands masks over in rank 2 where that says the same, else calls the math back end; known faults are data, by torch
    version, device and shape. 128 GiB allocations were reported where no fused kernel applies (Arc A-series, or any
    explicit mask): the hook slices the queries when the scores would pass a limit; softmax runs along the keys, so the
    slices are computed from the same numbers. The limit has not been tuned on hardware. Every call of torch's function
    counts, also those that go round comfy.ops.
    """

    id = "attention-memory"
    aliases = ("T04",)
    title = "attention that is safe, and in slices of the queries"
    purpose = Purpose.MODEL
    issues = (
        "ComfyUI#7004",
        "ComfyUI#8767",
        "torch-xpu-ops#4886",
        "torch-xpu-ops#2390",
        "pytorch#195319",
        "pytorch#192158",
        "ComfyUI#15845",
    )
    files = ("comfy/*", "comfy_extras/*")
    needles = ("scaled_dot_product_attention",)
    hooks = ("attention",)
    retires = "torch's XPU attention never materialises the scores (torch-xpu-ops#4886, #2390), and no fault is listed"
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
            "a model that goes round comfy.ops",
            """\
            import torch.nn.functional as F

            class Attention:
                def forward(self, q, k, v):
                    return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
            """,
            """\
            import torch.nn.functional as F
            from comfy import patchforge_xpu

            class Attention:
                def forward(self, q, k, v):
                    return patchforge_xpu.attention(F.scaled_dot_product_attention)(q, k, v, attn_mask=self.mask)
            """,
            path="comfy/ldm/anima/model.py",
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
        """A call of torch's own function."""
        if not _is_attention(node.func, at):
            return
        if at.function != "<module>":
            yield rewrite(node, wrap(node.func, "attention"))
        else:
            yield Mismatch(node, "a call in a function")

    def visit_Attribute(self, node: cst.Attribute, at: At) -> Findings:
        """The function under another name, or handed on."""
        user = at.ancestors[-1]
        if _is_attention(node, at) and not (isinstance(user, cst.Call) and user.func is node):
            yield Mismatch(node, f"{_ATTENTION}(…)")


def _is_attention(node: cst.BaseExpression, at: At) -> bool:
    """Whether ``node`` is torch's function, where XPU reaches it."""
    return at.name(node) == _ATTENTION and not at.arm(lambda test: at.mentions(test, "cuda"))
