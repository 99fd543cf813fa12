"""Ipex.optimize fails where it need not."""

import libcst as cst

from patchforge.structure import descend, dotted, same
from patchforge.transform import At, Example, Findings, Mismatch, Span, Transform, add_operand, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose


class IpexRepair(Transform):
    """The hook of v0.0.1 to v0.20.1 raises NameError without IPEX (to v0.2.2) and stops a load when optimize fails.

    Quantised and partially loaded models are left alone, dropout is not replaced (it breaks PixArt), and a failure is a
    warning. IPEX 2.8 is the last release.
    """

    id = "ipex-repair"
    aliases = ("T11",)
    title = "ipex.optimize, repaired"
    purpose = Purpose.MODEL
    issues = ("ComfyUI#4978", "ComfyUI#7063", "intel-extension-for-pytorch#663", "intel-extension-for-pytorch#783")
    files = ("comfy/model_management.py",)
    needles = ("ipex.optimize",)
    hooks = ("ipex_usable", "ipex_optimize")
    absent = (Span("v0.21.0"),)
    retires = "the release has no ipex.optimize (since v0.21.0)"
    declares = ("call:ipex.optimize", "load_model*_gpu")
    examples = (
        Example(
            "guarded and made to survive",
            """\
            import torch

            class LoadedModel:
                def model_load(self):
                    if is_intel_xpu() and not args.disable_ipex_optimize:
                        self.real_model = ipex.optimize(self.real_model.eval(), graph_mode=True)
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            class LoadedModel:
                def model_load(self):
                    if is_intel_xpu() and not args.disable_ipex_optimize and patchforge_xpu.ipex_usable(globals(), self.real_model):
                        self.real_model = patchforge_xpu.ipex_optimize(ipex.optimize)(self.real_model.eval(), graph_mode=True)
            """,
            version="v0.0.1",
        ),
        Example(
            "the hook is gone",
            "class LoadedModel:\n    def model_load(self):\n        return self.model\n",
            outcome=Outcome.ABSENT,
        ),
        Example(
            "a hook without an argument",
            "class LoadedModel:\n    def model_load(self):\n        if is_intel_xpu():\n            ipex.optimize()\n",
            outcome=Outcome.DRIFTED,
            version="v0.0.1",
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """The hook, wherever it stands in model_load."""
        if at.function != "LoadedModel.model_load" or at.xpu_arm() or not at.asks_for_xpu(node.test):
            return
        calls = [child for child in descend(node.body) if isinstance(child, cst.Call) and _optimizes(child)]
        for call in calls:
            if model := _model(call):
                usable = add_operand(node.test, "and", f"ipex_usable(globals(), {model})")
                yield rewrite(call, usable, wrap(call.func, "ipex_optimize"))
            else:
                yield Mismatch(call, "ipex.optimize(model.eval(), …)")

    def visit_Call(self, node: cst.Call, at: At) -> Findings:
        """The hook where no test for an XPU stands around it."""
        if at.function == "LoadedModel.model_load" and _optimizes(node) and not at.xpu_arm():
            yield Mismatch(node, "if is_intel_xpu() …: ipex.optimize(model.eval(), …)")


def _optimizes(call: cst.Call) -> bool:
    return same(call.func, "ipex.optimize")


def _model(call: cst.Call) -> str:
    """The name of what is optimised, ``M`` in ``ipex.optimize(M.eval(), …)``; "" where it has none."""
    value = call.args[0].value if call.args else None
    if isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute) and not value.args:
        value = value.func.value if value.func.attr.value == "eval" else None
    return dotted(value) if value else ""
