"""A checkpoint that is read to where it was saved from."""

from __future__ import annotations

import ast

from patchforge.nodes.code import Code
from patchforge.pattern import Kind, Options, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person

_LISTED = "a checkpoint saved from CUDA tensors would not load: convertible with --enable torch-load"


class TorchLoad(Pattern):
    """A checkpoint saved from CUDA tensors does not load elsewhere without ``map_location``.

    With ``--enable torch-load`` it goes to the CPU where CUDA is not there; CUDA sees the default as before.
    """

    id = "pack-torch-load"
    aliases = ("T13",)
    title = "torch.load without map_location (option)"
    source = "https://docs.pytorch.org/docs/stable/generated/torch.load.html"
    examples = (
        PackExample(
            "asked for",
            "import torch\nw = torch.load(path)\n",
            'import torch\nw = torch.load(path, map_location=None if torch.cuda.is_available() else "cpu")\n',
            options=Options(torch_load=True),
        ),
        PackExample("not asked for: listed, with the option", "import torch\nw = torch.load(path)\n"),
        PackExample(
            "read to a place",
            "import torch\nw = torch.load(path, map_location='cpu')\n",
            options=Options(torch_load=True),
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """``torch.load`` with a path alone."""
        if site.kind is not Kind.LOAD or not isinstance(site.node, ast.Call) or not site.node.args:
            return None
        if not pack.options.torch_load:
            return left([site], _LISTED, runs_on_xpu=True)
        if not (name := code.torch_in(site.node)):
            return person([site], 'map_location="cpu" where CUDA is not there')
        where = f', map_location=None if {name}.cuda.is_available() else "cpu"'
        return converted([site], code.follow(site.node.args[0], where))
