"""The first XPU is taken, whatever it is."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Transform, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose


class DiscreteFirst(Transform):
    """Beside an integrated GPU that drivers list first, a card stays idle: xpu:0 is what torch begins with.

    torch's current device belongs to a thread, and prompts run in another one than the start. The hook makes the device
    that was chosen (the first card, or --default-device) the current one of each thread that asks for it.
    """

    id = "discrete-first"
    title = "a card before an integrated GPU"
    purpose = Purpose.DEVICE
    issues = ("AI-Playground#79", "intel-extension-for-pytorch#536", "ipex-llm#9768")
    files = ("comfy/model_management.py",)
    needles = ("def get_torch_device",)
    hooks = ("current_device",)
    retires = "get_torch_device chooses among XPUs"
    declares = ("mixed:*", "call:torch.xpu.device_count")
    examples = (
        Example(
            "the current device is refined",
            """\
            import torch

            def get_torch_device():
                if is_intel_xpu():
                    return torch.device("xpu", torch.xpu.current_device())
                return torch.device(torch.cuda.current_device())
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def get_torch_device():
                if is_intel_xpu():
                    return torch.device("xpu", patchforge_xpu.current_device(torch.xpu.current_device()))
                return torch.device(torch.cuda.current_device())
            """,
        ),
        Example(
            "upstream chooses",
            'def get_torch_device():\n    if is_intel_xpu():\n        return torch.device("xpu", best_xpu())\n',
            outcome=Outcome.UPSTREAM,
        ),
        Example(
            "another way to name the device",
            'def get_torch_device():\n    if is_intel_xpu():\n        return torch.device("xpu")\n',
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Return(self, node: cst.Return, at: At) -> Findings:
        """The answer of the XPU arm."""
        if at.function != "get_torch_device" or not at.xpu_arm() or node.value is None:
            return
        index = node.value.args[1].value if isinstance(node.value, cst.Call) and len(node.value.args) == 2 else None
        if index is None:
            yield Mismatch(node, 'return torch.device("xpu", torch.xpu.current_device())')
        elif same(index, "torch.xpu.current_device()"):
            yield rewrite(node, wrap(index, "current_device"))
        else:
            yield Already(node, "an XPU is chosen")
