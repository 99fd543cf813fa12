"""Free VRAM is over-estimated."""

import libcst as cst

from patchforge.structure import dotted, same
from patchforge.transform import Already, At, Example, Findings, Mismatch, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose

#: What answers otherwise, and which calls differ, when the free memory of an XPU does.
FREE_MEMORY_MOVES = (
    "get_free_memory",
    "maximum_vram_for_weights",
    "unet_dtype",
    "should_use_*",
    "unet_inital_load_device",
    "text_encoder_initial_device",
    "load_model*_gpu",
    "free_memory",
    "loaded_models",
    "unload_*",
    "call:patcher.*",
    "call:torch.xpu.empty_cache",
    "call:torch.xpu.memory_stats",
)


class FreeMemory(Transform):
    """Upstream takes an XPU's free memory to be its total less what torch has reserved.

    What the desktop, the driver and other processes hold is not seen, a model too large is accepted and sampling hangs.
    The hook asks the driver and keeps upstream's figure wherever the answer fails a plausibility test, so the estimate
    can only shrink.
    """

    id = "free-memory"
    aliases = ("T01",)
    title = "free memory as the driver sees it"
    purpose = Purpose.MEMORY
    issues = ("ComfyUI#15323", "ComfyUI#15487", "ComfyUI#9024", "pytorch#157989", "pytorch#161381")
    files = ("comfy/model_management.py",)
    needles = ("def get_free_memory",)
    hooks = ("free_memory",)
    retires = "the XPU arm of get_free_memory, or a helper it calls, uses torch.xpu.mem_get_info"
    declares = (*FREE_MEMORY_MOVES, "call:torch.xpu.mem_get_info")
    examples = (
        Example(
            "the estimate is refined after upstream made it",
            """\
            import torch

            def get_free_memory(dev=None):
                if is_intel_xpu():
                    mem_reserved = 1
                    mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved
                    return mem_free_xpu
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def get_free_memory(dev=None):
                if is_intel_xpu():
                    mem_reserved = 1
                    mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved
                    mem_free_xpu = patchforge_xpu.free_memory(dev, mem_free_xpu, mem_reserved)
                    return mem_free_xpu
            """,
        ),
        Example(
            "upstream asks the driver itself",
            """\
            def get_free_memory(dev=None):
                if is_intel_xpu():
                    mem_free_xpu, _ = torch.xpu.mem_get_info(dev)
            """,
            outcome=Outcome.UPSTREAM,
        ),
        Example(
            "another way of estimating needs a person",
            """\
            def get_free_memory(dev=None):
                if is_intel_xpu():
                    mem_free_xpu = probe(dev)
            """,
            outcome=Outcome.DRIFTED,
        ),
    )

    def visit_Assign(self, node: cst.Assign, at: At) -> Findings:
        """The one assignment of the XPU arm's free memory."""
        if at.function != "get_free_memory" or not at.xpu_arm():
            return
        target = dotted(node.targets[0].target)
        if at.mentions(node.value, "mem_get_info") or at.mentions(node.value, "xpu_get_memory_info"):
            yield Already(node, "the arm asks torch.xpu.mem_get_info")
        elif target == "mem_free_xpu" and is_upstreams_estimate(node.value):
            yield rewrite(
                node, insert_after(at.statement, f"{target} = patchforge_xpu.free_memory(dev, {target}, mem_reserved)")
            )
        elif target == "mem_free_xpu":
            yield Mismatch(node, "mem_free_xpu = total_memory - mem_reserved")

    def visit_AugAssign(self, node: cst.AugAssign, at: At) -> Findings:
        """A change of the estimate after the hook has seen it."""
        if at.function == "get_free_memory" and same(node.target, "mem_free_xpu"):
            yield Mismatch(node, "mem_free_xpu = total_memory - mem_reserved")


def is_upstreams_estimate(value: cst.BaseExpression) -> bool:
    """Whether ``value`` is the device's total memory less ``mem_reserved``."""
    return same(value, "torch.xpu.get_device_properties(dev).total_memory - mem_reserved")
