"""The Triton kernels that run on XPU are switched off."""

import libcst as cst

from patchforge.structure import descend, same
from patchforge.transform import At, Example, Findings, Mismatch, Span, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose

_DISABLED = 'ck.registry.disable("triton")'


class KitchenTriton(Transform):
    """comfy-kitchen's Triton back end supports XPU (comfy-kitchen#24); ComfyUI disables it for everyone but ROCm.

    Opt-in: kernels take long to compile, and the XPU compiler still fails on some.
    """

    id = "kitchen-triton"
    aliases = ("T15",)
    title = "comfy-kitchen's Triton back end as an option"
    purpose = Purpose.MODEL
    issues = ("comfy-kitchen#24", "intel-xpu-backend-for-triton#7355")
    files = ("comfy/quant_ops.py",)
    needles = ("registry.disable",)
    hooks = ("enable_triton",)
    absent = (Span(last="v0.7.0"),)
    retires = "quant_ops enables Triton on an XPU by itself"
    opt_in = "triton"
    examples = (
        Example(
            "after upstream's decision",
            """\
            import torch

            try:
                import comfy_kitchen as ck
                if args.enable_triton_backend:
                    pass
                else:
                    ck.registry.disable("triton")
                for k in ck.list_backends():
                    print(k)
            except ImportError:
                pass
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            try:
                import comfy_kitchen as ck
                if args.enable_triton_backend:
                    pass
                else:
                    ck.registry.disable("triton")
                patchforge_xpu.enable_triton(ck.registry)
                for k in ck.list_backends():
                    print(k)
            except ImportError:
                pass
            """,
        ),
        Example("no kitchen", "import torch\n", outcome=Outcome.ABSENT, version="v0.7.0"),
    )

    def visit_Try(self, node: cst.Try, at: At) -> Findings:
        """The statement of the top-level ``try`` that disables Triton, bare or inside a choice; not a ``try`` within."""
        if len(at.ancestors) > 1 or not isinstance(node.body, cst.IndentedBlock):
            return
        for line in node.body.body:
            calls = [child for child in descend(line) if isinstance(child, cst.Call) and at.calls(child, "disable")]
            disabling = [call for call in calls if "triton" in at.strings(call)]
            if disabling and all(same(call, _DISABLED) for call in disabling):
                yield rewrite(line, insert_after(line, "patchforge_xpu.enable_triton(ck.registry)"))
            elif disabling:
                yield Mismatch(disabling[0], _DISABLED)
