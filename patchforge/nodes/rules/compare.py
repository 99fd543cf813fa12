# ruff: noqa: E501, ARG002 - examples are shown as they are, and every rule is asked alike
"""T8: code that asks whether a device is CUDA's."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from patchforge.engine.edits import Splice
from patchforge.nodes.code import Code
from patchforge.nodes.forms import KERNELS, below, body_of, names_implementations, test_around
from patchforge.nodes.words import Decision, Example, Kind, Rule, Site, Surroundings, Verdict, converted, left, person

_HOUSEKEEPING = frozenset(
    [
        "empty_cache",
        "synchronize",
        "ipc_collect",
        "collect",
        "soft_empty_cache",
        "reset_peak_memory_stats",
        "set_device",
        "manual_seed",
        "manual_seed_all",
        "cpu",
        "info",
        "debug",
        "warning",
        "print",
        "log",
        "clear",
        "append",
        "autocast",
        "to",
        "cuda",
    ]
)
_ADVICE = 'add XPUs where the answer means "on an accelerator"; leave it where it chooses a CUDA kernel'


class Compare(Rule):
    """``if device.type == "cuda"`` may ask "is it on an accelerator" or "does CUDA's kernel run here".

    Only the first may take XPUs in. It is taken for certain where all that follows is housekeeping: emptying a cache,
    synchronising, seeding, moving, autocast. All else is for a person.
    """

    id = "T8"
    title = "tests of a device"
    order = 25
    examples = (
        Example(
            "housekeeping",
            "import torch\nif device.type == 'cuda':\n    torch.cuda.empty_cache()\n",
            "import torch\nif (device.type == 'cuda' or device.type == \"xpu\"):\n    _patchforge_gpu().empty_cache()\n",
        ),
        Example(
            "the beginning of a string",
            'import torch\nif str(device).startswith("cuda"):\n    torch.cuda.synchronize()\n',
            'import torch\nif str(device).startswith(("cuda", "xpu")):\n    _patchforge_gpu().synchronize()\n',
        ),
        Example(
            "a tensor",
            "import torch\nif x.is_cuda:\n    torch.cuda.synchronize()\n",
            'import torch\nif (x.is_cuda or x.device.type == "xpu"):\n    _patchforge_gpu().synchronize()\n',
        ),
        Example("a dtype for CUDA", "import torch\nif device == 'cuda':\n    dtype = torch.float16\n", person=True),
        Example(
            "a kernel for CUDA",
            "if q.device.type == 'cuda':\n    out = flash_attn_func(q, k, v)\nelse:\n    out = plain(q, k, v)\n",
        ),
        Example("a kernel's input", "assert x.is_cuda, 'the kernel wants CUDA'\n"),
        Example(
            "the other branch is for all",
            "def f(w):\n    if w.is_cuda:\n        buffer = make(w)\n    else:\n        buffer = zeros().to(w.device)\n",
        ),
        Example(
            "the name of an implementation",
            "if prefetch_mode == 'cuda':\n    start()\nassert impl in ['ref', 'cuda']\n",
        ),
        Example("a checkpoint's own string", "if str(node['value']).startswith('cuda'):\n    node.copy()\n"),
    )

    def look(self, site: Site, code: Code, around: Surroundings) -> Verdict | None:
        """Only what can be told without knowing what follows."""
        if not asks(site, code):
            return None
        if site.kind is Kind.LITERAL and names_implementations(site.node, code):
            return left("T8", [site], "the name of an implementation, not a device")
        test = test_around(site.node if site.kind is Kind.IS_CUDA else _question(site, code), code)
        if test is not None and isinstance(test[0], ast.If):
            body = test[0].body
            if any(isinstance(one, ast.Raise) for one in body) and code.mentions([*body, test[0].test], KERNELS):
                return left("T8", [site], "refuses what a CUDA kernel cannot take")
            return None  # the gate decides
        if test is not None and isinstance(test[0], ast.Assert):
            return left("T8", [site], "asserts the input of a CUDA kernel")
        if test is not None and isinstance(test[0], ast.IfExp):
            return None
        return person("T8", [site], _ADVICE)

    def gate(self, site: Site, code: Code, around: Surroundings, verdicts: Mapping[Site, Verdict]) -> Verdict | None:
        """Takes XPUs in where the body is housekeeping that is converted throughout."""
        if not asks(site, code):
            return None
        found = test_around(site.node if site.kind is Kind.IS_CUDA else _question(site, code), code)
        if found is None:
            return person("T8", [site], _ADVICE)
        gate, positive = found
        body = body_of(gate)
        if isinstance(gate, ast.If) and positive and _housekeeping(gate.body):
            inside = [one for part in body for one in below(part, around.sites)]
            if inside and all(verdicts[one].decision is Decision.CONVERTED for one in inside if one in verdicts):
                splices = _widened(site, code)
                if splices:
                    return converted("T8", [site], *splices)
        if code.mentions([gate.test, *body], KERNELS):
            return left("T8", [site], "chooses what only CUDA has")
        if isinstance(gate, ast.If) and gate.orelse and site.kind is Kind.IS_CUDA:
            return left("T8", [site], "the other branch serves every other device")
        return person("T8", [site], _ADVICE)


def asks(site: Site, code: Code) -> bool:
    """Whether a site asks what a device is."""
    return site.kind is Kind.IS_CUDA or (site.kind is Kind.LITERAL and _question(site, code) is not site.node)


def _question(site: Site, code: Code) -> ast.expr:
    """The comparison or ``startswith`` around a device string; the string itself where there is none."""
    for parent, child in code.above(site.node):
        if isinstance(parent, ast.Compare):
            return parent
        if isinstance(parent, ast.Call):
            starts = isinstance(parent.func, ast.Attribute) and parent.func.attr in ("startswith", "find", "count")
            if starts and child in parent.args:
                return parent
            if not (isinstance(parent.func, ast.Attribute) and code.name(parent.func) == "torch.device"):
                break
        elif isinstance(parent, ast.stmt):
            break
    return site.node


def _housekeeping(body: list[ast.stmt]) -> bool:
    return all(map(_tidies, body))


def _tidies(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Pass):
        return True
    if isinstance(statement, ast.With):
        return all(
            isinstance(item.context_expr, ast.Call) and _last(item.context_expr) == "autocast"
            for item in statement.items
        )
    if isinstance(statement, ast.If):
        return _housekeeping(statement.body) and _housekeeping(statement.orelse)
    if isinstance(statement, (ast.Expr, ast.Assign)) and isinstance(statement.value, ast.Call):
        return _last(statement.value) in _HOUSEKEEPING
    return False


def _last(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _widened(site: Site, code: Code) -> tuple[Splice, ...]:
    """The question, also true for XPUs."""
    if site.kind is Kind.IS_CUDA:
        assert isinstance(site.node, ast.Attribute)  # noqa: S101
        owner = code.code(site.node.value)
        return code.around(site.node, "(", f' or {owner}.device.type == "xpu")') if _pure(site.node.value) else ()
    question = _question(site, code)
    if isinstance(question, ast.Call):
        return (
            (code.replace(site.node, '("cuda", "xpu")'),) if site.text == "cuda" and site.node in question.args else ()
        )
    assert isinstance(question, ast.Compare)  # noqa: S101
    return tuple(_compared(question, site, code))


def _compared(question: ast.Compare, site: Site, code: Code) -> Iterator[Splice]:
    if len(question.ops) != 1 or site.text != "cuda" or not isinstance(site.node, ast.Constant):
        return
    other, operator = question.comparators[0], question.ops[0]
    if isinstance(operator, ast.Eq) and other is site.node and _pure(question.left):
        yield from code.around(question, "(", f' or {code.code(question.left)} == "xpu")')
    elif isinstance(operator, ast.In) and question.left is site.node and _pure(other):
        yield from code.around(question, "(", f' or "xpu" in {code.code(other)})')
    elif isinstance(operator, ast.In) and isinstance(other, (ast.List, ast.Tuple, ast.Set)) and site.node in other.elts:
        yield code.splice(code.end(site.node), code.end(site.node), ', "xpu"')


def _pure(node: ast.expr) -> bool:
    """Whether asking twice gives the same: names, attributes, ``str(…)`` and ``torch.device(…)`` of those."""
    if isinstance(node, ast.Name):
        return True
    if isinstance(node, ast.Attribute):
        return _pure(node.value)
    return (
        isinstance(node, ast.Call)
        and _last(node) in ("str", "device", "lower")
        and not node.keywords
        and all(map(_pure, node.args))
        and (isinstance(node.func, ast.Name) or _pure(node.func))
    )
