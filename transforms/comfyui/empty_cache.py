"""Emptying the cache can end the prompt worker."""

import libcst as cst

from patchforge.structure import descend, same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Transform, insert_before, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose


class EmptyCache(Transform):
    """``torch.xpu.synchronize`` raises after a device error, inside the prompt worker, and the queue hangs for good.

    Releases before v0.21.0 do not synchronise at all, so memory in flight is not returned. The hook synchronises and
    empties, and turns errors of either into a warning.
    """

    id = "empty-cache"
    aliases = ("T05",)
    title = "emptying the cache survives device errors"
    purpose = Purpose.MEMORY
    issues = ("pytorch#190972",)
    files = ("comfy/model_management.py",)
    needles = ("def soft_empty_cache",)
    hooks = ("survive",)
    retires = "the XPU arm of soft_empty_cache synchronises inside a try"
    declares = ("call:torch.xpu.synchronize",)
    examples = (
        Example(
            "upstream synchronises",
            """\
            import torch

            def soft_empty_cache(force=False):
                if is_intel_xpu():
                    torch.xpu.synchronize()
                    torch.xpu.empty_cache()
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def soft_empty_cache(force=False):
                if is_intel_xpu():
                    patchforge_xpu.survive(torch.xpu.synchronize)()
                    patchforge_xpu.survive(torch.xpu.empty_cache)()
            """,
        ),
        Example(
            "upstream does not synchronise",
            """\
            import torch

            def soft_empty_cache(force=False):
                if is_intel_xpu():
                    torch.xpu.empty_cache()
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def soft_empty_cache(force=False):
                if is_intel_xpu():
                    patchforge_xpu.survive(torch.xpu.synchronize)()
                    patchforge_xpu.survive(torch.xpu.empty_cache)()
            """,
            version="v0.3.47",
        ),
        Example(
            "upstream survives by itself",
            "def soft_empty_cache():\n    if is_intel_xpu():\n        try:\n            torch.xpu.synchronize()\n        except RuntimeError:\n            pass\n        torch.xpu.empty_cache()\n",
            outcome=Outcome.UPSTREAM,
        ),
        Example(
            "nothing is emptied",
            "def soft_empty_cache():\n    if is_intel_xpu():\n        clean()\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """The XPU arm of soft_empty_cache."""
        if at.function != "soft_empty_cache" or not at.mentions(node.test, "is_intel_xpu"):
            return
        calls = [child for child in descend(node.body) if isinstance(child, cst.Call)]
        waits = [call for call in calls if at.name(call.func) == "torch.xpu.synchronize"]
        empties = [call for call in calls if at.name(call.func) == "torch.xpu.empty_cache"]
        empty = next((line for line in node.body.body if same(line, "torch.xpu.empty_cache()")), None)
        if any(isinstance(line, cst.Try) for line in node.body.body):
            yield Already(node.test, "the arm synchronises inside a try")
        elif empty is None or len(empties) > 1 or not at.asks_for_xpu(node.test):
            yield Mismatch(node.test, "an XPU arm that calls torch.xpu.empty_cache() once")
        else:
            before = () if waits else (insert_before(empty, "patchforge_xpu.survive(torch.xpu.synchronize)()"),)
            yield rewrite(empty, *before, *(wrap(call.func, "survive") for call in (*waits, *empties)))
