"""Offloaded weights are copied while the device waits."""

import libcst as cst

from patchforge.structure import descend
from patchforge.transform import Already, At, Example, Findings, Span, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose


class AsyncOffload(Transform):
    """Two streams overlap copies and computing on NVIDIA and AMD by default; XPU has the arms and never the default.

    Opt-in: upstream saw non-blocking copies slow down integrated GPUs (#9322), and nothing was measured on discrete ones.
    The XPU arms came with v0.3.46, so the option starts there and not with the default for NVIDIA, v0.3.76.
    """

    id = "async-offload"
    aliases = ("T06",)
    title = "async offload on discrete cards"
    purpose = Purpose.MEMORY
    issues = ("ComfyUI#9322",)
    files = ("comfy/model_management.py",)
    needles = ("NUM_STREAMS",)
    facts = ("def is_device_xpu",)
    hooks = ("offload_streams",)
    absent = (Span(last="v0.3.45"),)
    retires = "the block that sets NUM_STREAMS tests for an Intel XPU"
    declares = ("constant:NUM_STREAMS", "get_offload_stream*")
    opt_in = "async-offload"
    examples = (
        Example(
            "after upstream's default",
            """\
            import torch

            def is_device_xpu(device):
                return True

            if args.async_offload is not None:
                NUM_STREAMS = args.async_offload
            else:
                if is_nvidia():
                    NUM_STREAMS = 2
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def is_device_xpu(device):
                return True

            if args.async_offload is not None:
                NUM_STREAMS = args.async_offload
            else:
                if is_nvidia():
                    NUM_STREAMS = 2
            if is_intel_xpu():
                NUM_STREAMS = patchforge_xpu.offload_streams(NUM_STREAMS, args)
            """,
        ),
        Example(
            "upstream has the arm",
            "def is_device_xpu(d): pass\nif args.async_offload:\n    NUM_STREAMS = 1\nelif is_intel_xpu():\n    NUM_STREAMS = 2\n",
            outcome=Outcome.UPSTREAM,
        ),
        Example(
            "no streams on XPU yet",
            "if args.async_offload:\n    NUM_STREAMS = 2\n",
            outcome=Outcome.ABSENT,
            version="v0.3.31",
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """The statement that sets NUM_STREAMS from the flag."""
        if (
            at.function != "<module>"
            or not at.mentions(node.test, "async_offload")
            or not at.file_has("def is_device_xpu")
        ):
            return
        if not any(
            isinstance(child, cst.AssignTarget) and at.mentions(child, "NUM_STREAMS") for child in descend(node)
        ):
            return
        if at.mentions(node, "is_intel_xpu"):
            yield Already(node.test, "the default counts Intel XPUs")
        else:
            lines = ("if is_intel_xpu():", "    NUM_STREAMS = patchforge_xpu.offload_streams(NUM_STREAMS, args)")
            yield rewrite(node, insert_after(node, *lines))
