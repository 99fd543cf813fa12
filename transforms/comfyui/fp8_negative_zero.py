"""Minus zero becomes NaN in fp8."""

import keyword

import libcst as cst

from patchforge.structure import descend, same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Span, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class Fp8NegativeZero(Transform):
    """Intel's own patch says that an XPU turns -0.0 into NaN on the way to float8: LoRA on fp8 models goes black.

    Whether current torch still does is not known. The hook makes zeros positive, which no arithmetic can tell apart.
    """

    id = "fp8-negative-zero"
    aliases = ("T14",)
    title = "no minus zero on the way to fp8"
    purpose = Purpose.MODEL
    issues = ("llm-scaler: comfyui_for_multi_arc.patch",)
    files = ("comfy/float.py",)
    needles = ("def manual_stochastic_round_to_float8",)
    hooks = ("positive_zero",)
    absent = (Span(last="v0.0.8"),)
    retires = "the function normalises the sign of zero itself"
    examples = (
        Example(
            "the value that is returned",
            """\
            import torch

            def manual_stochastic_round_to_float8(x, dtype):
                sign = x
                return sign
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def manual_stochastic_round_to_float8(x, dtype):
                sign = x
                if sign.device.type == "xpu":
                    sign = patchforge_xpu.positive_zero(sign)
                return sign
            """,
        ),
        Example(
            "the value that is cast",
            """\
            import torch

            def manual_stochastic_round_to_float8(x, dtype):
                return x.to(dtype=dtype)
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def manual_stochastic_round_to_float8(x, dtype):
                if x.device.type == "xpu":
                    x = patchforge_xpu.positive_zero(x)
                return x.to(dtype=dtype)
            """,
            version="v0.1.0",
        ),
        Example(
            "upstream looks at the sign bit",
            "def manual_stochastic_round_to_float8(x):\n    x[torch.signbit(x)] = 0\n    return x\n",
            outcome=Outcome.UPSTREAM,
        ),
        Example(
            "a computed result needs a person",
            "def manual_stochastic_round_to_float8(x):\n    return f(x) + 1\n",
            outcome=Outcome.DRIFTED,
        ),
        Example(
            "so does a constant, which cannot be assigned to",
            "def manual_stochastic_round_to_float8(x):\n    return None\n",
            outcome=Outcome.DRIFTED,
        ),
        Example(
            "so does a second way out",
            "def manual_stochastic_round_to_float8(x):\n    if x is None:\n        return y\n    return x\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_FunctionDef(self, node: cst.FunctionDef, at: At) -> Findings:
        """The function's last statement returns a name or that name cast."""
        if node.name.value != "manual_stochastic_round_to_float8":
            return
        if at.mentions(node, "signbit"):
            yield Already(node, "the function looks at the sign bit")
            return
        last = node.body.body[-1]
        answers = [child for child in descend(node.body) if isinstance(child, cst.Return)]
        name = next((child.value for child in descend(last) if isinstance(child, cst.Name)), "")
        assignable = not keyword.iskeyword(name)
        if assignable and len(answers) == 1 and same(last, f"return {name}", f"return {name}.to(dtype=dtype)"):
            lines = (f'if {name}.device.type == "xpu":', f"    {name} = patchforge_xpu.positive_zero({name})")
            yield rewrite(last, insert_before(last, *lines))
        else:
            yield Mismatch(last, "return NAME or return NAME.to(dtype=dtype), and no return before it")
