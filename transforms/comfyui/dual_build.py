"""T19: a torch with CUDA and XPU answers for one device with the other."""

import libcst as cst

from patchforge.transform import At, Example, Findings, Transform, code, insert_after, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class DualBuild(Transform):
    """With both back ends built in, ``get_torch_device`` says xpu, the device list says cuda, and memory is asked of both.

    CUDA comes first: the XPU counts as unavailable while CUDA is usable, unless the user forces it, and then neither
    ``is_nvidia`` nor ``is_amd`` is true. On the public wheels, which have one back end, nothing changes. The device list
    came with v0.23.0; detection and memory have had the fault from the start, so the edit goes to every release.
    """

    id = "T19"
    title = "one active back end in a build with two"
    purpose = Purpose.DEVICE
    files = ("comfy/model_management.py",)
    needles = ("args.cpu", "def is_nvidia", "def is_amd")
    hooks = ("choose_device",)
    retires = "upstream asks each device for its own back end"
    declares = ("dual:*",)
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
            xpu_available = patchforge_xpu.choose_device(xpu_available)
            """,
        ),
        Example(
            "another vendor's test",
            """\
            import torch

            def is_nvidia():
                global cpu_state
                if cpu_state == CPUState.GPU:
                    if torch.version.cuda:
                        return True
                return False
            """,
            """\
            import torch

            def is_nvidia():
                global cpu_state
                if is_intel_xpu():
                    return False
                if cpu_state == CPUState.GPU:
                    if torch.version.cuda:
                        return True
                return False
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
        if is_end_of_detection(node, at):
            yield rewrite(node.test, insert_after(node, "xpu_available = patchforge_xpu.choose_device(xpu_available)"))

    def visit_FunctionDef(self, node: cst.FunctionDef, at: At) -> Findings:
        """``is_nvidia`` and ``is_amd`` ask what torch was built with."""
        if (
            node.name.value in ("is_nvidia", "is_amd")
            and at.function == "<module>"
            and not at.mentions(node, "is_intel_xpu")
        ):
            first = next((line for line in node.body.body if isinstance(line, cst.If)), None)
            if first is not None:
                yield rewrite(first.test, insert_before(first, "if is_intel_xpu():", "    return False"))


def is_end_of_detection(node: cst.If, at: At) -> bool:
    """Whether ``node`` is the top-level ``if args.cpu: cpu_state = …`` that ends the detection of devices."""
    return at.function == "<module>" and code(node.test) == "args.cpu" and at.mentions(node.body, "cpu_state")
