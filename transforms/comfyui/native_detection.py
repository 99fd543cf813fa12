"""Without IPEX an XPU is not seen at all."""

import libcst as cst

from patchforge.structure import descend
from patchforge.transform import Already, At, Example, Findings, Span, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose

_IPEX = "intel_extension_for_pytorch"


class NativeDetection(Transform):
    """Releases before v0.1.2 look for an XPU only when IPEX imports; native torch.xpu ends in an error at start."""

    id = "native-detection"
    aliases = ("T10",)
    title = "native torch.xpu is detected without IPEX"
    purpose = Purpose.DEVICE
    issues = ("ComfyUI#4562",)
    files = ("comfy/model_management.py",)
    needles = ("xpu_available",)
    hooks = ("detect",)
    upstream = (Span("v0.1.2"),)
    retires = "xpu_available is set outside a try that needs IPEX"
    declares = ("import", "constant:xpu_available", "call:torch.xpu.is_available")
    examples = (
        Example(
            "asked once more after IPEX",
            """\
            import torch

            try:
                import intel_extension_for_pytorch as ipex
                if torch.xpu.is_available():
                    xpu_available = True
            except:
                pass
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            try:
                import intel_extension_for_pytorch as ipex
                if torch.xpu.is_available():
                    xpu_available = True
            except:
                pass
            xpu_available = patchforge_xpu.detect(xpu_available)
            """,
            version="v0.0.1",
        ),
        Example(
            "upstream asks torch",
            "try:\n    xpu_available = torch.xpu.is_available()\nexcept:\n    xpu_available = False\n",
            outcome=Outcome.UPSTREAM,
        ),
    )

    def visit_Try(self, node: cst.Try, at: At) -> Findings:
        """A ``try`` at the top level that sets xpu_available; where IPEX sets it once more, another ``try`` decides."""
        sets = [
            child
            for child in descend(node.body)
            if isinstance(child, cst.Assign) and at.mentions(child.targets[0], "xpu_available")
        ]
        if at.function != "<module>" or not sets:
            return
        guarded = any(isinstance(line, cst.If) and at.mentions(line, "xpu_available") for line in node.body.body)
        if at.mentions(node.body, _IPEX) and guarded:
            yield rewrite(node.body, insert_after(node, "xpu_available = patchforge_xpu.detect(xpu_available)"))
        elif not at.mentions(node.body, _IPEX):
            yield Already(node.body, "torch.xpu is asked without IPEX")
