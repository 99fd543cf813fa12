"""Convolutions and compilation are left at their defaults."""

import libcst as cst

from patchforge.structure import dotted
from patchforge.transform import At, Example, Findings, Mismatch, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class ModelLayout(Transform):
    """Levels O2 and O3: channels-last weights for convolutions and torch.compile, on a model that lives on an XPU.

    Nothing happens at the default level. ``--force-channels-last`` of upstream covers the sampler's model only.
    """

    id = "model-layout"
    aliases = ("T31",)
    title = "optimisation levels O2 and O3"
    purpose = Purpose.MODEL
    files = ("comfy/model_management.py",)
    needles = ("def model_load",)
    hooks = ("optimise_model",)
    retires = "never: it serves patchforge's own levels"
    opt_in = "channels-last, compile"
    examples = (
        Example(
            "before the model is returned",
            """\
            import torch

            class LoadedModel:
                def model_load(self):
                    return real_model
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            class LoadedModel:
                def model_load(self):
                    if is_intel_xpu():
                        patchforge_xpu.optimise_model(real_model, self.device)
                    return real_model
            """,
        ),
        Example(
            "a loader elsewhere",
            "class Other:\n    def model_load(self):\n        return model\n",
            outcome=Outcome.DRIFTED,
        ),
        Example(
            "a model without a name",
            "class LoadedModel:\n    def model_load(self):\n        return load(self)\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Return(self, node: cst.Return, at: At) -> Findings:
        """What ``LoadedModel.model_load`` returns."""
        if at.function != "LoadedModel.model_load":
            return
        model = dotted(node.value) if node.value else ""
        if model:
            lines = ("if is_intel_xpu():", f"    patchforge_xpu.optimise_model({model}, self.device)")
            yield rewrite(node, insert_before(at.statement, *lines))
        else:
            yield Mismatch(node, "return real_model")
