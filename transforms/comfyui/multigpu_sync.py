"""Results of several XPUs are gathered while copies are in flight."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import At, Example, Findings, Mismatch, Span, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class MultigpuSync(Transform):
    """Upstream notes it itself: before extending multi-GPU sampling beyond NVIDIA, wait for the copy to the output device."""

    id = "multigpu-sync"
    aliases = ("T23",)
    title = "multi-GPU sampling waits for its copies"
    purpose = Purpose.CUDA_ONLY
    issues = ("ComfyUI#14191",)
    files = ("comfy/samplers.py",)
    needles = ("thread_result",)
    hooks = ("synchronize",)
    absent = (Span(last="v0.22.0"),)
    retires = "_handle_batch synchronises every back end"
    examples = (
        Example(
            "before the result is handed over",
            """\
            import torch

            def _calc_cond_batch_multigpu(output_device):
                def _handle_batch(device, results):
                    results.append(thread_result(output, mult, area, batch_chunks, cond_or_uncond))
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def _calc_cond_batch_multigpu(output_device):
                def _handle_batch(device, results):
                    patchforge_xpu.synchronize(device)
                    patchforge_xpu.synchronize(output_device)
                    results.append(thread_result(output, mult, area, batch_chunks, cond_or_uncond))
            """,
        ),
        Example(
            "a failed batch has nothing to wait for",
            "def _calc_cond_batch_multigpu():\n    results.append(thread_result(None, None, None, None, None, error=e))\n",
            outcome=Outcome.DRIFTED,
        ),
        Example(
            "a result of another name",
            "def _handle_batch(device, output_device, results):\n    results.append(thread_result(outcome, 1))\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Expr(self, node: cst.Expr, at: At) -> Findings:
        """``results.append(thread_result(output, …))``."""
        call = node.value
        if not isinstance(call, cst.Call) or not at.calls(call, "append") or len(call.args) != 1:
            return
        result = call.args[0].value
        if not isinstance(result, cst.Call) or not at.calls(result, "thread_result"):
            return
        output = result.args[0].value if result.args else None
        if same(call.func, "results.append") and same(output, "output"):
            lines = ("patchforge_xpu.synchronize(device)", "patchforge_xpu.synchronize(output_device)")
            yield rewrite(node, insert_before(at.statement, *lines))
        elif not same(output, "None"):
            yield Mismatch(node, "results.append(thread_result(output, …))")
