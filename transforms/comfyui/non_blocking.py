"""Non-blocking copies, on where they hurt and off where they help."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import At, Example, Findings, Mismatch, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose

_INSERTED = {
    "False": ("if patchforge_xpu.non_blocking(False, device):", "    return True"),
    "True": ("if not patchforge_xpu.non_blocking(True, device):", "    return False"),
}


class NonBlocking(Transform):
    """v0.3.46 to v0.3.50 copy without blocking on every XPU, which slows integrated GPUs (#9322); the others on none.

    The hook answers no, and yes only for a discrete card when the option is on. The repair is for those five releases;
    the option is for all, so that a level means the same everywhere.
    """

    id = "non-blocking"
    aliases = ("T07",)
    title = "non-blocking copies on discrete cards"
    purpose = Purpose.MEMORY
    issues = ("ComfyUI#9322",)
    files = ("comfy/model_management.py",)
    needles = ("def device_supports_non_blocking",)
    hooks = ("non_blocking",)
    retires = "upstream tells integrated from discrete XPUs here"
    declares = ("device_supports_non_blocking*", "device_should_use_non_blocking*")
    opt_in = "non-blocking"
    examples = (
        Example(
            "off by upstream",
            """\
            import torch

            def device_supports_non_blocking(device):
                if is_intel_xpu():
                    return False
                return True
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def device_supports_non_blocking(device):
                if is_intel_xpu():
                    if patchforge_xpu.non_blocking(False, device):
                        return True
                    return False
                return True
            """,
        ),
        Example(
            "on by upstream",
            """\
            import torch

            def device_supports_non_blocking(device):
                if is_intel_xpu():
                    return True
                return True
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def device_supports_non_blocking(device):
                if is_intel_xpu():
                    if not patchforge_xpu.non_blocking(True, device):
                        return False
                    return True
                return True
            """,
            version="v0.3.47",
        ),
        Example(
            "a computed answer needs a person",
            "def device_supports_non_blocking(device):\n    if is_intel_xpu():\n        return ask(device)\n    return True\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Return(self, node: cst.Return, at: At) -> Findings:
        """The XPU arm's constant."""
        if at.function != "device_supports_non_blocking" or not at.xpu_arm():
            return
        lines = next((lines for answer, lines in _INSERTED.items() if same(node.value, answer)), None)
        if lines:
            yield rewrite(node, insert_before(at.statement, *lines))
        else:
            yield Mismatch(node, "return True or return False")
