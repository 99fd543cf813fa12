"""Automatic mixed precision by CUDA's name."""

from __future__ import annotations

import ast
import re

from patchforge.engine.syntax import dotted, last_name
from patchforge.nodes.code import Code
from patchforge.nodes.shapes import call_of, elsewhere_on_xpu
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person

_CHECKPOINT = re.compile("checkpoint", re.IGNORECASE)


class Autocast(Pattern):
    """Without CUDA, ``torch.autocast("cuda")`` warns and switches itself off: fp32, or a mismatch of dtypes.

    XPU's autocast knows bf16 and fp16; asked for float32 it switches itself off, as on CUDA's side float32 would do little.
    """

    id = "pack-autocast"
    aliases = ("T9",)
    title = "autocast by CUDA's name"
    source = "https://docs.pytorch.org/docs/stable/amp.html"
    after = ("pack-device-comparison",)
    examples = (
        PackExample(
            "a literal device type",
            "import torch\nwith torch.autocast(device_type='cuda', dtype=dtype):\n    f()\n",
            "import torch\nwith torch.autocast(device_type=_patchforge_device(), dtype=dtype):\n    f()\n",
        ),
        PackExample(
            "CUDA's own class",
            "import torch\nwith torch.cuda.amp.autocast(enabled=False):\n    f()\n",
            "import torch\nwith _patchforge_autocast(torch.cuda.amp.autocast)(enabled=False):\n    f()\n",
        ),
        PackExample(
            "an alias as a decorator",
            "from torch.cuda.amp import autocast\n\n@autocast(dtype=kind)\ndef f():\n    pass\n",
            "from torch.cuda.amp import autocast\n\n@_patchforge_autocast(autocast)(dtype=kind)\ndef f():\n    pass\n",
        ),
        PackExample(
            "made ready for later",
            "from functools import partial\nfrom torch.amp import autocast\nwith partial(autocast, 'cuda', enabled=False)():\n    f()\n",
            "from functools import partial\nfrom torch.amp import autocast\nwith partial(autocast, _patchforge_device(), enabled=False)():\n    f()\n",
        ),
        PackExample(
            "its dtype",
            "import torch\nif torch.get_autocast_gpu_dtype() == torch.float16:\n    x = x.clip(-65504, 65504)\n",
            'import torch\nif (torch.get_autocast_dtype("xpu") if _patchforge_xpu() else torch.get_autocast_gpu_dtype()) == torch.float16:\n    x = x.clip(-65504, 65504)\n',
        ),
        PackExample(
            "its dtype, kept for gradient checkpoints",
            "import torch\n\nclass Checkpointed:\n    def forward(ctx, run):\n        ctx.kept = {'dtype': torch.get_autocast_gpu_dtype()}\n        return run()\n",
        ),
        PackExample("right already", "import torch\nwith torch.autocast(mm.get_autocast_device(device)):\n    f()\n"),
        PackExample("for training", "import torch\nscaler = torch.cuda.amp.GradScaler()\n"),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """The class, or the device type given to ``torch.autocast``."""
        if site.kind is Kind.LITERAL:
            return _device_type(site, code)
        if site.kind is not Kind.AMP:
            return None
        name = site.text.rpartition(".")[2]
        if name == "autocast":
            return converted([site], *code.around(site.node, "_patchforge_autocast(", ")"))
        if name in ("GradScaler", "custom_fwd", "custom_bwd", "amp"):
            return left([site], "for training: switches itself off without CUDA")
        if name == "get_autocast_gpu_dtype":
            around = _definition(site, code)
            if _CHECKPOINT.search(getattr(around, "name", "")) or code.mentions([around], _CHECKPOINT):
                return left([site], "kept for gradient checkpoints, which inference does not make")
            call = call_of(site, code)
            torch = code.torch_in(site.node)
            if call is None or not torch:
                return person([site], "torch.get_autocast_dtype(device type)")
            return converted([site], *elsewhere_on_xpu(call, f'{torch}.get_autocast_dtype("xpu")', code))
        return person([site], f"find XPU's {name}")


def _definition(site: Site, code: Code) -> ast.AST:
    """The function or class of the module that a site stands in."""
    return next((child for parent, child in code.above(site.node) if parent is code.tree), code.tree)


def _device_type(site: Site, code: Code) -> Verdict | None:
    call = next((parent for parent, _ in code.above(site.node) if isinstance(parent, (ast.Call, ast.stmt))), None)
    if not isinstance(call, ast.Call):
        return None
    name = last_name(call)
    if name == "partial" and call.args and code.field(site.node) == "args":
        name = dotted(call.args[0]).rpartition(".")[2]
    if name in ("autocast", "GradScaler", "custom_fwd", "custom_bwd", "is_autocast_enabled", "get_autocast_dtype"):
        if name in ("GradScaler", "custom_fwd", "custom_bwd"):
            return left([site], "for training: switches itself off without CUDA")
        direct = code.parent(site.node)
        if site.text == "cuda" and (direct is call or isinstance(direct, ast.keyword)):
            return converted([site], code.replace(site.node, "_patchforge_device()"))
    return None
