"""T18: the current stream is that of the wrong device."""

import libcst as cst

from patchforge.transform import Already, At, Example, Findings, Span, Transform, code, replace, rewrite
from patchforge.vocabulary import Outcome, Purpose


class CurrentStream(Transform):
    """``current_stream(device)`` ignores its argument; with two XPUs a copy waits for the wrong one's stream."""

    id = "T18"
    title = "the current stream of the device that is asked about"
    purpose = Purpose.CUDA_ONLY
    issues = ("ComfyUI#14191",)
    files = ("comfy/model_management.py",)
    needles = ("def current_stream",)
    absent = (Span(last="v0.3.67"),)
    retires = "torch.xpu.current_stream is called with the device"
    declares = ("current_stream*", "call:torch.xpu.current_stream", "get_offload_stream*", "sync_stream*")
    examples = (
        Example(
            "the device is passed on",
            """\
            import torch

            def current_stream(device):
                if is_device_xpu(device):
                    return torch.xpu.current_stream()
            """,
            """\
            import torch

            def current_stream(device):
                if is_device_xpu(device):
                    return torch.xpu.current_stream(device)
            """,
        ),
        Example(
            "upstream passes it",
            "def current_stream(device):\n    if is_device_xpu(device):\n        return torch.xpu.current_stream(device)\n",
            outcome=Outcome.UPSTREAM,
        ),
    )

    def visit_Call(self, node: cst.Call, at: At) -> Findings:
        """The call in the XPU arm."""
        if at.function == "current_stream" and code(node.func) == "torch.xpu.current_stream" and at.xpu_arm():
            if node.args:
                yield Already(node, "the device is passed")
            else:
                yield rewrite(node, replace(node, "torch.xpu.current_stream(device)"))
