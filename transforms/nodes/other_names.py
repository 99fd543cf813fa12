"""CUDA by other names: a person looks, with a word on what to do."""

from __future__ import annotations

import ast

from patchforge.nodes.code import Code
from patchforge.nodes.other_names import suggestion
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
        PackExample(
            "what is measured",
            "import torch\nwith torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]):\n    f()\n",
            person=True,
        ),
        PackExample("CUDA graphs", "import torch\nmodel = torch.compile(model, backend='cudagraphs')\n", person=True),
        PackExample("a module by its name", "importlib.import_module('torch.cuda').empty_cache()\n", person=True),
        PackExample("of what another call gives", "__import__('torch').cuda.empty_cache()\n", person=True),
        PackExample(
            "an attribute by its name", "import torch\nn = getattr(torch, 'cuda').device_count()\n", person=True
        ),
        PackExample("NVIDIA's tool", "subprocess.run(['nvidia-smi', '-q'])\n", person=True),
        PackExample("NVIDIA's driver", "import pynvml\npynvml.nvmlInit()\n", person=True),
        PackExample(
            "NVIDIA's driver, or none",
            "import pynvml\ntry:\n    pynvml.nvmlInit()\nexcept pynvml.NVMLError:\n    pass\n",
        ),
        PackExample("in capitals", "if device.upper() == 'CUDA':\n    f()\n", person=True),
        PackExample("for CUDA's libraries", "os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':4096:8'\n"),
        PackExample("the handle of a stream", "kernel(stream.cuda_stream)\n", person=True),
        PackExample("code in a text", "exec('x = x.cuda()')\n", person=True),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """Whatever the census knows by another name."""
        if site.kind is not Kind.OTHER:
            return None
        known = suggestion(site.text)
        if site.text.lower().startswith(("nvml", "pynvml", "py3nvml", "nvidia_smi")) and _tried(site.node, code):
            return left([site], "asks NVIDIA's driver, in a try: goes on where it is not there", runs_on_xpu=True)
        if known.stays:
            return left([site], known.suggestion, runs_on_xpu=known.runs_on_xpu)
        return person([site], known.suggestion)


def _tried(node: ast.expr, code: Code) -> bool:
    return any(isinstance(parent, ast.Try) for parent, _ in code.above(node))
