"""A model is loaded layer by layer without waiting."""

import libcst as cst

from patchforge.structure import dotted, same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Span, Transform, add_arm, rewrite
from patchforge.vocabulary import Outcome, Purpose


class LoadSynchronize(Transform):
    """On CUDA the loader waits after each layer, which keeps the peak down (#11144); XPU has no arm."""

    id = "load-synchronize"
    aliases = ("T20",)
    title = "the loader waits for the device"
    purpose = Purpose.MEMORY
    issues = ("ComfyUI#11144",)
    files = ("comfy/model_patcher.py",)
    needles = ("is_device_cuda",)
    hooks = ("is_xpu", "synchronize")
    absent = (Span(last="v0.3.77"),)
    retires = "the loader waits on every back end"
    examples = (
        Example(
            "an arm beside CUDA's",
            """\
            import torch

            class ModelPatcher:
                def load(self, device_to):
                    if comfy.model_management.is_device_cuda(device_to):
                        torch.cuda.synchronize()
                    done()
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            class ModelPatcher:
                def load(self, device_to):
                    if comfy.model_management.is_device_cuda(device_to):
                        torch.cuda.synchronize()
                    elif patchforge_xpu.is_xpu(device_to):
                        patchforge_xpu.synchronize(device_to)
                    done()
            """,
        ),
        Example(
            "upstream has the arm",
            "class ModelPatcher:\n    def load(self, d):\n        if is_device_cuda(d):\n            torch.cuda.synchronize()\n        elif is_device_xpu(d):\n            torch.xpu.synchronize()\n",
            outcome=Outcome.UPSTREAM,
        ),
        Example(
            "an arm that does more than wait",
            "class ModelPatcher:\n    def load(self, d):\n        if is_device_cuda(d):\n            torch.cuda.synchronize()\n            done()\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """``if is_device_cuda(device): torch.cuda.synchronize()``."""
        if not at.mentions(node.test, "is_device_cuda") or not at.mentions(node.body, "synchronize"):
            return
        device = _device(node.test, at)
        if isinstance(node.orelse, cst.If) and at.mentions(node.orelse, "is_device_xpu"):
            yield Already(node.test, "other back ends wait too")
        elif device and node.orelse is None and same(node.body, "torch.cuda.synchronize()"):
            yield rewrite(
                node.test, add_arm(node, f"patchforge_xpu.is_xpu({device})", f"patchforge_xpu.synchronize({device})")
            )
        else:
            yield Mismatch(node, "if is_device_cuda(device): torch.cuda.synchronize()")


def _device(test: cst.BaseExpression, at: At) -> str:
    """The name of the device that ``is_device_cuda(device)`` asks about; "" for another test."""
    if isinstance(test, cst.Call) and at.calls(test, "is_device_cuda") and len(test.args) == 1:
        return dotted(test.args[0].value)
    return ""
