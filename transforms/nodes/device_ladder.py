"""A device is chosen in an if statement that asks for CUDA."""

from __future__ import annotations

from patchforge.nodes.code import Code
from patchforge.nodes.shapes import arm_after_mps, arm_behind
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict


class DeviceLadder(Pattern):
    """``if torch.cuda.is_available(): device = "cuda"`` with arms for MPS or the CPU: an XPU takes the last one."""

    id = "pack-device-ladder"
    aliases = ("T2",)
    title = "device chosen in a statement"
    after = ("pack-device-ternary",)
    examples = (
        PackExample(
            "an arm between CUDA's and the others",
            """\
            import torch

            def pick():
                if torch.cuda.is_available():
                    return torch.device("cuda")
                elif torch.backends.mps.is_available():
                    return torch.device("mps")
                return torch.device("cpu")
            """,
            """\
            import torch

            def pick():
                if torch.cuda.is_available():
                    return torch.device("cuda")
                elif hasattr(torch, "xpu") and torch.xpu.is_available():
                    return torch.device("xpu")
                elif torch.backends.mps.is_available():
                    return torch.device("mps")
                return torch.device("cpu")
            """,
        ),
        PackExample(
            "flags of cuDNN do no harm",
            """\
            import torch
            if torch.cuda.is_available():
                device = "cuda"
                torch.backends.cudnn.benchmark = True
            else:
                device = "cpu"
            """,
            """\
            import torch
            if torch.cuda.is_available():
                device = "cuda"
                torch.backends.cudnn.benchmark = True
            elif hasattr(torch, "xpu") and torch.xpu.is_available():
                device = "xpu"
                torch.backends.cudnn.benchmark = True
            else:
                device = "cpu"
            """,
        ),
        PackExample(
            "flags for kernels, as MPS has them",
            """\
            import torch
            if torch.cuda.is_available():
                device = "cuda:0"
                use_cuda_kernel = True
            elif torch.backends.mps.is_available():
                device = "mps"
                use_cuda_kernel = False
            else:
                device = "cpu"
                use_cuda_kernel = False
            """,
            """\
            import torch
            if torch.cuda.is_available():
                device = "cuda:0"
                use_cuda_kernel = True
            elif hasattr(torch, "xpu") and torch.xpu.is_available():
                device = "xpu:0"
                use_cuda_kernel = False
            elif torch.backends.mps.is_available():
                device = "mps"
                use_cuda_kernel = False
            else:
                device = "cpu"
                use_cuda_kernel = False
            """,
        ),
        PackExample(
            "what only CUDA has stays there",
            "import torch\nif torch.cuda.is_available():\n    device = 'cuda'\n    use_cuda_ops = True\n",
            person=True,
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """A call of ``is_available`` in the test of an ``if``."""
        if site.kind is not Kind.AVAILABLE:
            return None
        return arm_behind(site, code, pack.sites, device=True) or arm_after_mps(site, code, pack.sites)
