# ruff: noqa: E501, ARG002 - examples are shown as they are, and every rule is asked alike
"""T19: code that runs only where CUDA is, or refuses to run elsewhere."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from patchforge.nodes.code import Code
from patchforge.nodes.forms import KERNELS, ONLY_CUDA, below, body_of, call_of, leaves, test_around
from patchforge.nodes.words import Decision, Example, Kind, Rule, Site, Surroundings, Verdict, converted, left, person

_HARMLESS = (
    "the same class",
    "works without CUDA",
    "seeds XPUs too",
    "an annotation",
    "only printed",
    "stands beside it",
)


class Availability(Rule):
    """A test for CUDA in front of code that would run on an XPU as well, once its devices are converted.

    The test takes XPUs in when everything behind it is converted. A test that raises or returns does so too, as XPUs
    were refused before. Where CUDA's kernels stand behind it, it stays.
    """

    id = "T19"
    title = "tests for CUDA in front of other code"
    order = 60
    examples = (
        Example(
            "work on the device",
            """\
            import torch
            if torch.cuda.is_available():
                net.cuda()
                for part in parts:
                    part.to("cuda")
            """,
            """\
            import torch
            if (torch.cuda.is_available() or _patchforge_xpu()):
                net.to(_patchforge_device())
                for part in parts:
                    part.to(_patchforge_device())
            """,
        ),
        Example(
            "a refusal",
            'import torch\nif gpu and not torch.cuda.is_available():\n    raise RuntimeError("no GPU")\n',
            'import torch\nif gpu and not (torch.cuda.is_available() or _patchforge_xpu()):\n    raise RuntimeError("no GPU")\n',
        ),
        Example(
            "CUDA's kernels behind it",
            "import torch\nif torch.cuda.is_available():\n    import flash_attn\n    x = x.cuda()\n    y = flash_attn.run(x)\n",
        ),
        Example(
            "a dtype by CUDA",
            "import torch\ndtype = torch.float16 if torch.cuda.is_available() else torch.float32\n",
            person=True,
        ),
        Example(
            "a way back to the CPU",
            'import torch\nif device == "cuda" and not torch.cuda.is_available():\n    device = "cpu"\n',
            person=True,
        ),
        Example(
            "an answer for others",
            "import torch\n\ndef is_cuda_available():\n    return torch.cuda.is_available()\n",
            person=True,
        ),
    )

    def look(self, site: Site, code: Code, around: Surroundings) -> Verdict | None:
        """Only the gate knows."""
        return None

    def gate(self, site: Site, code: Code, around: Surroundings, verdicts: Mapping[Site, Verdict]) -> Verdict | None:
        """A call of ``is_available`` that no arm was added for."""
        if site.kind is not Kind.AVAILABLE:
            return None
        call = call_of(site, code)
        if call is None:
            return person("T19", [site], "ask torch.xpu.is_available as well")
        wide = code.around(call, "(", " or _patchforge_xpu())")
        found = test_around(call, code)
        if found is None:
            return person("T19", [site], _advice(call, code))
        gate, positive = found
        body = body_of(gate)
        if code.mentions([gate.test, *body], KERNELS):
            return left("T19", [site], "CUDA's kernels or settings stand behind it")
        if code.mentions([gate.test, *body], ONLY_CUDA):
            return person("T19", [site], "something here is named after CUDA: see whether an XPU may have it")
        if isinstance(gate, ast.Assert):
            return (
                converted("T19", [site], *wide)
                if positive
                else person("T19", [site], "assert that an XPU is not there either")
            )
        if not positive:
            refuses = isinstance(gate, ast.If) and isinstance(gate.body[-1], ast.Raise)
            return converted("T19", [site], *wide) if refuses else person("T19", [site], _FALLBACK)
        inside = [one for part in body for one in below(part, around.sites)]
        open_ = [one for one in inside if one in verdicts and not _fine(verdicts[one])]
        others = [
            one
            for one in below(gate.test, around.sites)
            if one is not site and one in verdicts and not _fine(verdicts[one])
        ]
        if (
            inside
            and not open_
            and not others
            and any(verdicts[one].decision is Decision.CONVERTED for one in inside if one in verdicts)
        ):
            return converted("T19", [site], *wide)
        if inside and (open_ or others):
            return person("T19", [site], f"decide about line {(open_ or others)[0].line} first, then take XPUs in")
        if isinstance(gate, ast.IfExp) and any(word in code.code(gate) for word in ("float16", "bfloat16", "float32")):
            return person("T19", [site], "an XPU runs in float32 here: choose bfloat16 or float16 for it too")
        if isinstance(gate, ast.If) and leaves(gate.body):
            return person("T19", [site], "say what is returned on an XPU")
        return person("T19", [site], "take XPUs in, if what follows suits them")


def _fine(verdict: Verdict) -> bool:
    return verdict.decision is Decision.CONVERTED or (
        verdict.decision is Decision.LEFT and any(text in verdict.reason for text in _HARMLESS)
    )


def _advice(call: ast.Call, code: Code) -> str:
    parent = code.parent(call)
    if isinstance(parent, ast.Return):
        return "callers may choose CUDA kernels by this answer: look at them, then answer for XPUs too"
    if isinstance(parent, ast.keyword) and parent.arg == "pin_memory":
        return "pinning helps XPUs too: or torch.xpu.is_available()"
    return "follow the answer to its uses, then take XPUs in"


_FALLBACK = "a way back to the CPU: an XPU takes it; take XPUs in once the device before it can be one"
