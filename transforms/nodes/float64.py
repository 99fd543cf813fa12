"""A float64 on a device that may have none."""

from __future__ import annotations

import ast

from patchforge.nodes.code import Code
from patchforge.pattern import Kind, Options, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person

_LISTED = "some Intel GPUs have no float64: what computes with it there raises"


class Float64(Pattern):
    """Some Intel GPUs have no fp64, and raise. With ``--enable fp64`` a float64 made on a device is float32 on XPUs."""

    id = "pack-float64"
    aliases = ("T12",)
    title = "float64 on a device (option)"
    listed = True
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
        PackExample(
            "by its other name",
            "import torch\nx = torch.zeros(9, dtype=torch.double, device=device)\n",
            "import torch\nx = torch.zeros(9, dtype=(torch.float32 if _patchforge_xpu() else torch.double), device=device)\n",
            options=Options(fp64=True),
        ),
        PackExample("made of another: listed", "import torch\ny = x.double() + z.to(torch.float64)\n"),
        PackExample(
            "not asked for: listed, with the option",
            "import torch\nx = torch.arange(9, dtype=torch.float64, device=device)\n",
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """``torch.float64`` and ``.double()``."""
        if site.kind is not Kind.FP64:
            return None
        if not _on_device(site, code):
            return left([site], _LISTED, runs_on_xpu=True)
        if not pack.options.fp64:
            return left([site], f"{_LISTED}; convertible with --enable fp64", runs_on_xpu=True)
        if not (name := code.torch_in(site.node)):
            return person([site], "torch.float32 on an XPU")
        return converted([site], *code.around(site.node, f"({name}.float32 if _patchforge_xpu() else ", ")"))


def _on_device(site: Site, code: Code) -> bool:
    """Whether it is the dtype of a call that names a device, and not the CPU."""
    keyword = code.parent(site.node)
    call = code.parent(keyword) if isinstance(keyword, ast.keyword) else None
    devices = (
        [keyword.value for keyword in call.keywords if keyword.arg == "device"] if isinstance(call, ast.Call) else []
    )
    return bool(devices) and not (isinstance(devices[0], ast.Constant) and devices[0].value == "cpu")
