"""IPEX where upstream has dropped it."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Span, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class IpexOptIn(Transform):
    """v0.21.0 dropped IPEX, which is retired. Those who still run torch 2.8 with IPEX 2.8 can switch it on.

    Off by default; refused for a torch newer than 2.8, against which IPEX cannot be imported.
    """

    id = "ipex-opt-in"
    aliases = ("T12",)
    title = "IPEX as an option after v0.21.0"
    purpose = Purpose.MODEL
    issues = ("ComfyUI#13653", "intel-extension-for-pytorch#867")
    files = ("comfy/model_management.py",)
    needles = ("def model_load",)
    facts = ("ipex.optimize",)
    hooks = ("ipex_opt_in",)
    upstream = (Span(last="v0.20.1"),)
    retires = "no supported torch has an IPEX"
    opt_in = "ipex"
    examples = (
        Example(
            "before the model is handed on",
            """\
            import weakref

            class LoadedModel:
                def model_load(self):
                    real_model = self.model.model
                    self.real_model = weakref.ref(real_model)
            """,
            """\
            import weakref
            from comfy import patchforge_xpu

            class LoadedModel:
                def model_load(self):
                    real_model = self.model.model
                    if is_intel_xpu():
                        real_model = patchforge_xpu.ipex_opt_in(real_model)
                    self.real_model = weakref.ref(real_model)
            """,
        ),
        Example(
            "upstream has its own hook",
            "class LoadedModel:\n    def model_load(self):\n        real_model = ipex.optimize(m)\n        self.real_model = weakref.ref(real_model)\n",
            outcome=Outcome.UPSTREAM,
            version="v0.20.1",
        ),
        Example(
            "the model is kept in another way",
            "class LoadedModel:\n    def model_load(self):\n        self.real_model = weakref.ref(other())\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Assign(self, node: cst.Assign, at: At) -> Findings:
        """``self.real_model = weakref.ref(real_model)``."""
        if at.function != "LoadedModel.model_load":
            return
        if at.mentions(node.value, "ipex"):
            yield Already(node, "the release calls ipex.optimize itself")
        elif same(node.targets[0].target, "self.real_model") and not at.file_has("ipex.optimize"):
            if same(node.value, "weakref.ref(real_model)"):
                lines = ("if is_intel_xpu():", "    real_model = patchforge_xpu.ipex_opt_in(real_model)")
                yield rewrite(node, insert_before(at.statement, *lines))
            else:
                yield Mismatch(node, "self.real_model = weakref.ref(real_model)")
