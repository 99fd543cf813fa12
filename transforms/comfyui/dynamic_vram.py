"""DynamicVRAM never starts on an XPU."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import (
    Already,
    At,
    Example,
    Findings,
    Mismatch,
    Span,
    Transform,
    insert_after,
    insert_before,
    rewrite,
)
from patchforge.vocabulary import Outcome, Purpose

_FLAG = "args.enable_dynamic_vram"
_INDEX = 'aimdo_device = device.index if getattr(device, "type", None) == "cuda" else None'


class DynamicVram(Transform):
    """comfy-aimdo has NVIDIA and ROCm back ends; Intel ships one of its own, and the gate does not ask for it.

    Opt-in, and only with an XPU provider installed: the stock package must never run on an XPU.
    """

    id = "dynamic-vram"
    aliases = ("T16",)
    title = "DynamicVRAM with Intel's provider"
    purpose = Purpose.MEMORY
    issues = ("ComfyUI#14743", "llm-scaler#704")
    files = ("main.py", "comfy/model_patcher.py")
    needles = ("enable_dynamic_vram", "def dynamic_vram_supported", "aimdo_device")
    hooks = ("dynamic_vram_gate", "dynamic_vram", "dynamic_vram_index")
    absent = (Span(last="v0.17.0"),)
    retires = "the gate asks for an XPU"
    opt_in = "dynamic-vram"
    examples = (
        Example(
            "one more way through the gate",
            """\
            import os

            if args.enable_dynamic_vram or (enables_dynamic_vram() and is_nvidia()):
                start()
            """,
            """\
            import os
            from comfy import patchforge_xpu

            args.enable_dynamic_vram = patchforge_xpu.dynamic_vram_gate(args.enable_dynamic_vram)
            if args.enable_dynamic_vram or (enables_dynamic_vram() and is_nvidia()):
                start()
            """,
        ),
        Example(
            "the gate as a function",
            """\
            import os

            def dynamic_vram_supported():
                return is_nvidia()
            """,
            """\
            import os
            from comfy import patchforge_xpu

            def dynamic_vram_supported():
                if patchforge_xpu.dynamic_vram():
                    return True
                return is_nvidia()
            """,
        ),
        Example(
            "the device that is asked for its memory",
            """\
            import torch

            class ModelPatcherDynamic:
                def get_free_memory(self, device):
                    aimdo_device = device.index if getattr(device, "type", None) == "cuda" else None
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            class ModelPatcherDynamic:
                def get_free_memory(self, device):
                    aimdo_device = device.index if getattr(device, "type", None) == "cuda" else None
                    aimdo_device = patchforge_xpu.dynamic_vram_index(aimdo_device, device)
            """,
            path="comfy/model_patcher.py",
        ),
        Example(
            "upstream asks",
            "def dynamic_vram_supported():\n    return is_nvidia() or is_intel_xpu()\n",
            outcome=Outcome.UPSTREAM,
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """``args.enable_dynamic_vram or (…)``."""
        test = node.test
        if at.path != "main.py" or not at.mentions(test, "enables_dynamic_vram"):
            return
        if at.mentions(test, "is_intel_xpu"):
            yield Already(test, "the gate asks for an Intel XPU")
        elif isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.Or) and same(test.left, _FLAG):
            yield rewrite(test, insert_before(node, f"{_FLAG} = patchforge_xpu.dynamic_vram_gate({_FLAG})"))
        else:
            yield Mismatch(test, f"{_FLAG} or (enables_dynamic_vram() and …)")

    def visit_FunctionDef(self, node: cst.FunctionDef, at: At) -> Findings:
        """The gate of releases after v0.33.0."""
        if node.name.value != "dynamic_vram_supported":
            return
        if at.mentions(node, "is_intel_xpu"):
            yield Already(node, "the gate asks for an Intel XPU")
        else:
            first = at.first_statement(node)
            yield rewrite(first, insert_before(first, "if patchforge_xpu.dynamic_vram():", "    return True"))

    def visit_Assign(self, node: cst.Assign, at: At) -> Findings:
        """``aimdo_device = device.index if … == "cuda" else None``."""
        if not at.function.endswith(".get_free_memory") or not same(node.targets[0].target, "aimdo_device"):
            return
        if same(node, _INDEX):
            yield rewrite(
                node,
                insert_after(at.statement, "aimdo_device = patchforge_xpu.dynamic_vram_index(aimdo_device, device)"),
            )
        else:
            yield Mismatch(node, _INDEX)
