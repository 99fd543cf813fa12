"""A call of what not every XPU build of torch has."""

from __future__ import annotations

import ast

from patchforge.nodes.code import Code
from patchforge.nodes.operators import operator
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, left


class Operators(Pattern):
    """``Could not run 'aten::_upsample_bicubic2d_aa.out' … from the 'XPU' backend``: nothing names a device, and it fails.

    Whether it does depends on the build of torch, so such calls are listed and stay as they are.
    """

    id = "pack-operators"
    title = "operators that XPU builds lacked"
    source = "https://github.com/intel/torch-xpu-ops/blob/main/src/ATen/native/xpu/XPUFallback.template"
    listed = True
    examples = (
        PackExample(
            "antialiased",
            "import torch.nn.functional as F\nx = F.interpolate(x, size, mode='bicubic', antialias=True)\n",
        ),
        PackExample(
            "antialiased where asked for",
            "from torchvision.transforms.functional import resize\nx = resize(x, size, antialias=smooth)\n",
        ),
        PackExample(
            "in a warp",
            "import torch\nx = torch.nn.functional.grid_sample(x.half(), grid, align_corners=True)\n",
        ),
        PackExample(
            "behind a test for CUDA that XPUs pass",
            "import torch\nif torch.cuda.is_available():\n"
            "    x = torch.nn.functional.grid_sample(x, grid.to('cuda'))\n",
            "import torch\nif torch.cuda.is_available() or _patchforge_xpu():\n    x = torch.nn.functional.grid_sample(x, grid.to(_patchforge_device()))\n",
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """Calls of the table's operators."""
        if site.kind is not Kind.OPERATOR or not isinstance(site.node, ast.Call):
            return None
        entry = operator(site.text, site.node)
        return left([site], f"{entry.why} ({', '.join(entry.sources)})", runs_on_xpu=True) if entry else None
