"""Upcasting switches off CUDA's autocast on every device."""

import libcst as cst

from patchforge.structure import descend, same
from patchforge.transform import At, Example, Findings, Mismatch, Transform, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose


class AutocastDevice(Transform):
    """``torch.autocast(enabled=False, device_type='cuda')`` leaves an XPU's autocast on, and warns where CUDA is missing."""

    id = "autocast-device"
    aliases = ("T24",)
    title = "autocast is switched off on the device in use"
    purpose = Purpose.CUDA_ONLY
    files = ("comfy/ldm/modules/attention.py", "comfy/ldm/modules/sub_quadratic_attention.py")
    needles = ("torch.autocast",)
    hooks = ("autocast_device",)
    retires = "the device type comes from the tensor"
    examples = (
        Example(
            "the type follows the query",
            """\
            import torch

            def attention_split(q, k, v):
                with torch.autocast(enabled=False, device_type = 'cuda'):
                    return q @ k
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def attention_split(q, k, v):
                with torch.autocast(enabled=False, device_type = patchforge_xpu.autocast_device('cuda', q)):
                    return q @ k
            """,
        ),
        Example(
            "no query to ask",
            "def f(a):\n    with torch.autocast(device_type='cuda'):\n        pass\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Call(self, node: cst.Call, at: At) -> Findings:
        """``torch.autocast`` with a literal device type."""
        if at.name(node.func) != "torch.autocast":
            return
        literal = next((arg.value for arg in node.args if at.strings(arg) == ["cuda"]), None)
        if literal is None:
            return
        function = next(
            (function for function in reversed(at.ancestors) if isinstance(function, cst.FunctionDef)), None
        )
        query = next((name for name in ("q", "query") if function and _is_parameter(function, name)), None)
        if not same(literal, '"cuda"'):
            yield Mismatch(node, "torch.autocast(device_type='cuda')")
        elif query:
            yield rewrite(node, wrap(literal, "autocast_device", query))
        else:
            yield Mismatch(node, "a function with a parameter q or query")


def _is_parameter(function: cst.FunctionDef, name: str) -> bool:
    return any(isinstance(child, cst.Param) and child.name.value == name for child in descend(function.params))
