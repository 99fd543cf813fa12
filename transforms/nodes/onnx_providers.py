"""ONNX Runtime's execution providers."""

from __future__ import annotations

import ast
import re
from collections import Counter

from patchforge.nodes.code import Code
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person

_PROVIDER = re.compile("ExecutionProvider")
_CUDA = re.compile("^CUDAExecutionProvider$")
_OPENVINO = re.compile("OpenVINO")


def _values(parent: ast.AST | None) -> Counter[str]:
    return Counter(str(element.value) for element in getattr(parent, "elts", ()) if isinstance(element, ast.Constant))


def _with_options(node: ast.AST) -> bool:
    """``("CUDAExecutionProvider", {"device_id": 0})``."""
    return (
        isinstance(node, ast.Tuple)
        and len(node.elts) == 2
        and isinstance(node.elts[0], ast.Constant)
        and not isinstance(node.elts[1], ast.Constant)
    )


def _is_asked_for(site: Site, code: Code) -> bool:
    """Whether a provider is only taken where it was found: then there is none beside an XPU."""
    for parent, child in code.above(site.node):
        if isinstance(parent, (ast.If, ast.IfExp)) and child is not parent.test and code.field(child) == "body":
            if code.mentions([parent.test], _CUDA):
                return True
        elif isinstance(parent, (ast.FunctionDef, ast.ClassDef)):
            return False
    return False


class OnnxProviders(Pattern):
    """``["CUDAExecutionProvider", "CPUExecutionProvider"]`` runs on the CPU beside an XPU.

    OpenVINO's provider is for Intel GPUs; there is none called XPU. It goes behind CUDA's, where only an XPU is there.
    """

    id = "pack-onnx-providers"
    aliases = ("T14",)
    title = "ONNX Runtime providers"
    after = ("pack-guarded-calls",)
    source = "https://onnxruntime.ai/docs/execution-providers/OpenVINO-ExecutionProvider.html"
    examples = (
        PackExample(
            "a list of providers",
            "providers = ['CUDAExecutionProvider', 'CPUExecutionProvider']\n",
            "providers = ['CUDAExecutionProvider', *([\"OpenVINOExecutionProvider\"] if _patchforge_xpu() else []), 'CPUExecutionProvider']\n",
        ),
        PackExample(
            "a choice of providers",
            "import onnxruntime\nchoice = (['CPU', 'CUDA', 'ROCM'],)\nname = provider + 'ExecutionProvider'\n",
            "import onnxruntime\nchoice = (['CPU', 'CUDA', *([\"OpenVINO\"] if _patchforge_xpu() else []), 'ROCM'],)\nname = provider + 'ExecutionProvider'\n",
        ),
        PackExample("OpenVINO is there", 'providers = ["CUDAExecutionProvider", "OpenVINOExecutionProvider"]\n'),
        PackExample(
            "alone",
            'providers = ["CUDAExecutionProvider"]\n',
            'providers = ["CUDAExecutionProvider", *(["OpenVINOExecutionProvider"] if _patchforge_xpu() else [])]\n',
        ),
        PackExample(
            "with options",
            'providers = [("CUDAExecutionProvider", {"device_id": 0}), "CPUExecutionProvider"]\n',
            'providers = [("CUDAExecutionProvider", {"device_id": 0}), *(["OpenVINOExecutionProvider"] if _patchforge_xpu() else []), "CPUExecutionProvider"]\n',
        ),
        PackExample(
            "where it was found",
            'found = get_available_providers()\nproviders = ["CUDAExecutionProvider"] if "CUDAExecutionProvider" in found else ["CPUExecutionProvider"]\n',
            person=True,
        ),
        PackExample(
            "as a default",
            'def load(file, provider="CUDAExecutionProvider"):\n    return Session(file, providers=[provider])\n',
            person=True,
        ),
        PackExample(
            "behind a test for CUDA",
            """\
            import torch
            if torch.cuda.is_available():
                providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
            else:
                providers = ["CPUExecutionProvider"]
            """,
            """\
            import torch
            if torch.cuda.is_available():
                providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
            elif hasattr(torch, "xpu") and torch.xpu.is_available():
                providers = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
            else:
                providers = ["CPUExecutionProvider"]
            """,
        ),
        PackExample("a label", 'NAMES = {"CUDA": 1}\n'),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """The name of CUDA's provider."""
        if site.kind is not Kind.PROVIDER:
            return None
        parent, full = code.parent(site.node), site.text != "CUDA"
        values = code.once(("providers", parent), lambda: _values(parent))
        if any("OpenVINO" in value for value in values):
            return left([site], "OpenVINO stands beside it", runs_on_xpu=True)
        if not full and not ({"CPU", "ROCM"} & values.keys() and code.mentions([code.tree], _PROVIDER)):
            return left([site], "a label, not a device")
        if not isinstance(parent, (ast.List, ast.Tuple)) or isinstance(code.parent(parent), ast.Compare):
            return person([site], "use OpenVINOExecutionProvider on an XPU")
        provider: ast.expr = site.node
        if _with_options(parent) and isinstance(around := code.parent(parent), ast.List):
            provider, parent = parent, around
            if code.mentions([around], _OPENVINO):
                return left([site], "OpenVINO stands beside it", runs_on_xpu=True)
        if not all(isinstance(element, ast.Constant) or _with_options(element) for element in parent.elts) or (
            not full and len(parent.elts) < 2
        ):
            return person([site], "add OpenVINOExecutionProvider where only an XPU is there")
        if _is_asked_for(site, code):
            return person([site], "behind a test for CUDA's provider: ask for OpenVINO's as well")
        name = "OpenVINO" + site.text.removeprefix("CUDA")
        return converted([site], code.follow(provider, f', *(["{name}"] if _patchforge_xpu() else [])'))
