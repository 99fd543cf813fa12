"""Dropping the cast buffers can end the prompt worker."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import At, Example, Findings, Mismatch, Span, Transform, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose

_WAITS = ("synchronize()", "offload_stream.synchronize()")


class CastBuffers(Transform):
    """Upstream waits for the streams and the device before it drops the cast buffers, also after a prompt has failed.

    After a device error the wait raises once more, outside of what catches a prompt's errors: the worker ends, and the
    queue with it. Where the buffers are dropped in the middle of a prompt, the next operation reports the error.
    """

    id = "cast-buffers"
    aliases = ("T33",)
    title = "dropping the cast buffers survives device errors"
    purpose = Purpose.MEMORY
    issues = ("pytorch#190972",)
    files = ("comfy/model_management.py",)
    needles = ("def reset_cast_buffers",)
    hooks = ("survive",)
    absent = (Span(last="v0.11.1"),)
    retires = "reset_cast_buffers waits inside a try"
    examples = (
        Example(
            "both waits",
            """\
            import torch

            def reset_cast_buffers():
                for offload_stream in STREAM_CAST_BUFFERS:
                    offload_stream.synchronize()
                synchronize()
                STREAM_CAST_BUFFERS.clear()
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def reset_cast_buffers():
                for offload_stream in STREAM_CAST_BUFFERS:
                    patchforge_xpu.survive(offload_stream.synchronize)()
                patchforge_xpu.survive(synchronize)()
                STREAM_CAST_BUFFERS.clear()
            """,
        ),
        Example(
            "upstream waits in another way",
            "def reset_cast_buffers():\n    torch.accelerator.wait()\n",
            outcome=Outcome.DRIFTED,
        ),
        Example(
            "a wait for something else",
            "def reset_cast_buffers():\n    torch.cuda.synchronize(device)\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Call(self, node: cst.Call, at: At) -> Findings:
        """A wait in reset_cast_buffers."""
        if at.function != "reset_cast_buffers" or not at.calls(node, "synchronize"):
            return
        if same(node, *_WAITS):
            yield rewrite(node, wrap(node.func, "survive"))
        else:
            yield Mismatch(node, " or ".join(_WAITS))
