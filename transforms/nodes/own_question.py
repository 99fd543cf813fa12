"""A function of the pack that says whether CUDA is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from patchforge.transforms.nodes.availability import by_what_it_decides

from patchforge.nodes.code import Code
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, left


class OwnQuestion(Pattern):
    """``def is_cuda_available(): return torch.cuda.is_available()`` is asked all over a pack.

    The function keeps its word, as some of its callers may choose CUDA's kernels by it. Each place that calls it is looked
    at like ``torch.cuda.is_available()`` itself, and takes XPUs in where what stands behind it suits them. Functions
    that return a device (``get_device()``) are converted themselves, by T1 and T2.
    """

    id = "pack-own-question"
    aliases = ("T21",)
    title = "the pack's own question for CUDA"
    after = ("pack-device-comparison",)
    examples = (
        PackExample(
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
                    if is_cuda_available() or _patchforge_xpu():
                        found += [f"{_patchforge_device()}:{i}" for i in range(_patchforge_gpu().device_count())]
                except Exception:
                    pass
                return found

            def attention(q):
                return flash_attn(q) if is_cuda_available() else plain(q)
            """,
        ),
        PackExample(
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
                gpu = has_mps() or _patchforge_xpu() or has_cuda()
                if gpu:
                    show(memory())
            """,
        ),
        PackExample("nobody asks", "import torch\n\ndef has_cuda():\n    return torch.cuda.is_available()\n"),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """The function itself."""
        inside = (PurePosixPath(code.path).stem, site.function) in pack.own_questions
        if site.kind is not Kind.AVAILABLE or not inside:
            return None
        return left([site], "an answer for the rest of the pack: each place that asks is looked at by itself")

    def verdict_on_test(
        self, site: Site, code: Code, pack: PackFacts, verdicts: Mapping[Site, Verdict]
    ) -> Verdict | None:
        """A call of such a function."""
        return by_what_it_decides(site, code, pack, verdicts) if site.kind is Kind.OWN_QUESTION else None
