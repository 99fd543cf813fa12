"""Work for a second XPU runs with the first as the current device."""

import libcst as cst

from patchforge.transform import Already, At, Example, Findings, Span, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class DeviceContext(Transform):
    """``cuda_device_context`` makes a device the current one around eight call sites, for CUDA only."""

    id = "device-context"
    aliases = ("T17",)
    title = "the current device follows the model on XPU too"
    purpose = Purpose.CUDA_ONLY
    issues = ("ComfyUI#14191",)
    files = ("comfy/model_management.py",)
    needles = ("def cuda_device_context",)
    hooks = ("device_context",)
    absent = (Span(last="v0.22.0"),)
    retires = "cuda_device_context names xpu"
    declares = ("cuda_device_context*", "call:torch.xpu.set_device", "call:torch.xpu.current_device")
    examples = (
        Example(
            "an arm of its own at the top",
            '''\
            import torch

            @contextmanager
            def cuda_device_context(device):
                """Makes a device current."""
                prev = None
                yield
            ''',
            '''\
            import torch
            from comfy import patchforge_xpu

            @contextmanager
            def cuda_device_context(device):
                """Makes a device current."""
                if device.type == "xpu":
                    with patchforge_xpu.device_context(device):
                        yield
                    return
                prev = None
                yield
            ''',
        ),
        Example(
            "upstream has the arm",
            'def cuda_device_context(device):\n    if device.type == "xpu":\n        torch.xpu.set_device(device)\n    yield\n',
            outcome=Outcome.UPSTREAM,
        ),
    )

    def visit_FunctionDef(self, node: cst.FunctionDef, at: At) -> Findings:
        """The context manager, known by its name."""
        if node.name.value != "cuda_device_context" or at.function != "<module>":
            return
        if at.mentions(node, "xpu"):
            yield Already(node, "the function has an XPU arm")
        else:
            first = at.first_statement(node)
            lines = (
                'if device.type == "xpu":',
                "    with patchforge_xpu.device_context(device):",
                "        yield",
                "    return",
            )
            yield rewrite(node, insert_before(first, *lines))
