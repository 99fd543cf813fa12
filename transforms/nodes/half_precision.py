"""Half precision for CUDA alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from patchforge.effort import walk
from patchforge.engine.syntax import last_name
from patchforge.nodes.code import Code
from patchforge.nodes.cuda_tests import Gate, asks, behind, decisions, question, says, widened
from patchforge.nodes.shapes import KERNELS, api, call_of, chooses_half, kernels
from patchforge.pattern import Kind, Options, PackExample, PackFacts, Pattern, Site, Verdict, converted, person

_TORCH = frozenset(("torch.float16", "torch.bfloat16", "torch.half", "torch.float32", "torch.float"))
_HALF = frozenset(("torch.float16", "torch.bfloat16", "torch.half"))
_FLAG = re.compile(r"^(use_|is_|enable_)?(half|fp16|bf16|float16)(_precision)?$", re.IGNORECASE)
_CAPABILITY = re.compile(r"_*(major|minor)|\w*capability", re.IGNORECASE)
_STRINGS = frozenset(("fp16", "bf16", "fp32", "float16", "bfloat16", "float32", "half"))


class HalfPrecision(Pattern):
    """``torch.float16 if device == "cuda" else torch.float32``: an XPU computes in float32, slower and in twice the memory.

    It still works, and another dtype gives other pictures, so this is for a person. With ``--enable half`` an XPU gets
    what CUDA gets.
    """

    id = "pack-half-precision"
    aliases = ("T11",)
    title = "half precision for CUDA alone (option)"
    after = ("pack-default-device",)
    examples = (
        PackExample(
            "asked for",
            "import torch\ndtype = torch.float16 if torch.cuda.is_available() else torch.float32\n",
            "import torch\ndtype = torch.float16 if torch.cuda.is_available() or _patchforge_xpu() else torch.float32\n",
            options=Options(half=True),
        ),
        PackExample(
            "asked for, as a statement",
            "import torch\nif device.type == 'cuda' and wish:\n    model = model.half()\n",
            "import torch\nif (device.type == 'cuda' or device.type == \"xpu\") and wish:\n    model = model.half()\n",
            options=Options(half=True),
        ),
        PackExample(
            "asked for, and refused to others",
            "import torch\nif dtype == torch.float16 and device.type != 'cuda':\n    print('float32 instead')\n    dtype = torch.float32\n",
            "import torch\nif dtype == torch.float16 and device.type != _patchforge_device():\n    print('float32 instead')\n    dtype = torch.float32\n",
            options=Options(half=True),
        ),
        PackExample(
            "a dtype for CUDA",
            "import torch\ndtype = torch.float16 if device == 'cuda' else torch.float32\n",
            person=True,
        ),
        PackExample(
            "what the device can, asked for",
            "import torch\ndtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16\n",
            "import torch\ndtype = torch.bfloat16 if _patchforge_gpu().is_bf16_supported() else torch.float16\n",
            options=Options(half=True),
        ),
        PackExample(
            "what the device can",
            "import torch\ndtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16\n",
            person=True,
        ),
        PackExample(
            "what the device can, behind a test for CUDA",
            "import torch\n\ndef kind():\n    if torch.cuda.is_available():\n        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16\n    return torch.float32\n",
            person=True,
        ),
        PackExample(
            "what the device can, behind a test for CUDA, asked for",
            "import torch\n\ndef kind():\n    if torch.cuda.is_available():\n        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16\n    return torch.float32\n",
            "import torch\n\ndef kind():\n    if torch.cuda.is_available() or _patchforge_xpu():\n        return torch.bfloat16 if _patchforge_gpu().is_bf16_supported() else torch.float16\n    return torch.float32\n",
            options=Options(half=True),
        ),
        PackExample(
            "by CUDA's capability",
            "import torch\n\ndef kind():\n    if torch.cuda.is_available():\n        major, _ = torch.cuda.get_device_capability()\n        return torch.bfloat16 if major >= 8 else torch.float16\n    return torch.float32\n",
            person=True,
        ),
        PackExample(
            "switched on by a flag",
            "import torch\nhalf = False\nif torch.cuda.is_available():\n    if '1650' not in torch.cuda.get_device_name(0):\n        half = True\n",
            person=True,
        ),
        PackExample(
            "returned by statements",
            "import torch\ndef kind(device):\n    if device.startswith('cuda'):\n        if torch.cuda.is_bf16_supported():\n            return torch.bfloat16\n        return torch.float16\n    return torch.float32\n",
            person=True,
        ),
        PackExample("the name of a file", 'import torch\nkind = "fp16" if x.is_cuda else "fp32"\n', person=True),
        PackExample(
            "by what CUDA can",
            "import torch\nif torch.cuda.is_available() and capability >= 8:\n    dtype = torch.bfloat16\n",
            options=Options(half=True),
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """``torch.cuda.is_bf16_supported``, which nobody asks for anything else; else only the gate knows."""
        if site.kind is not Kind.API or api(site) != "is_bf16_supported" or call_of(site, code) is None:
            return None
        if pack.options.half:
            return converted([site], code.replace(site.node, "_patchforge_gpu().is_bf16_supported"))
        return person([site], "an XPU keeps the other dtype here: --enable half asks the XPU instead")

    def verdict_on_test(
        self, site: Site, code: Code, pack: PackFacts, verdicts: Mapping[Site, Verdict]
    ) -> Verdict | None:
        """A question for CUDA behind which a dtype is chosen, and nothing else."""
        asked = question(site, code)
        gates = decisions(asked, code, pack) if asked is not None else []
        if not gates:
            return None
        arms = behind(gates, [site], pack.sites, verdicts, code)
        moves = any(inner.kind in (Kind.LITERAL, Kind.METHOD) for inner in arms.converted)
        halves = (asks(site, code) or not moves) and any(
            _halves(node, code) for part in arms.guarded for node in walk(part)
        )
        beside = code.parent(asked) if asked is not None else None
        chosen = arms.kernels(code) and all(_by_capability(gate, code) for gate, _ in gates)
        if isinstance(beside, ast.BoolOp) and kernels([beside], code):
            return None
        if chosen and not code.mentions(arms.guarded, KERNELS, but=_CAPABILITY):
            return person([site], "an XPU runs in float32 here: CUDA's capability decides, choose for an XPU beside it")
        if arms.kernels(code) or not (halves or all(_chooses(gate, code) for gate, _ in gates)):
            return None
        splices = widened(site, code) if pack.options.half else ()
        if splices:
            return converted([site], *splices)
        return person([site], "an XPU runs in float32 here: --enable half gives it what CUDA gets")


def _chooses(gate: Gate, code: Code) -> bool:
    if isinstance(gate, ast.IfExp):
        return all(_is_dtype(arm, code) for arm in (gate.body, gate.orelse)) or _half_flag(gate, code)
    if not isinstance(gate, ast.If):
        return False
    return all(says(statement) or _sets(statement, code) for statement in gate.body) and any(
        _sets(statement, code) for statement in gate.body
    )


def _by_capability(gate: Gate, code: Code) -> bool:
    """``return torch.bfloat16 if major >= 8 else torch.float16`` behind a test."""
    return isinstance(gate, ast.If) and any(
        isinstance(statement.value, ast.IfExp) and chooses_half(statement, code)
        for statement in gate.body
        if isinstance(statement, (ast.Assign, ast.Return))
    )


def _halves(node: ast.AST, code: Code) -> bool:
    """Half precision is switched on: a flag, a dtype that is set or returned, a model's ``half()``."""
    if isinstance(node, ast.Call):
        return last_name(node) in ("half", "bfloat16") and not node.args
    if not isinstance(node, (ast.Assign, ast.Return)) or node.value is None:
        return False
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is True:
        return any(_FLAG.search(code.said(target).rpartition(".")[2]) for target in node.targets)
    return code.name(node.value) in _HALF


def _is_dtype(node: ast.expr, code: Code) -> bool:
    return code.name(node) in _TORCH or (isinstance(node, ast.Constant) and node.value in _STRINGS)


def _half_flag(gate: ast.IfExp, code: Code) -> bool:
    keyword = code.parent(gate)
    values = [getattr(arm, "value", None) for arm in (gate.body, gate.orelse)]
    return isinstance(keyword, ast.keyword) and keyword.arg in ("half", "fp16", "use_fp16") and values == [True, False]


def _sets(statement: ast.stmt, code: Code) -> bool:
    """``dtype = torch.float16``, ``return flag, torch.float16``, ``model = model.half()``."""
    if not isinstance(statement, (ast.Assign, ast.Return, ast.Expr)) or statement.value is None:
        return False
    value = statement.value
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    return any(_is_dtype(part, code) or (isinstance(part, ast.Call) and last_name(part) == "half") for part in parts)
