"""SAM3's tracker prefetches on CUDA only."""

import libcst as cst

from patchforge.structure import descend
from patchforge.transform import At, Example, Findings, Mismatch, Span, Transform, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose

_USES = frozenset({"Stream", "stream", "current_stream"})


class Sam3Prefetch(Transform):
    """The tracker computes the next frame's backbone on a second stream, which it makes for CUDA only."""

    id = "sam3-prefetch"
    aliases = ("T22",)
    title = "SAM3 prefetches on XPU too"
    purpose = Purpose.CUDA_ONLY
    files = ("comfy/ldm/sam3/tracker.py",)
    needles = ("torch.cuda",)
    hooks = ("prefetch_devices", "stream_api")
    absent = (Span(last="v0.19.3"),)
    retires = "the tracker makes its stream through model_management"
    opt_in = "async-offload"
    examples = (
        Example(
            "the gate and the module that makes streams",
            """\
            import torch

            def track(device):
                if comfy.model_management.is_device_cuda(device):
                    backbone_stream = torch.cuda.Stream(device=device)
                torch.cuda.current_stream(device).wait_stream(backbone_stream)
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def track(device):
                if patchforge_xpu.prefetch_devices(comfy.model_management.is_device_cuda(device), device):
                    backbone_stream = patchforge_xpu.stream_api(torch.cuda, device).Stream(device=device)
                patchforge_xpu.stream_api(torch.cuda, device).current_stream(device).wait_stream(backbone_stream)
            """,
        ),
        Example(
            "other uses of torch.cuda are not streams",
            "def f():\n    return torch.cuda.is_available()\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """The gate that makes the stream."""
        streams = any(
            isinstance(part, cst.Attribute) and at.name(part) == "torch.cuda.Stream" for part in descend(node.body)
        )
        if not streams or not at.mentions(node.test, "is_device_cuda"):
            return
        if isinstance(node.test, cst.Call) and at.calls(node.test, "is_device_cuda"):
            yield rewrite(node.test, wrap(node.test, "prefetch_devices", "device"))
        else:
            yield Mismatch(node.test, "is_device_cuda(device)")

    def visit_Attribute(self, node: cst.Attribute, at: At) -> Findings:
        """``torch.cuda.Stream`` and its two companions."""
        if node.attr.value in _USES and at.name(node.value) == "torch.cuda":
            yield rewrite(node, wrap(node.value, "stream_api", "device"))
