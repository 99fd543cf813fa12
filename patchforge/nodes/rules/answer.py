# ruff: noqa: E501 - examples are shown as they are, and every rule is asked alike
"""T21: a function of the pack that says whether CUDA is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from patchforge.nodes.code import Code
from patchforge.nodes.rules.availability import gated
from patchforge.nodes.words import Example, Kind, Rule, Site, Surroundings, Verdict, left


class Answer(Rule):
    """``def is_cuda_available(): return torch.cuda.is_available()`` is asked all over a pack.

    The function keeps its word, as some of its callers may choose CUDA's kernels by it. Each place that calls it is looked
    at like ``torch.cuda.is_available()`` itself, and takes XPUs in where what stands behind it suits them. Functions
    that return a device (``get_device()``) are converted themselves, by T1 and T2.
    """

    id = "T21"
    title = "the pack's own question for CUDA"
    order = 26
    examples = (
        Example(
            "a list of devices",
            """\
            import torch

            def is_cuda_available():
                return torch.cuda.is_available()

            def devices():
                found = []
                try:
                    if is_cuda_available():
                        found += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
                except Exception:
                    pass
                return found

            def attention(q):
                return flash_attn(q) if is_cuda_available() else plain(q)
            """,
            """\
            import torch

            def is_cuda_available():
                return torch.cuda.is_available()

            def devices():
                found = []
                try:
                    if (is_cuda_available() or _patchforge_xpu()):
                        found += [f"{_patchforge_device()}:{i}" for i in range(_patchforge_gpu().device_count())]
                except Exception:
                    pass
                return found

            def attention(q):
                return flash_attn(q) if is_cuda_available() else plain(q)
            """,
        ),
        Example(
            "MPS counts too",
            """\
            import torch

            def has_cuda():
                return torch.cuda.is_available()

            def report():
                gpu = has_mps() or has_cuda()
                if gpu:
                    show(memory())
            """,
            """\
            import torch

            def has_cuda():
                return torch.cuda.is_available()

            def report():
                gpu = has_mps() or (_patchforge_xpu() or has_cuda())
                if gpu:
                    show(memory())
            """,
        ),
        Example("nobody asks", "import torch\n\ndef has_cuda():\n    return torch.cuda.is_available()\n"),
    )

    def look(self, site: Site, code: Code, around: Surroundings) -> Verdict | None:
        """The function itself."""
        inside = (PurePosixPath(code.path).stem, site.function) in around.answers
        if site.kind is not Kind.AVAILABLE or not inside:
            return None
        return left("T21", [site], "an answer for the rest of the pack: each place that asks is looked at by itself")

    def gate(self, site: Site, code: Code, around: Surroundings, verdicts: Mapping[Site, Verdict]) -> Verdict | None:
        """A call of such a function."""
        return gated("T21", site, code, around, verdicts) if site.kind is Kind.ANSWER else None
