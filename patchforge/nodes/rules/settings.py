# ruff: noqa: ARG002 - examples are shown as they are, and every rule is asked alike
"""T10: settings of CUDA's libraries, its version and its environment."""

from __future__ import annotations

import ast

from patchforge.nodes.code import Code
from patchforge.nodes.forms import call_of
from patchforge.nodes.words import Example, Kind, Rule, Site, Surroundings, Verdict, converted, left, person


class Settings(Rule):
    """Flags of cuDNN and of CUDA's matrix products can be read and set without CUDA (torch 2.13): nothing to do.

    A choice of attention kernels holds on every device, so it is not made on an XPU. What is read from the environment
    is for a person.
    """

    id = "T10"
    title = "settings of CUDA"
    examples = (
        Example("a flag", "import torch\ntorch.backends.cudnn.benchmark = True\nx = torch.backends.cudnn.benchmark\n"),
        Example(
            "kernels of attention",
            "import torch\nwith torch.backends.cuda.sdp_kernel(enable_math=False):\n    f()\n",
            "import torch\nwith _patchforge_sdp(torch.backends.cuda.sdp_kernel)(enable_math=False):\n    f()\n",
        ),
        Example("the version of CUDA", "import torch\nmajor, minor = torch.version.cuda.split('.')\n", person=True),
        Example("the environment", "import os\nhome = os.environ['CUDA_HOME']\n", person=True),
        Example("between processes", "init(backend='nccl')\n"),
    )

    def look(self, site: Site, code: Code, around: Surroundings) -> Verdict | None:
        """Everything that names CUDA and is no device."""
        if site.kind is Kind.BACKEND:
            if site.text.endswith("sdp_kernel") and call_of(site, code) is not None:
                return converted("T10", [site], *code.around(site.node, "_patchforge_sdp(", ")"))
            return left("T10", [site], "a flag that works without CUDA and does nothing there")
        if site.kind is Kind.DISTRIBUTED:
            return left("T10", [site], "between processes; nodes run in one")
        if site.kind is Kind.ENVIRONMENT:
            if site.text == "PYTORCH_CUDA_ALLOC_CONF":
                return left("T10", [site], "read by CUDA's allocator alone")
            return person("T10", [site], "XPU's twin of CUDA_VISIBLE_DEVICES is ZE_AFFINITY_MASK; others have none")
        if site.kind is Kind.BUILD:
            parent = code.parent(site.node)
            if isinstance(parent, (ast.Compare, ast.BoolOp, ast.If, ast.IfExp, ast.UnaryOp)):
                return left("T10", [site], "asks how torch was built")
            return person("T10", [site], "it is None without CUDA")
        return None
