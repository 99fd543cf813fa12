"""Settings of CUDA's libraries, its version and its environment."""

from __future__ import annotations

import ast
import re

from patchforge.nodes.code import Code
from patchforge.nodes.shapes import call_of
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person

_XPU = re.compile(r"xpu|ipex", re.IGNORECASE)


class CudaSettings(Pattern):
    """Flags of cuDNN and of CUDA's matrix products can be read and set without CUDA (torch 2.13): nothing to do.

    A choice of attention kernels holds on every device, so it is not made on an XPU. What is read from the environment
    is for a person.
    """

    id = "pack-cuda-settings"
    aliases = ("T10",)
    title = "settings of CUDA"
    source = "https://docs.pytorch.org/docs/stable/backends.html"
    examples = (
        PackExample(
            "a flag", "import torch\ntorch.backends.cudnn.benchmark = True\nx = torch.backends.cudnn.benchmark\n"
        ),
        PackExample(
            "kernels of attention",
            "import torch\nwith torch.backends.cuda.sdp_kernel(enable_math=False):\n    f()\n",
            "import torch\nwith _patchforge_sdp(torch.backends.cuda.sdp_kernel)(enable_math=False):\n    f()\n",
        ),
        PackExample(
            "the version of CUDA",
            "import torch\nmajor, minor = torch.version.cuda.split('.')\n",
            "import torch\nmajor, minor = (\"0.0\" if _patchforge_xpu() else torch.version.cuda).split('.')\n",
        ),
        PackExample("the version of CUDA, kept", "import torch\nversion = torch.version.cuda\n", person=True),
        PackExample("the environment", "import os\nhome = os.environ['CUDA_HOME']\n", person=True),
        PackExample("between processes", "init(backend='nccl')\n"),
        PackExample("XPUs in CUDA's place", "import torch\ntorch.cuda.empty_cache = torch.xpu.empty_cache\n"),
        PackExample("CUDA put aside", "import torch\ntorch.cuda.is_available = lambda: False\n", person=True),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """Everything that names CUDA and is not a device."""
        if site.kind is Kind.BACKEND:
            if site.text.endswith("sdp_kernel") and call_of(site, code) is not None:
                return converted([site], *code.around(site.node, "_patchforge_sdp(", ")"))
            return left([site], "a flag that works without CUDA and does nothing there", runs_on_xpu=True)
        if site.kind is Kind.DISTRIBUTED:
            return left([site], "between processes; nodes run in one")
        if site.kind is Kind.ENVIRONMENT:
            if site.text == "PYTORCH_CUDA_ALLOC_CONF":
                return left([site], "read by CUDA's allocator alone")
            return person([site], "XPU's twin of CUDA_VISIBLE_DEVICES is ZE_AFFINITY_MASK; others have none")
        if site.kind is Kind.REPLACED:
            if code.mentions([code.statement(site.node)], _XPU):
                return left([site], "the pack's own way to XPUs: it puts theirs in CUDA's place", runs_on_xpu=True)
            return person([site], "this changes torch for every other pack too: see what it says to an XPU")
        if site.kind is Kind.BUILD:
            parent = code.parent(site.node)
            if isinstance(parent, (ast.Compare, ast.BoolOp, ast.If, ast.IfExp, ast.UnaryOp)):
                return left([site], "asks how torch was built")
            if (version := _version(site.node, code)) is not None:
                return converted([site], *code.around(version, '("0.0" if _patchforge_xpu() else ', ")"))
            return person([site], "it is None without CUDA")
        return None


def _version(node: ast.expr, code: Code) -> ast.expr | None:
    """CUDA's version where it is read as a text or a number, which None is not."""
    parent = code.parent(node)
    if isinstance(node, ast.Attribute) and code.name(node.value) == "torch.version.cuda":
        return node.value if isinstance(parent, ast.Call) and parent.func is node else None
    number = isinstance(parent, ast.Call) and code.name(parent.func) in ("float", "int") and node in parent.args
    return node if number else None
