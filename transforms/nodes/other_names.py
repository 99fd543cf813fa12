"""CUDA by other names: a person looks, with a word on what to do."""

from __future__ import annotations

import ast

from patchforge.engine.syntax import is_and
from patchforge.nodes.code import Code
from patchforge.nodes.other_names import suggestion
from patchforge.nodes.shapes import kernels
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, left, person


class OtherNames(Pattern):
    """CUDA is reached by texts, by other parts of torch and by NVIDIA's tools, too. None of it is there on an XPU.

    Each is listed with what to do, and nothing is edited. Names that a program puts together are not seen:
    ``"cu" + "da"``, ``device.startswith("cu")``.
    """

    id = "pack-other-names"
    title = "CUDA by other names"
    examples = (
        PackExample("a type by its name", "import torch\nx = x.type('torch.cuda.FloatTensor')\n", person=True),
        PackExample("inside of torch", "import torch\ntorch._C._cuda_clearCublasWorkspaces()\n", person=True),
        PackExample("asked for first", "import torch\nif hasattr(torch._C, '_cuda_f'):\n    torch._C._cuda_f()\n"),
        PackExample(
            "what is measured",
            "import torch\nwith torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]):\n    f()\n",
            person=True,
        ),
        PackExample("CUDA graphs", "import torch\nmodel = torch.compile(model, backend='cudagraphs')\n", person=True),
        PackExample("CUDA graphs among others", "choices = (['inductor', 'cudagraphs'], {'default': 'inductor'})\n"),
        PackExample("a module by its name", "importlib.import_module('torch.cuda').empty_cache()\n", person=True),
        PackExample("of what another call gives", "__import__('torch').cuda.empty_cache()\n", person=True),
        PackExample(
            "an attribute by its name", "import torch\nn = getattr(torch, 'cuda').device_count()\n", person=True
        ),
        PackExample("NVIDIA's tool", "subprocess.run(['nvidia-smi', '-q'])\n", person=True),
        PackExample(
            "beside what is converted",
            "import subprocess\nx = x.cuda()\nsubprocess.run(['nvidia-smi', '-q'])\n",
            "import subprocess\nx = x.to(_patchforge_device())\nsubprocess.run(['nvidia-smi', '-q'])\n",
        ),
        PackExample("NVIDIA's driver", "import pynvml\npynvml.nvmlInit()\n", person=True),
        PackExample(
            "NVIDIA's driver, or none",
            "import pynvml\ntry:\n    pynvml.nvmlInit()\nexcept pynvml.NVMLError:\n    pass\n",
        ),
        PackExample("in capitals", "if device.upper() == 'CUDA':\n    f()\n", person=True),
        PackExample("for CUDA's libraries", "os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':4096:8'\n"),
        PackExample("the handle of a stream", "call(stream.cuda_stream)\n", person=True),
        PackExample("the handle of a stream, for a kernel", "def f(kernel, stream):\n    kernel(stream.cuda_stream)\n"),
        PackExample("code in a text", "exec('x = x.cuda()')\n", person=True),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """Whatever the census knows by another name."""
        if site.kind is not Kind.OTHER:
            return None
        known = suggestion(site.text)
        if site.text.lower().startswith(("nvml", "pynvml", "py3nvml", "nvidia_smi")) and _tried(site.node, code):
            return left([site], "asks NVIDIA's driver, in a try: goes on where it is not there", runs_on_xpu=True)
        if site.text == ".cuda_stream" and kernels([code.scope(site.node)], code):
            return left([site], "the stream of a CUDA kernel")
        if site.text == "cudagraphs" and _is_offered(site.node, code):
            return left([site], "one of several back ends that are offered, for CUDA alone", runs_on_xpu=True)
        if _asked_first(site, code):
            return left([site], "asked for with hasattr, and not there without CUDA", runs_on_xpu=True)
        if known.stays:
            return left([site], known.suggestion, runs_on_xpu=known.runs_on_xpu)
        return person([site], known.suggestion)


def _asked_first(site: Site, code: Code) -> bool:
    """``torch._C._cuda_f() if hasattr(torch._C, "_cuda_f") else None``."""
    for parent, child in code.above(site.node):
        tests = [parent.test] if isinstance(parent, (ast.If, ast.IfExp)) and child is not parent.test else []
        tests += parent.values if is_and(parent) else []
        if any(code.said(test) == f"hasattr({_owner(site, code)})" for test in tests if child not in _others(parent)):
            return True
    return False


def _others(parent: ast.AST) -> list[ast.AST]:
    """What runs where the test of a branch does not hold."""
    rest = getattr(parent, "orelse", [])
    return list(rest) if isinstance(rest, list) else [rest]


def _owner(site: Site, code: Code) -> str:
    node = site.node
    return f"{code.said(node.value)}, {node.attr!r}" if isinstance(node, ast.Attribute) else ""


def _is_offered(node: ast.expr, code: Code) -> bool:
    others = code.parent(node)
    return isinstance(others, (ast.List, ast.Tuple)) and len(others.elts) > 1


def _tried(node: ast.expr, code: Code) -> bool:
    return any(isinstance(parent, ast.Try) for parent, _ in code.above(node))
