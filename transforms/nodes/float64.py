"""A float64 on a device that may have none."""

from __future__ import annotations

import ast

from patchforge.nodes.code import Code
from patchforge.pattern import Kind, Options, PackExample, PackFacts, Pattern, Site, Verdict, converted, left


class Float64(Pattern):
    """Some Intel GPUs have no fp64, and raise. With ``--enable fp64`` a float64 made on a device is float32 on XPUs."""

    id = "pack-float64"
    aliases = ("T12",)
    title = "float64 on a device (option)"
    examples = (
        PackExample(
            "made on the device",
            "import torch\nx = torch.arange(9, dtype=torch.float64, device=device)\n",
            "import torch\nx = torch.arange(9, dtype=(torch.float32 if _patchforge_xpu() else torch.float64), device=device)\n",
            options=Options(fp64=True),
        ),
        PackExample(
            "made on the CPU", "import torch\nx = torch.arange(9, dtype=torch.float64)\n", options=Options(fp64=True)
        ),
        PackExample("not asked for", "import torch\nx = torch.arange(9, dtype=torch.float64, device=device)\n"),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """``torch.float64``."""
        if site.kind is not Kind.FP64:
            return None
        keyword = code.parent(site.node)
        call = code.parent(keyword) if isinstance(keyword, ast.keyword) else None
        devices = [one.value for one in call.keywords if one.arg == "device"] if isinstance(call, ast.Call) else []
        if not devices or (isinstance(devices[0], ast.Constant) and devices[0].value == "cpu"):
            return left([site], "made on the CPU, or where the tensor already is")
        name = code.torch or "torch"
        return converted([site], *code.around(site.node, f"({name}.float32 if _patchforge_xpu() else ", ")"))
