"""Bf16 is decided by the wrong question."""

import libcst as cst

from patchforge.structure import same
from patchforge.transform import At, Example, Findings, Mismatch, Transform, insert_before, rewrite
from patchforge.vocabulary import Outcome, Purpose


class Bf16(Transform):
    """v0.3.46 to v0.3.50 index ``get_device_capability`` with a key that not every driver gives, and lose bf16 on iGPUs.

    The others answer yes for every XPU, Iris Xe included, which has none and fails in the VAE. Where torch says that a
    device neither converts bfloat16 nor has matrix units for it, the hook answers no: fp16 or fp32 is used, which those
    devices have. A torch that does not say leaves upstream's answer.
    """

    id = "bf16"
    aliases = ("T13",)
    title = "bf16 where the device has it"
    purpose = Purpose.MODEL
    issues = ("ComfyUI#6707", "ComfyUI#11032", "ComfyUI#9322", "pytorch#152317", "intel-xpu-backend-for-triton#1888")
    files = ("comfy/model_management.py",)
    needles = ("def should_use_bf16",)
    hooks = ("bf16", "bf16_supported")
    retires = "torch.xpu.is_bf16_supported tells emulation from hardware by default"
    declares = (
        "should_use_bf16*",
        "unet_dtype*",
        "vae_dtype*",
        "call:torch.xpu.is_bf16_supported",
        "call:torch.xpu.get_device_capability",
        "call:torch.xpu.get_device_properties",
        "call:torch.xpu.current_device",
    )
    examples = (
        Example(
            "the answer can be refused",
            """\
            import torch

            def should_use_bf16(device=None):
                if is_intel_xpu():
                    return torch.xpu.is_bf16_supported()
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def should_use_bf16(device=None):
                if is_intel_xpu():
                    if not patchforge_xpu.bf16(True, device):
                        return False
                    return torch.xpu.is_bf16_supported()
            """,
        ),
        Example(
            "the key is not asked for where torch answers",
            """\
            import torch

            def should_use_bf16(device=None):
                if is_intel_xpu():
                    return torch.xpu.get_device_capability(device)['has_bfloat16_conversions']
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def should_use_bf16(device=None):
                if is_intel_xpu():
                    if patchforge_xpu.bf16_supported(device):
                        return True
                    return torch.xpu.get_device_capability(device)['has_bfloat16_conversions']
            """,
            version="v0.3.47",
        ),
        Example(
            "another question needs a person",
            "def should_use_bf16(device=None):\n    if is_intel_xpu():\n        return lookup(device)\n",
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Return(self, node: cst.Return, at: At) -> Findings:
        """Each answer of the XPU arm."""
        if at.function != "should_use_bf16" or not at.xpu_arm() or node.value is None:
            return
        if at.mentions(node.value, "get_device_capability"):
            yield rewrite(
                node, insert_before(at.statement, "if patchforge_xpu.bf16_supported(device):", "    return True")
            )
        elif same(node.value, "True", "torch.xpu.is_bf16_supported()"):
            yield rewrite(
                node, insert_before(at.statement, "if not patchforge_xpu.bf16(True, device):", "    return False")
            )
        else:
            yield Mismatch(node, "return True or return torch.xpu.is_bf16_supported()")
