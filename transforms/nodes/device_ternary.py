"""A device is chosen by asking for CUDA and taking the CPU otherwise."""

from __future__ import annotations

import ast
import re

from patchforge.effort import spend
from patchforge.nodes.code import Code
from patchforge.nodes.shapes import below, conjunct, reads_of_only_name, repeatable, swapped, without_cudnn, xpu_arm
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, converted

_XPU = re.compile("xpu")


class DeviceTernary(Pattern):
    """``"cuda" if torch.cuda.is_available() else "cpu"`` runs on the CPU beside an XPU, and nothing says so.

    An XPU arm goes behind CUDA's and before all others. A string stays a string, an index stays. A name that holds the
    answer of ``is_available`` is followed to its uses.
    """

    id = "pack-device-ternary"
    aliases = ("T1",)
    title = "device chosen in an expression"
    examples = (
        PackExample(
            "an arm behind CUDA's",
            """\
            import torch
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
            """,
            """\
            import torch
            device = "cuda:0" if torch.cuda.is_available() else "xpu:0" if hasattr(torch, "xpu") and torch.xpu.is_available() else "cpu"
            """,
        ),
        PackExample(
            "before the arm of MPS, and with further conditions",
            """\
            import torch
            device = torch.device('cuda' if torch.cuda.is_available() and gpu else 'mps' if torch.backends.mps.is_available() else 'cpu')
            """,
            """\
            import torch
            device = torch.device('cuda' if torch.cuda.is_available() and gpu else 'xpu' if hasattr(torch, "xpu") and torch.xpu.is_available() and gpu else 'mps' if torch.backends.mps.is_available() else 'cpu')
            """,
        ),
        PackExample(
            "cuDNN is CUDA's own question",
            """\
            import torch
            device = "cuda" if torch.cuda.is_available() and torch.backends.cudnn.is_available() else "cpu"
            """,
            """\
            import torch
            device = "cuda" if torch.cuda.is_available() and torch.backends.cudnn.is_available() else "xpu" if _patchforge_xpu() else "cpu"
            """,
        ),
        PackExample(
            "a further question is asked once",
            """\
            import os, torch
            device = "cuda" if torch.cuda.is_available() and os.environ.get("X") else "cpu"
            """,
            """\
            import os, torch
            device = _patchforge_device() if (torch.cuda.is_available() or _patchforge_xpu()) and os.environ.get("X") else "cpu"
            """,
        ),
        PackExample(
            "in an f-string, without its quotes",
            """\
            import torch
            device = f"{'cuda' if torch.cuda.is_available() else 'cpu'}"
            """,
            """\
            import torch
            device = f"{'cuda' if torch.cuda.is_available() else 'xpu' if _patchforge_xpu() else 'cpu'}"
            """,
        ),
        PackExample(
            "the CPU first",
            """\
            import torch
            device = "cpu" if not torch.cuda.is_available() else "cuda"
            """,
            """\
            import torch
            device = "xpu" if not torch.cuda.is_available() and hasattr(torch, "xpu") and torch.xpu.is_available() else "cpu" if not torch.cuda.is_available() else "cuda"
            """,
        ),
        PackExample(
            "through a name",
            """\
            import torch

            def pick():
                use_cuda = torch.cuda.is_available()
                return torch.device("cuda" if use_cuda else "cpu")
            """,
            """\
            import torch

            def pick():
                use_cuda = torch.cuda.is_available()
                return torch.device("cuda" if use_cuda else "xpu" if _patchforge_xpu() else "cpu")
            """,
        ),
        PackExample(
            "by the name that torch has there",
            """\
            def pick():
                import torch as th
                return "cuda" if th.cuda.is_available() else "cpu"

            def other():
                from torch import cuda
                return "cuda" if cuda.is_available() else "cpu"

            def run():
                import torch
                return torch.zeros(1)
            """,
            """\
            def pick():
                import torch as th
                return "cuda" if th.cuda.is_available() else "xpu" if hasattr(th, "xpu") and th.xpu.is_available() else "cpu"

            def other():
                from torch import cuda
                return "cuda" if cuda.is_available() else "xpu" if _patchforge_xpu() else "cpu"

            def run():
                import torch
                return torch.zeros(1)
            """,
        ),
        PackExample(
            "where hasattr is something else",
            """\
            import torch

            def pick(hasattr=None):
                return "cuda" if torch.cuda.is_available() else "cpu"
            """,
            """\
            import torch

            def pick(hasattr=None):
                return "cuda" if torch.cuda.is_available() else "xpu" if _patchforge_xpu() else "cpu"
            """,
        ),
        PackExample(
            "an XPU that the author has thought of",
            'import torch\ndevice = "cuda" if torch.cuda.is_available() else "xpu" if torch.xpu.is_available() else "cpu"\n',
        ),
        PackExample(
            "an XPU before CUDA stays the author's choice",
            'import torch\ndevice = "xpu" if torch.xpu.is_available() else "cuda" if torch.cuda.is_available() else "cpu"\n',
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """A call of ``is_available``."""
        if site.kind is not Kind.AVAILABLE:
            return None
        call = code.parent(site.node)
        if not isinstance(call, ast.Call):
            return None
        sites = pack.sites
        verdict = _arm(site, call, code, sites) or _inverted(site, call, code, sites)
        return verdict or _through_name(site, call, code, sites)


def _arm(site: Site, asked: ast.expr, code: Code, sites: tuple[Site, ...]) -> Verdict | None:
    for parent, _ in code.above(asked):
        if isinstance(parent, ast.IfExp):
            if not conjunct(asked, parent.test, code) or code.mentions([parent], _XPU):
                return None
            prefix = _prefix(parent, asked, code, sites)
            inside = below(parent.body, sites, code)
            if prefix is None:
                return None
            at = code.start(parent.orelse)
            tests = below(parent.test, sites, code)
            return converted({site, *inside, *tests}, code.splice(at, at, prefix))
        if isinstance(parent, ast.stmt):
            return None
    return None


def _prefix(choice: ast.IfExp, asked: ast.expr, code: Code, sites: tuple[Site, ...]) -> str | None:
    inside = below(choice.body, sites, code)
    if not any(inner.kind is Kind.LITERAL for inner in inside) or any(
        inner.kind is Kind.LITERAL for inner in below(choice.test, sites, code)
    ):
        return None
    value = swapped(choice.body, sites, code)
    if value is not None and (plain := without_cudnn(choice.test, code)) is not None:
        return f"{value} if {plain} else "
    if not repeatable(choice.test, code):
        return None
    test = swapped(choice.test, sites, code, asked if isinstance(asked, ast.Name) else None)
    return None if value is None or test is None else f"{value} if {test} else "


def _inverted(site: Site, asked: ast.expr, code: Code, sites: tuple[Site, ...]) -> Verdict | None:
    negation = code.parent(asked)
    choice = code.parent(negation) if negation else None
    if not (isinstance(negation, ast.UnaryOp) and isinstance(negation.op, ast.Not)):
        return None
    if not (isinstance(choice, ast.IfExp) and choice.test is negation):
        return None
    inside = below(choice.orelse, sites, code)
    value, asking = swapped(choice.orelse, sites, code), code.line(negation)
    if value is None or not any(inner.kind is Kind.LITERAL for inner in inside) or below(choice.body, sites, code):
        return None
    at = code.start(choice)
    prefix = f"{value} if {asking} and {xpu_arm(code, site.node)} else "
    return converted((site, *inside), code.splice(at, at, prefix))


def _through_name(site: Site, call: ast.Call, code: Code, sites: tuple[Site, ...]) -> Verdict | None:
    uses = reads_of_only_name(code.parent(call), code)
    if uses and code.scope(call) is code.tree and _is_elsewhere(uses[0].id, code):
        return None
    verdicts = [_arm(site, use, code, sites) for use in uses]
    if not verdicts or not all(verdicts):
        return None
    arms = [verdict for verdict in verdicts if verdict]
    claimed = {place for verdict in arms for place in verdict.sites}
    return converted(claimed, *(splice for verdict in arms for splice in verdict.splices))


def _is_elsewhere(name: str, code: Code) -> bool:
    """Whether a file uses a name for something else too: a parameter, an attribute, a word in a string."""
    return code.once(("elsewhere", name), lambda: _says(name, code))


def _says(name: str, code: Code) -> bool:
    spend(len(code.nodes))
    texts = (getattr(node, field, "") for node in code.nodes for field in ("arg", "attr", "value", "name", "asname"))
    declared = (word for node in code.nodes if isinstance(node, (ast.Global, ast.Nonlocal)) for word in node.names)
    return any(isinstance(text, str) and name in text for text in (*texts, *declared))
