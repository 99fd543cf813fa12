"""Level Zero's out-of-memory errors are not recognised."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Span, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class OomLevelZero(Transform):
    """Level Zero reports memory exhaustion as a plain RuntimeError with a ``UR_RESULT_ERROR`` code in its text.

    ``is_oom`` answers False, and the tiled VAE, sliced attention and unload-and-retry paths are skipped. DEVICE_LOST is
    not counted as out of memory: nothing can be retried after it.
    """

    id = "oom-level-zero"
    aliases = ("T03",)
    title = "Level Zero out-of-memory is out of memory"
    purpose = Purpose.MEMORY
    issues = ("pytorch#177714", "pytorch#190972", "torch-xpu-ops#5432", "torch-xpu-ops#3155")
    files = ("comfy/model_management.py",)
    needles = ("def is_oom",)
    hooks = ("is_oom",)
    absent = (Span(last="v0.16.4"),)
    retires = "is_oom knows UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"
    declares = ("is_oom", "raise_non_oom")
    examples = (
        Example(
            "one more question before the last answer",
            """\
            import torch

            def is_oom(e):
                if isinstance(e, OOM_EXCEPTION):
                    return True
                return False
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def is_oom(e):
                if isinstance(e, OOM_EXCEPTION):
                    return True
                if is_intel_xpu() and patchforge_xpu.is_oom(e):
                    return True
                return False
            """,
        ),
        Example(
            "upstream knows the code",
            'def is_oom(e):\n    if "UR_RESULT_ERROR" in str(e):\n        return True\n    return False\n',
            outcome=Outcome.UPSTREAM,
        ),
        Example(
            "another ending needs a person",
            "def is_oom(e):\n    return isinstance(e, OOM_EXCEPTION)\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_FunctionDef(self, node: cst.FunctionDef, at: At) -> Findings:
        """``is_oom`` ends by answering False."""
        if node.name.value != "is_oom" or at.function != "<module>":
            return
        last = node.body.body[-1]
        if any("UR_RESULT" in text for text in at.strings(node)):
            yield Already(node, "is_oom knows UR_RESULT codes")
        elif same(last, "return False") and node.params.params:
            error = node.params.params[0].name.value
            yield rewrite(
                node, insert_before(last, f"if is_intel_xpu() and patchforge_xpu.is_oom({error}):", "    return True")
            )
        else:
            yield Mismatch(node, "is_oom(e) whose last statement is 'return False'")
