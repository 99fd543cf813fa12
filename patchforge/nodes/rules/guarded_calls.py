# ruff: noqa: E501 - examples are shown as they are, and every rule is asked alike
"""T3: calls of torch.cuda behind a test for CUDA."""

from __future__ import annotations

from patchforge.nodes.code import Code
from patchforge.nodes.rules.device_ladder import arm_behind
from patchforge.nodes.words import Example, Kind, Rule, Site, Surroundings, Verdict


class GuardedCalls(Rule):
    """``if torch.cuda.is_available(): torch.cuda.empty_cache()``: the memory of an XPU is never given back.

    ``ipc_collect`` and the like have no twin on an XPU and are left out of its arm.
    """

    id = "T3"
    title = "guarded calls of torch.cuda"
    order = 12
    examples = (
        Example(
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
        Example(
            "an XPU's arm is there",
            "import torch\nif torch.cuda.is_available():\n    torch.cuda.empty_cache()\nelif torch.xpu.is_available():\n    torch.xpu.empty_cache()\n",
        ),
    )

    def look(self, site: Site, code: Code, around: Surroundings) -> Verdict | None:
        """A call of ``is_available`` in the test of an ``if``."""
        return arm_behind("T3", site, code, around.sites, device=False) if site.kind is Kind.AVAILABLE else None
