"""Memory and dtypes are answered for the process, not for the device that is asked about."""

from collections.abc import Iterator

import libcst as cst

from patchforge.structure import same
from patchforge.transform import At, Example, Findings, Mismatch, Transform, rewrite, wrap
from patchforge.vocabulary import Outcome, Purpose

_ARGUMENT = {
    "get_total_memory": "dev",
    "get_free_memory": "dev",
    "should_use_fp16": "device",
    "should_use_bf16": "device",
    "supports_fp64": "device",
    "supports_int8_compute": "device",
}


class DeviceAsked(Transform):
    """``is_intel_xpu()`` is a fact of the process; in a build with two back ends a CUDA device gets XPU's answer.

    The hook looks at the device that is asked about, and answers with upstream's value where there is none.
    """

    id = "device-asked"
    aliases = ("T27",)
    title = "each device is asked through its own back end"
    purpose = Purpose.DEVICE
    files = ("comfy/model_management.py",)
    needles = tuple(f"def {name}" for name in _ARGUMENT)
    hooks = ("asked",)
    retires = "upstream tests the device, not the process"
    declares = ("dual:*",)
    examples = (
        Example(
            "the arm asks about the device",
            """\
            import torch

            def get_total_memory(dev=None):
                if directml_enabled:
                    total = 1
                elif is_intel_xpu():
                    total = 2
                return total
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def get_total_memory(dev=None):
                if directml_enabled:
                    total = 1
                elif patchforge_xpu.asked(is_intel_xpu(), dev):
                    total = 2
                return total
            """,
        ),
        Example(
            "a test of several vendors",
            """\
            import torch

            def supports_int8_compute(device=None):
                if mps_mode() or is_intel_xpu():
                    return False
                return True
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def supports_int8_compute(device=None):
                if mps_mode() or patchforge_xpu.asked(is_intel_xpu(), device):
                    return False
                return True
            """,
            version="v0.35.0",
        ),
        Example(
            "functions that take no device are not concerned",
            "def soft_empty_cache():\n    if is_intel_xpu():\n        pass\ndef get_free_memory(dev):\n    pass\n",
            outcome=Outcome.DRIFTED,
        ),
        Example(
            "an arm that asks for more",
            "def get_total_memory(dev=None):\n    if is_intel_xpu() and fast:\n        return 1\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """``if is_intel_xpu()``, alone or beside other vendors, in a function that is given a device."""
        argument = _ARGUMENT.get(at.function)
        if not argument or not at.mentions(node.test, "is_intel_xpu"):
            return
        question = next((test for test in _alternatives(node.test) if same(test, "is_intel_xpu()")), None)
        if question is not None:
            yield rewrite(node.test, wrap(question, "asked", argument))
        else:
            yield Mismatch(node.test, "is_intel_xpu()")


def _alternatives(test: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """The operands of ``a or b or c``; the test itself where it is none."""
    if isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.Or):
        yield from _alternatives(test.left)
        yield from _alternatives(test.right)
    else:
        yield test
