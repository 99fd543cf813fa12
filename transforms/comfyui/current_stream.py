"""The current stream is that of the wrong device."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Span, Transform, replace, rewrite
from patchforge.vocabulary import Outcome, Purpose

_OURS = "torch.xpu.current_stream(device)"


class CurrentStream(Transform):
    """``current_stream(device)`` ignores its argument; with two XPUs a copy waits for the wrong one's stream."""

    id = "current-stream"
    aliases = ("T18",)
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
        Example(
            "another device needs a person",
            "def current_stream(device):\n    if is_device_xpu(device):\n        return torch.xpu.current_stream(0)\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Call(self, node: cst.Call, at: At) -> Findings:
        """The call in the XPU arm."""
        if at.function != "current_stream" or at.name(node.func) != "torch.xpu.current_stream" or not at.xpu_arm():
            return
        if same(node, _OURS, "torch.xpu.current_stream(device=device)"):
            yield Already(node, "the device is passed")
        elif same(node, "torch.xpu.current_stream()"):
            yield rewrite(node, replace(node, _OURS))
        else:
            yield Mismatch(node, "torch.xpu.current_stream()")
