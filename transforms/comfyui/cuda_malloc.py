"""CUDA's allocator is configured on XPU wheels."""

import libcst as cst

from patchforge.structure import descend, same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Span, Transform, add_operand, rewrite
from patchforge.vocabulary import Outcome, Purpose


class CudaMalloc(Transform):
    """Before v0.3.46 any torch from 2.0 on gets ``backend:cudaMallocAsync``, those built for XPU included.

    Upstream's later test (``+cu``) would change ROCm and CPU builds of old releases too; the hook refuses ``+xpu`` alone.
    """

    id = "cuda-malloc"
    aliases = ("T25",)
    title = "no CUDA allocator on XPU wheels"
    purpose = Purpose.DEVICE
    files = ("cuda_malloc.py",)
    needles = ("version[0]",)
    hooks = ("cuda_malloc_allowed",)
    upstream = (Span("v0.3.46"),)
    retires = "cuda_malloc.py tests for +cu"
    declares = (
        "env:PYTORCH_CUDA_ALLOC_CONF",
        "argument:cuda_malloc",
        "call:subprocess.check_output",
        "cpu:env:PYTORCH_CUDA_ALLOC_CONF",
        "cpu:argument:cuda_malloc",
        "cpu:call:subprocess.check_output",
    )
    examples = (
        Example(
            "the version is asked for more",
            """\
            import os

            if int(version[0]) >= 2:
                args.cuda_malloc = cuda_malloc_supported()
            """,
            """\
            import os
            from comfy import patchforge_xpu

            if int(version[0]) >= 2 and patchforge_xpu.cuda_malloc_allowed(version):
                args.cuda_malloc = cuda_malloc_supported()
            """,
            version="v0.3.45",
        ),
        Example(
            "upstream asks",
            'if int(version[0]) >= 2 and "+cu" in version:\n    args.cuda_malloc = True\n',
            outcome=Outcome.UPSTREAM,
        ),
        Example(
            "another test needs a person",
            "if int(version[0]) > 1:\n    args.cuda_malloc = True\n",
            outcome=Outcome.DRIFTED,
            version="v0.3.45",
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """The test of torch's version."""
        if not any(same(child, "version[0]") for child in descend(node.test)):
            return
        if "+cu" in at.strings(node.test):
            yield Already(node.test, "the test asks for +cu")
        elif same(node.test, "int(version[0]) >= 2"):
            yield rewrite(node.test, add_operand(node.test, "and", "cuda_malloc_allowed(version)"))
        else:
            yield Mismatch(node.test, "int(version[0]) >= 2")
