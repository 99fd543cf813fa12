"""--cuda-device does nothing on an XPU."""

import libcst as cst

from patchforge.transform import Already, At, Example, Findings, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose


class VisibleDevices(Transform):
    """``--cuda-device N`` hides the other NVIDIA and AMD cards and has no effect on Intel's.

    The hook sets ZE_AFFINITY_MASK as well, unless the user has chosen by --intel-device, --oneapi-device-selector or the
    variable itself. CUDA and ROCm ignore the variable.
    """

    id = "visible-devices"
    aliases = ("T08",)
    title = "--cuda-device chooses among Intel GPUs too"
    purpose = Purpose.DEVICE
    issues = ("Comfy-Desktop#342",)
    files = ("main.py",)
    needles = ("CUDA_VISIBLE_DEVICES",)
    facts = ("ZE_AFFINITY_MASK",)
    hooks = ("select_devices",)
    retires = "main.py sets ZE_AFFINITY_MASK"
    declares = ("env:ZE_AFFINITY_MASK",)
    examples = (
        Example(
            "after upstream has set the others' variables",
            """\
            import os

            if __name__ == "__main__":
                if args.cuda_device is not None:
                    os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)
                import cuda_malloc
            """,
            """\
            import os
            from comfy import patchforge_xpu

            if __name__ == "__main__":
                if args.cuda_device is not None:
                    os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)
                patchforge_xpu.select_devices(args)
                import cuda_malloc
            """,
        ),
        Example(
            "a chain of tests stays one chain",
            """\
            import os

            if __name__ == "__main__":
                if args.default_device is not None and args.cuda_device != "all":
                    os.environ['CUDA_VISIBLE_DEVICES'] = "1,0"
                if args.cuda_device == "all":
                    pass
                elif args.cuda_device is not None:
                    os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)
            """,
            """\
            import os
            from comfy import patchforge_xpu

            if __name__ == "__main__":
                if args.default_device is not None and args.cuda_device != "all":
                    os.environ['CUDA_VISIBLE_DEVICES'] = "1,0"
                if args.cuda_device == "all":
                    pass
                elif args.cuda_device is not None:
                    os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)
                patchforge_xpu.select_devices(args)
            """,
        ),
        Example(
            "upstream sets it",
            "if args.cuda_device is not None:\n    os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)\n    os.environ['ZE_AFFINITY_MASK'] = '0'\n",
            outcome=Outcome.UPSTREAM,
        ),
    )

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """The ``if`` that hides the other vendors' devices."""
        if not is_device_choice(node, at):
            return
        if at.file_has("ZE_AFFINITY_MASK"):
            yield Already(node.test, "main.py sets ZE_AFFINITY_MASK")
        else:
            yield rewrite(node.test, insert_after(node, "patchforge_xpu.select_devices(args)"))


def is_device_choice(node: cst.If, at: At) -> bool:
    """Whether ``node``, with all its arms, sets CUDA_VISIBLE_DEVICES from --cuda-device. Its arms alone are not it."""
    parent = at.ancestors[-1]
    if isinstance(parent, cst.If) and parent.orelse is node:
        return False
    arm: cst.If | cst.Else | None = node
    while isinstance(arm, cst.If):
        if any(_hides_devices(line, at) for line in arm.body.body):
            return True
        arm = arm.orelse
    return False


def _hides_devices(line: cst.CSTNode, at: At) -> bool:
    simple = isinstance(line, (cst.SimpleStatementLine, cst.Assign))
    return simple and at.mentions(line, "cuda_device") and "CUDA_VISIBLE_DEVICES" in at.strings(line)
