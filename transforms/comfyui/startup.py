"""A device must be chosen before torch is loaded."""

import libcst as cst

from patchforge.transform import At, Example, Findings, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose

from .visible_devices import is_device_choice


class Startup(Transform):
    """Level Zero reads its variables once, when torch loads. The hook sets them, and answers --help-gpu."""

    id = "startup"
    aliases = ("T29",)
    title = "device choice before torch loads"
    after = ("oneapi-selector",)
    purpose = Purpose.DEVICE
    files = ("main.py",)
    needles = ("CUDA_VISIBLE_DEVICES",)
    hooks = ("start",)
    retires = "never: it serves patchforge's own flags"
    declares = (
        "env:ZE_AFFINITY_MASK",
        "env:PYTORCH_ENABLE_XPU_FALLBACK",
        "cpu:env:ZE_AFFINITY_MASK",
        "cpu:env:PYTORCH_ENABLE_XPU_FALLBACK",
    )
    examples = (
        Example(
            "after upstream has set the others' variables",
            """\
            import os

            if __name__ == "__main__":
                if args.cuda_device is not None:
                    os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)
            """,
            """\
            import os
            from comfy import patchforge_xpu

            if __name__ == "__main__":
                if args.cuda_device is not None:
                    os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)
                patchforge_xpu.start(args)
            """,
        ),
        Example(
            "a variable that --cuda-device does not set",
            "import os\nif args.other:\n    os.environ['CUDA_VISIBLE_DEVICES'] = '0'\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """The ``if`` that hides the other vendors' devices."""
        if is_device_choice(node, at):
            yield rewrite(node.test, insert_after(node, "patchforge_xpu.start(args)"))
