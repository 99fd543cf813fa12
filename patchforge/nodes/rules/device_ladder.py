"""T2: a device is chosen in an if statement that asks for CUDA."""

from __future__ import annotations

import ast

from patchforge.nodes.code import Code
from patchforge.nodes.forms import arm_lines, below, conjunct, only_cuda, swapped
from patchforge.nodes.words import Example, Kind, Rule, Site, Surroundings, Verdict, converted


def arm_behind(rule: str, site: Site, code: Code, sites: tuple[Site, ...], *, device: bool) -> Verdict | None:
    """An ``elif`` for XPUs behind the ``if`` that asks for CUDA, whose body is short and has XPU twins throughout."""
    call = code.parent(site.node)
    branch = next((parent for parent, _ in code.above(site.node) if isinstance(parent, ast.stmt)), None)
    if not isinstance(branch, ast.If) or not isinstance(call, ast.Call) or not conjunct(call, branch.test, code):
        return None
    return code.once(("arm", rule, branch, id(sites)), lambda: _arm(rule, branch, code, sites, device=device))


def _arm(rule: str, branch: ast.If, code: Code, sites: tuple[Site, ...], *, device: bool) -> Verdict | None:
    if only_cuda([branch.test, *branch.body], code):
        return None
    tests = below(branch.test, sites, code)
    inside = tuple(one for statement in branch.body for one in below(statement, sites, code))
    if any(one.kind is Kind.LITERAL for one in tests) or not inside:
        return None
    if device is not any(one.kind is Kind.LITERAL for one in inside):
        return None
    test = swapped(branch.test, sites, code)
    lines = arm_lines(branch, test, sites, code) if test and "\n" not in test else None
    return converted(rule, {*tests, *inside}, code.arm(branch, lines)) if lines else None


class DeviceLadder(Rule):
    """``if torch.cuda.is_available(): device = "cuda"`` with arms for MPS or the CPU: an XPU takes the last one."""

    id = "T2"
    title = "device chosen in a statement"
    order = 11
    examples = (
        Example(
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
        Example(
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
        Example(
            "what only CUDA has stays there",
            "import torch\nif torch.cuda.is_available():\n    device = 'cuda'\n    use_cuda_ops = True\n",
            person=True,
        ),
    )

    def look(self, site: Site, code: Code, around: Surroundings) -> Verdict | None:
        """A call of ``is_available`` in the test of an ``if``."""
        return arm_behind("T2", site, code, around.sites, device=True) if site.kind is Kind.AVAILABLE else None
