# ruff: noqa: E501, ARG002 - examples are shown as they are, and every rule is asked alike
"""T12 and T13: what is changed only when asked for."""

from __future__ import annotations

import ast

from patchforge.nodes.code import Code
from patchforge.nodes.words import Example, Kind, Options, Rule, Site, Surroundings, Verdict, converted, left


class Float64(Rule):
    """Some Intel GPUs have no fp64, and raise. With ``--enable fp64`` a float64 made on a device is float32 on XPUs."""

    id = "T12"
    title = "float64 on a device (option)"
    examples = (
        Example(
            "made on the device",
            "import torch\nx = torch.arange(9, dtype=torch.float64, device=device)\n",
            "import torch\nx = torch.arange(9, dtype=(torch.float32 if _patchforge_xpu() else torch.float64), device=device)\n",
            options=Options(fp64=True),
        ),
        Example(
            "made on the CPU", "import torch\nx = torch.arange(9, dtype=torch.float64)\n", options=Options(fp64=True)
        ),
        Example("not asked for", "import torch\nx = torch.arange(9, dtype=torch.float64, device=device)\n"),
    )

    def look(self, site: Site, code: Code, around: Surroundings) -> Verdict | None:
        """``torch.float64``."""
        if site.kind is not Kind.FP64:
            return None
        keyword = code.parent(site.node)
        call = code.parent(keyword) if isinstance(keyword, ast.keyword) else None
        devices = [one.value for one in call.keywords if one.arg == "device"] if isinstance(call, ast.Call) else []
        if not devices or (isinstance(devices[0], ast.Constant) and devices[0].value == "cpu"):
            return left("T12", [site], "made on the CPU, or where the tensor already is")
        name = code.torch or "torch"
        return converted("T12", [site], *code.around(site.node, f"({name}.float32 if _patchforge_xpu() else ", ")"))


class LoadWithoutMap(Rule):
    """A checkpoint saved from CUDA tensors does not load elsewhere without ``map_location``.

    With ``--enable torch-load`` it goes to the CPU where CUDA is not there; CUDA sees the default as before.
    """

    id = "T13"
    title = "torch.load without map_location (option)"
    examples = (
        Example(
            "asked for",
            "import torch\nw = torch.load(path)\n",
            'import torch\nw = torch.load(path, map_location=None if torch.cuda.is_available() else "cpu")\n',
            options=Options(torch_load=True),
        ),
        Example("not asked for", "import torch\nw = torch.load(path)\n"),
    )

    def look(self, site: Site, code: Code, around: Surroundings) -> Verdict | None:
        """``torch.load`` with a path alone."""
        if site.kind is not Kind.LOAD or not isinstance(site.node, ast.Call):
            return None
        name = code.torch or "torch"
        at = code.end(site.node.args[0])
        return converted(
            "T13", [site], code.splice(at, at, f', map_location=None if {name}.cuda.is_available() else "cpu"')
        )
