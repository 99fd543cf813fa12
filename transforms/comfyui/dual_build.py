"""A torch with CUDA and XPU answers for one device with the other."""

import libcst as cst

from patchforge.structure import same, statements
from patchforge.transform import (
    Already,
    At,
    Example,
    Findings,
    Mismatch,
    Transform,
    insert_after,
    insert_before,
    rewrite,
)
from patchforge.vocabulary import Outcome, Purpose

END_OF_DETECTION = "args.cpu"  #: the test after which everything has been detected


class DualBuild(Transform):
    """With both back ends built in, ``get_torch_device`` says xpu, the device list says cuda, and memory is asked of both.

    CUDA comes first: the XPU counts as unavailable while CUDA is usable, unless the user forces it, and then neither
    ``is_nvidia`` nor ``is_amd`` is true. On the public wheels, which have one back end, nothing changes. The device list
    came with v0.23.0; detection and memory have had the fault from the start, so the edit goes to every release.
    """

    id = "dual-build"
    aliases = ("T19",)
    title = "one active back end in a build with two"
    after = ("native-detection",)
    purpose = Purpose.DEVICE
    files = ("comfy/model_management.py",)
    needles = ("CPUState.CPU", "def is_nvidia", "def is_amd")
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
        Example(
            "a vendor's test of one line",
            "def is_nvidia():\n    return cpu_state == CPUState.GPU and torch.version.cuda is not None\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """``if args.cpu``: everything has been detected by then."""
        if not ends_detection(node, at):
            return
        if same(node.test, END_OF_DETECTION):
            yield rewrite(node.test, insert_after(node, "xpu_available = patchforge_xpu.choose_device(xpu_available)"))
        else:
            yield Mismatch(node.test, END_OF_DETECTION)

    def visit_FunctionDef(self, node: cst.FunctionDef, at: At) -> Findings:
        """``is_nvidia`` and ``is_amd`` ask what torch was built with."""
        if node.name.value not in ("is_nvidia", "is_amd") or at.function != "<module>":
            return
        first = next((line for line in node.body.body if isinstance(line, cst.If)), None)
        if at.mentions(node, "is_intel_xpu"):
            yield Already(node, "an XPU in use is asked for")
        elif first is None:
            yield Mismatch(node, "if cpu_state == CPUState.GPU: …")
        else:
            yield rewrite(first.test, insert_before(first, "if is_intel_xpu():", "    return False"))


def ends_detection(node: cst.If, at: At) -> bool:
    """Whether ``node`` is the top-level ``if …: cpu_state = CPUState.CPU`` that ends the detection of devices."""
    chosen = any(same(line, "cpu_state = CPUState.CPU") for line in statements(node.body))
    return at.function == "<module>" and chosen
