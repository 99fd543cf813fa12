"""Asking for fp8 compute raises on an XPU."""

import libcst as cst

from patchforge.transform import Already, At, Example, Findings, Span, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class Fp8Compute(Transform):
    """v0.1.0 to v0.2.2 ask CUDA for the properties of any device, so ``--fast`` ends in an error on an XPU."""

    id = "fp8-compute"
    aliases = ("T32",)
    title = "fp8 compute is not asked of CUDA"
    purpose = Purpose.MODEL
    files = ("comfy/model_management.py",)
    needles = ("def supports_fp8_compute",)
    absent = (Span(last="v0.0.8"),)
    upstream = (Span("v0.2.3"),)
    retires = "supports_fp8_compute answers False for other vendors"
    declares = ("supports_fp8_compute", "call:torch.cuda.get_device_properties")
    examples = (
        Example(
            "the answer upstream gives later",
            """\
            def supports_fp8_compute(device=None):
                props = torch.cuda.get_device_properties(device)
                return props.major >= 9
            """,
            """\
            def supports_fp8_compute(device=None):
                if is_intel_xpu():
                    return False
                props = torch.cuda.get_device_properties(device)
                return props.major >= 9
            """,
            version="v0.1.2",
        ),
        Example(
            "upstream asks for the vendor",
            "def supports_fp8_compute(device=None):\n    if not is_nvidia():\n        return False\n    return True\n",
            outcome=Outcome.UPSTREAM,
        ),
    )

    def visit_FunctionDef(self, node: cst.FunctionDef, at: At) -> Findings:
        """The function, known by its name."""
        if node.name.value != "supports_fp8_compute" or at.function != "<module>":
            return
        if at.mentions(node, "is_nvidia") or at.mentions(node, "is_intel_xpu"):
            yield Already(node, "other vendors are answered False")
        else:
            yield rewrite(node, insert_before(at.first_statement(node), "if is_intel_xpu():", "    return False"))
