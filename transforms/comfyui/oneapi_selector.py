"""Old releases cannot pass a oneAPI device selector."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Span, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose

from .visible_devices import is_device_choice

_FLAG = "--oneapi-device-selector"


class OneapiSelector(Transform):
    """``--oneapi-device-selector`` came with v0.3.10; older releases get the same flag with the same meaning."""

    id = "oneapi-selector"
    aliases = ("T09",)
    title = "the oneAPI device selector, for old releases"
    after = ("visible-devices",)
    purpose = Purpose.DEVICE
    issues = ("ComfyUI#6112",)
    files = ("comfy/cli_args.py", "main.py")
    needles = ("--directml", "CUDA_VISIBLE_DEVICES")
    facts = (_FLAG, "ONEAPI_DEVICE_SELECTOR")
    hooks = ("add_oneapi_flag", "set_oneapi_selector")
    upstream = (Span("v0.3.10"),)
    retires = "the release has --oneapi-device-selector"
    declares = ("env:ONEAPI_DEVICE_SELECTOR", "flag:--oneapi-device-selector")
    examples = (
        Example(
            "the flag",
            """\
            import argparse

            parser.add_argument("--directml", type=int)
            """,
            """\
            import argparse
            from comfy import patchforge_xpu

            parser.add_argument("--directml", type=int)
            patchforge_xpu.add_oneapi_flag(parser)
            """,
            version="v0.2.3",
        ),
        Example(
            "the flag is there",
            f'parser.add_argument("--directml")\nparser.add_argument("{_FLAG}")\n',
            outcome=Outcome.UPSTREAM,
        ),
    )

    def visit_Call(self, node: cst.Call, at: At) -> Findings:
        """The flag goes where v0.3.10 put it: after --directml."""
        if is_directml_flag(node, at):
            if at.file_has(_FLAG):
                yield Already(node, f"the release has {_FLAG}")
            elif not same(node.func, "parser.add_argument"):
                yield Mismatch(node, 'parser.add_argument("--directml", …)')
            else:
                yield rewrite(node, insert_after(at.statement, "patchforge_xpu.add_oneapi_flag(parser)"))

    def visit_If(self, node: cst.If, at: At) -> Findings:
        """The variable is set beside those of the other vendors."""
        if is_device_choice(node, at):
            if at.file_has("ONEAPI_DEVICE_SELECTOR"):
                yield Already(node.test, "main.py sets ONEAPI_DEVICE_SELECTOR")
            else:
                yield rewrite(node.test, insert_after(node, "patchforge_xpu.set_oneapi_selector(args)"))


def is_directml_flag(node: cst.Call, at: At) -> bool:
    """Whether ``node`` adds ``--directml`` to the command line, which stands in every release."""
    return at.calls(node, "add_argument") and bool(node.args) and "--directml" in at.strings(node.args[0])
