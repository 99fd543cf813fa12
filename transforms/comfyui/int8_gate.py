"""Int8 products are refused on every XPU."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Span, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class Int8Gate(Transform):
    """By v0.35.0 ``supports_int8_compute`` is False on XPU, and int8 weights are dequantised.

    v0.27.0 to v0.33.0 have no gate and multiply int8 through ``torch._int_mm``. The hook multiplies two small matrices on
    the device, once; if the product equals the CPU's, the gate opens. A plug-in that opens it took an A770 from 74 to 54 s.
    """

    id = "int8-gate"
    title = "int8 where the device multiplies it"
    purpose = Purpose.MODEL
    issues = ("llm-scaler#704", "llm-scaler#583")
    files = ("comfy/model_management.py",)
    needles = ("def supports_int8_compute",)
    hooks = ("int8_compute",)
    absent = (Span(last="v0.34.99"),)
    retires = "supports_int8_compute asks the device"
    declares = ("supports_int8_compute*", "call:torch.xpu.current_device")
    examples = (
        Example(
            "the device can say yes",
            """\
            import torch

            def supports_int8_compute(device=None):
                if is_intel_xpu():
                    return False
                return True
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def supports_int8_compute(device=None):
                if is_intel_xpu():
                    if is_intel_xpu() and patchforge_xpu.int8_compute(device):
                        return True
                    return False
                return True
            """,
            version="v0.35.0",
        ),
        Example(
            "several vendors in one test",
            """\
            import torch

            def supports_int8_compute(device=None):
                if mps_mode() or is_intel_xpu() or is_ixuca():
                    return False
                return True
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def supports_int8_compute(device=None):
                if mps_mode() or is_intel_xpu() or is_ixuca():
                    if is_intel_xpu() and patchforge_xpu.int8_compute(device):
                        return True
                    return False
                return True
            """,
            version="v0.35.0",
        ),
        Example(
            "upstream asks",
            "def supports_int8_compute(device=None):\n    if is_intel_xpu():\n        return torch.xpu.has_int8(device)\n",
            outcome=Outcome.UPSTREAM,
            version="v0.35.0",
        ),
        Example(
            "a question without a device",
            "def supports_int8_compute():\n    if is_intel_xpu():\n        return False\n",
            outcome=Outcome.DRIFTED,
            version="v0.35.0",
        ),
    )

    def visit_Return(self, node: cst.Return, at: At) -> Findings:
        """The XPU arm's answer."""
        if at.function != "supports_int8_compute" or not at.xpu_arm() or node.value is None:
            return
        function = next(item for item in reversed(at.ancestors) if isinstance(item, cst.FunctionDef))
        if at.mentions(node.value, "xpu"):
            yield Already(node, "the device is asked")
        elif same(node.value, "False") and function.params.params:
            device = function.params.params[0].name.value
            test = f"if is_intel_xpu() and patchforge_xpu.int8_compute({device}):"
            yield rewrite(node, insert_before(at.statement, test, "    return True"))
        elif not same(node.value, "True"):
            yield Mismatch(node, "return False, of a function that is given a device")
