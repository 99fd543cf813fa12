"""Calls of torch.cuda behind a test for CUDA."""

from __future__ import annotations

from patchforge.nodes.code import Code
from patchforge.nodes.shapes import arm_behind
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict


class GuardedCalls(Pattern):
    """``if torch.cuda.is_available(): torch.cuda.empty_cache()``: the memory of an XPU is never given back.

    ``ipc_collect`` and the like have no twin on an XPU and are left out of its arm.
    """

    id = "pack-guarded-calls"
    aliases = ("T3",)
    title = "guarded calls of torch.cuda"
    source = "https://docs.pytorch.org/docs/stable/xpu.html"
    after = ("pack-device-ladder",)
    examples = (
        PackExample(
            "without what an XPU lacks",
            """\
            import torch
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.ipc_collect()
            """,
            """\
            import torch
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.ipc_collect()
            elif hasattr(torch, "xpu") and torch.xpu.is_available():
                torch.xpu.empty_cache()
            """,
        ),
        PackExample(
            "an XPU's arm is there",
            "import torch\nif torch.cuda.is_available():\n    torch.cuda.empty_cache()\nelif torch.xpu.is_available():\n    torch.xpu.empty_cache()\n",
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """A call of ``is_available`` in the test of an ``if``."""
        return arm_behind(site, code, pack.sites, device=False) if site.kind is Kind.AVAILABLE else None
