"""An integrated GPU's memory is taken for dedicated VRAM."""

import libcst as cst

from patchforge.structure import dotted
from patchforge.transform import Already, At, Example, Findings, Mismatch, Transform, insert_after, rewrite
from patchforge.vocabulary import Outcome, Purpose

from .free_memory import FREE_MEMORY_MOVES, is_upstreams_estimate

#: What says how much RAM is available, in upstream's words.
_AVAILABLE_RAM = ("virtual_memory", "virtual_memory_available")


class IntegratedMemory(Transform):
    """An integrated GPU shares the machine's memory, and upstream's figure does not shrink as that fills.

    Weights stand in the same DRAM twice while a model loads. The hook caps the estimate at what the operating system
    calls available, to this process where a cgroup limits it; a discrete card is never capped.
    """

    id = "integrated-memory"
    aliases = ("T02",)
    title = "integrated GPUs share the machine's memory"
    purpose = Purpose.MEMORY
    issues = ("ComfyUI#9128", "pytorch#182624", "ComfyUI#14938")
    files = ("comfy/model_management.py",)
    needles = ("def get_free_memory",)
    hooks = ("integrated_free_memory",)
    retires = "the XPU arm of get_free_memory asks for the available RAM"
    declares = (*FREE_MEMORY_MOVES, "call:torch.xpu.get_device_properties")
    examples = (
        Example(
            "a second refinement of the same estimate",
            """\
            import torch

            def get_free_memory(dev=None):
                if is_intel_xpu():
                    mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def get_free_memory(dev=None):
                if is_intel_xpu():
                    mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved
                    mem_free_xpu = patchforge_xpu.integrated_free_memory(dev, mem_free_xpu)
            """,
        ),
        Example(
            "upstream bounds it by the RAM",
            """\
            def get_free_memory(dev=None):
                mem_free_npu = ask(dev)
                if is_intel_xpu():
                    mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved
                    if is_integrated_gpu(dev):
                        mem_free_xpu = min(mem_free_xpu, psutil.virtual_memory().available)
            """,
            outcome=Outcome.UPSTREAM,
        ),
        Example(
            "a name alone does nothing",
            """\
            import torch

            def get_free_memory(dev=None):
                if is_intel_xpu():
                    mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved
                    if is_integrated_gpu(dev):
                        log()
            """,
            """\
            import torch
            from comfy import patchforge_xpu

            def get_free_memory(dev=None):
                if is_intel_xpu():
                    mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved
                    mem_free_xpu = patchforge_xpu.integrated_free_memory(dev, mem_free_xpu)
                    if is_integrated_gpu(dev):
                        log()
            """,
        ),
    )

    def visit_Assign(self, node: cst.Assign, at: At) -> Findings:
        """The one assignment of the XPU arm's free memory."""
        target = dotted(node.targets[0].target)
        if at.function != "get_free_memory" or target != "mem_free_xpu" or not (arm := at.xpu_arm()):
            return
        if any(at.mentions(arm.body, name) for name in _AVAILABLE_RAM):
            yield Already(node, "the arm bounds the estimate by the available RAM")
        elif is_upstreams_estimate(node.value):
            yield rewrite(
                node, insert_after(at.statement, f"{target} = patchforge_xpu.integrated_free_memory(dev, {target})")
            )
        else:
            yield Mismatch(node, "mem_free_xpu = total_memory - mem_reserved")
