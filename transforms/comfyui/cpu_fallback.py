"""Without any accelerator ComfyUI dies at import."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import At, Example, Findings, Mismatch, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose

from .dual_build import END_OF_DETECTION, ends_detection


class CpuFallback(Transform):
    """On a torch built without CUDA and ROCm and with no usable XPU, start ends in an AssertionError from torch.cuda.

    A driver that is missing on an Intel host looks just like that. The hook says so and falls back to the CPU; any doubt
    (another back end, DirectML, a CUDA build) leaves upstream's behaviour.
    """

    id = "cpu-fallback"
    aliases = ("T30",)
    title = "starts on the CPU with a warning"
    after = ("dual-build",)
    purpose = Purpose.DEVICE
    issues = ("comfyui-nix#56",)
    files = ("comfy/model_management.py",)
    needles = ("CPUState.CPU",)
    hooks = ("no_accelerator",)
    retires = "upstream starts on the CPU when torch has no accelerator"
    declares = ("cpu:import",)
    examples = (
        Example(
            "after detection",
            """\
            import torch

            if args.cpu:
                cpu_state = CPUState.CPU
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            if args.cpu:
                cpu_state = CPUState.CPU
            if cpu_state == CPUState.GPU and not directml_enabled and patchforge_xpu.no_accelerator():
                cpu_state = CPUState.CPU
            """,
        ),
        Example(
            "a renamed flag needs a person",
            "if args.cpu_only:\n    cpu_state = CPUState.CPU\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """``if args.cpu``: everything has been detected by then."""
        if not ends_detection(node, at):
            return
        if same(node.test, END_OF_DETECTION):
            test = "if cpu_state == CPUState.GPU and not directml_enabled and patchforge_xpu.no_accelerator():"
            yield rewrite(node.test, insert_after(node, test, "    cpu_state = CPUState.CPU"))
        else:
            yield Mismatch(node.test, END_OF_DETECTION)
