"""Shapes that several rules share: XPU twins of calls, arms behind CUDA's, what a test guards."""

from __future__ import annotations

import ast
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import takewhile

from patchforge.effort import spend, walk
from patchforge.engine.edits import Splice
from patchforge.engine.syntax import FUNCTIONS, is_and
from patchforge.nodes import kernels as built
from patchforge.nodes.code import Code
from patchforge.nodes.known import NEEDLESS, TWINS
from patchforge.nodes.layout import on_one_line
from patchforge.nodes.owners import of_object
from patchforge.nodes.twins import misfit
from patchforge.pattern import Kind, Site, Verdict, converted

#: Names of what "cuda" is then an implementation of.
IMPLEMENTATION = re.compile(
    r"impl|backend|mode|method|activit|kind$|provider|engine|kernel|platform|quantiz", re.IGNORECASE
)
SIMPLE = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr, ast.Pass)

KERNELS = re.compile(
    r"flash|(?<![a-z])sage|triton|cupy|xformers|tf32|cudnn|kernel(?!_?size)|(?<![a-z])fused|bitsandbytes|bnb|capability|major"
    r"|nvfp4|fp8|inductor|compil|(cuda_?|(?<![a-z]))graph(?!ic)|nccl|tensorrt|apex|deepspeed|aimdo|nvml",
    re.IGNORECASE,
)

#: ... and those that an arm for XPUs may not have; flags of cuDNN do no harm there.
_ONLY_CUDA = re.compile(
    r"flash|(?<![a-z])sage|triton|cupy|xformers|tensorrt|bitsandbytes|nunchaku|capability|[a-z]_cuda|cuda_[a-z]",
    re.IGNORECASE,
)
#: ... but a wish for the GPU, a question for it, and what is noted of a cache.
_PLAIN = re.compile(
    r"(use|to|on|with|is|has)_cuda(_available)?|\w*cuda\w*(clear|cache|free)\w*|(free|total|used|reserved|allocated)_cuda"
    r"|(\w+_)?cuda_((rng_)?states?|mem(ory)?|devices?|ids?|idx|index|count|name|props|stats)",
    re.IGNORECASE,
)

MPS = re.compile(r"(?<![a-z])mps(?![a-z])", re.IGNORECASE)
XPU_ARM = 'hasattr({torch}, "xpu") and {torch}.xpu.is_available()'


def only_cuda(nodes: Sequence[ast.AST], code: Code) -> bool:
    """Whether something in ``nodes`` is named after what only CUDA has, or leads to a kernel of the file."""
    return code.mentions(nodes, _ONLY_CUDA, but=_PLAIN) or built.led_to(nodes, code)


def kernels(nodes: Sequence[ast.AST], code: Code) -> bool:
    """Whether CUDA's kernels or settings are named in ``nodes``, or a kernel of the file is."""
    return code.mentions(nodes, KERNELS) or built.led_to(nodes, code)


def api(site: Site) -> str:
    """``empty_cache`` of ``torch.cuda.empty_cache``."""
    return site.text.removeprefix("torch.cuda").removeprefix(".").removeprefix("memory.").removeprefix("random.")


def xpu_arm(code: Code, asked: ast.expr) -> str:
    """An expression that asks for an XPU where ``asked`` asks for CUDA: of the torch that is read there, if one is.

    Any other name for torch need not be bound there. In an f-string it has no quotes.
    """
    torch = code.torch_in(asked)
    plain = torch and not code.binds("hasattr") and not code.in_string(asked)
    return XPU_ARM.format(torch=torch) if plain else "_patchforge_xpu()"


def below(node: ast.AST, sites: Sequence[Site], code: Code) -> tuple[Site, ...]:
    """The sites in a node, in their order. ``sites``: all of the file."""
    return within(*code.span(node), sites, code)


def within(first: int, last: int, sites: Sequence[Site], code: Code) -> tuple[Site, ...]:
    """The sites in a range of nodes' numbers, in their order. ``sites``: all of the file."""
    numbers, places, _ = code.once(("sites", id(sites)), lambda: _by_number(sites, code))
    inside = sorted(places[bisect_left(numbers, first) : bisect_right(numbers, last)])
    spend(1 + len(inside))
    return tuple(sites[place] for place in inside)


def _by_number(sites: Sequence[Site], code: Code) -> tuple[list[int], list[int], Sequence[Site]]:
    pairs = sorted((code.span(site.node)[0], place) for place, site in enumerate(sites))
    return [number for number, _ in pairs], [place for _, place in pairs], sites


_Change = tuple[int, int, str]


def swapped(node: ast.expr | ast.stmt, sites: Sequence[Site], code: Code, answer: ast.Name | None = None) -> str | None:
    """The node's text on one line, with every device of its in XPU's words; None where one has none.

    ``answer``: a name that holds the answer to whether CUDA is there.
    """
    return code.once(("swapped", node, id(sites), answer), lambda: _swapped(node, sites, code, answer))


def _swapped(node: ast.expr | ast.stmt, sites: Sequence[Site], code: Code, answer: ast.Name | None) -> str | None:
    text, base = code.code(node), code.start(node)
    changes = [(code.start(answer), code.end(answer), xpu_arm(code, answer))] if answer else list[_Change]()
    for site in below(node, sites, code):
        if not (swap := _swap(site, code)):
            return None
        changes += swap
    end, pieces = len(text), list[str]()
    for first, last, new in sorted(changes, reverse=True):
        if last - base > end:  # one in another
            return None
        pieces += [text[last - base : end], new]
        end = first - base
    return on_one_line("".join(reversed([*pieces, text[:end]])), expression=isinstance(node, ast.expr))


def _swap(site: Site, code: Code) -> tuple[_Change, ...]:
    """What makes a site an XPU's; nothing where that is not known."""
    node = site.node
    start, end = code.start(node), code.end(node)
    if site.kind is Kind.LITERAL:
        text = code.code(node)
        if text.lstrip("fFrR")[:1] not in ("'", '"') or "\n" in text or "cuda" not in text:
            return ()
        return ((start, end, text.replace("cuda", "xpu", 1)),)
    if site.kind is Kind.PROVIDER:
        return ((start, end, code.code(node).replace("CUDA", "OpenVINO", 1)),) if _is_plain_provider(site, code) else ()
    if site.kind is Kind.AVAILABLE:
        call = call_of(site, code)
        plain = call is not None and not call.args and not call.keywords
        return ((code.start(call), code.end(call), xpu_arm(code, node)),) if call and plain else ()
    if site.kind is Kind.API and api(site) in TWINS and not misfit(api(site), call_of(site, code), code):
        owners = (owner for owner in _owners(node) if code.name(owner) == "torch.cuda" and owner.attr == "cuda")
        module = next(owners, None)
        return (_last_name(module, "xpu", code),) if module else ()
    if site.kind is Kind.METHOD and isinstance(node, ast.Call) and not node.args and not node.keywords:
        if not of_object(node, code):
            return ()
        return _last_name(node.func, "to", code), (end - 1, end - 1, '"xpu"')
    if site.kind is Kind.BACKEND and not site.text.endswith("sdp_kernel"):
        return ((start, start, ""),)
    return ()


def _is_plain_provider(site: Site, code: Code) -> bool:
    """Whether a provider of ONNX Runtime stands alone or among others: no options of CUDA's, no OpenVINO beside it."""
    parent = code.parent(site.node)
    names = [getattr(element, "value", None) for element in getattr(parent, "elts", ())]
    plain = all(isinstance(name, str) and "OpenVINO" not in name for name in names)
    return plain and site.text != "CUDA" and isinstance(parent, (ast.List, ast.Tuple, ast.Assign, ast.Return))


def _owners(node: ast.expr) -> Iterator[ast.Attribute]:
    """What an attribute is asked of, from the outside in: ``torch.cuda`` and ``torch`` of ``torch.cuda.init``."""
    while isinstance(node, ast.Attribute):
        node = node.value
        if isinstance(node, ast.Attribute):
            yield node


def _last_name(node: ast.expr, name: str, code: Code) -> _Change:
    """``name`` in place of the ``cuda`` that an attribute ends with."""
    end = code.end(node)
    return end - len("cuda"), end, name


def binds(node: ast.expr, code: Code) -> bool:
    """Whether an ``or``, or a choice, in a node's place would need parentheses, or would read better with them."""
    parent = code.parent(node)
    if isinstance(parent, (ast.If, ast.While, ast.Assert, ast.Return, ast.Assign, ast.AnnAssign, ast.keyword)):
        return False
    if isinstance(parent, ast.IfExp):
        return code.field(node) != "test"
    if isinstance(parent, ast.BoolOp):
        return isinstance(parent.op, ast.And)
    return not (isinstance(parent, ast.Call) and code.field(node) == "args")


def elsewhere_on_xpu(node: ast.expr, other: str, code: Code) -> tuple[Splice, ...]:
    """``other if _patchforge_xpu() else node``."""
    closed = isinstance(code.parent(node), (ast.BoolOp, ast.IfExp)) or binds(node, code)
    opened, end = ("(", ")") if closed and not isinstance(code.parent(node), ast.Lambda) else ("", "")
    return code.around(node, f"{opened}{other} if _patchforge_xpu() else ", end)


def conjunct(node: ast.expr, test: ast.expr, code: Code) -> bool:
    """Whether ``node`` is ``test`` or one of the operands of its ``and``."""
    for parent, child in ((node, None), *code.above(node)):
        if parent is test:
            return child is None or isinstance(test, ast.Call) or is_and(test)
        if (isinstance(parent, ast.Call) and parent.func is child) or parent is node:
            continue
        if not is_and(parent):
            return False
    return False


_HARMLESS = frozenset(("hasattr", "getattr", "isinstance", "len", "str", "bool", "int", "callable"))


def repeatable(test: ast.expr, code: Code) -> bool:
    """Whether asking twice asks nobody else: no calls but torch's own ``is_available`` and Python's harmless ones."""
    calls = (node for node in walk(test) if isinstance(node, ast.Call))
    return all(code.name(call.func) in _HARMLESS or _asks_torch(code.name(call.func)) for call in calls)


def _asks_torch(name: str) -> bool:
    return name.startswith("torch.") and name.endswith(".is_available") and not name.startswith(CUDNN)


ASKED = "torch.cuda.is_available"
CUDNN = "torch.backends.cudnn."


def without_cudnn(test: ast.expr, code: Code) -> str | None:
    """An XPU's test beside CUDA's and cuDNN's ``is_available``, joined by ``and``; None for another test."""
    parts = test.values if is_and(test) else []
    names = [code.name(part.func) if isinstance(part, ast.Call) else "" for part in parts]
    if not any(name.startswith(CUDNN) for name in names) or code.name(getattr(parts[0], "func", parts[0])) != ASKED:
        return None
    others = [part for part, name in zip(parts, names, strict=True) if name != ASKED and not name.startswith(CUDNN)]
    if not all(repeatable(part, code) for part in others) or code.mentions(others, KERNELS):
        return None
    said = [code.line(part) for part in others]
    return None if None in said else " and ".join(["_patchforge_xpu()", *filter(None, said)])


def call_of(site: Site, code: Code) -> ast.Call | None:
    """The call of the function that the site names."""
    parent = code.parent(site.node)
    return parent if isinstance(parent, ast.Call) and parent.func is site.node else None


def _branch_on(site: Site, code: Code) -> ast.If | None:
    """The ``if`` whose test is a call of what the site names, alone or beside others."""
    call = code.parent(site.node)
    branch = next((parent for parent, _ in code.above(site.node) if isinstance(parent, ast.stmt)), None)
    asks = isinstance(branch, ast.If) and isinstance(call, ast.Call) and conjunct(call, branch.test, code)
    return branch if asks and isinstance(branch, ast.If) else None


def arm_behind(site: Site, code: Code, sites: Sequence[Site], *, device: bool) -> Verdict | None:
    """An ``elif`` for XPUs behind the ``if`` that asks for CUDA, whose body is short and has XPU twins throughout."""
    if (branch := _branch_on(site, code)) is None:
        return None
    return code.once(("arm", branch, device, id(sites)), lambda: _added_arm(branch, code, sites, device=device))


def _added_arm(branch: ast.If, code: Code, sites: Sequence[Site], *, device: bool) -> Verdict | None:
    if only_cuda([branch.test, *branch.body], code):
        return None
    tests = below(branch.test, sites, code)
    inside = tuple(site for statement in branch.body for site in below(statement, sites, code))
    if any(site.kind is Kind.LITERAL for site in tests) or all(site.kind is Kind.BACKEND for site in inside):
        return None
    if device is not any(site.kind is Kind.LITERAL for site in inside):
        return None
    if not device and any(chooses_half(statement, code) for statement in branch.body):
        return None  # that is an option
    test = without_cudnn(branch.test, code)
    if test is None and repeatable(branch.test, code):
        test = swapped(branch.test, sites, code)
    lines = arm_lines(branch, test, sites, code) if test else None
    return converted({*tests, *inside}, code.arm(branch, lines)) if lines else None


_HALF = frozenset(("torch.float16", "torch.bfloat16", "torch.half"))


def chooses_half(statement: ast.stmt, code: Code) -> bool:
    """``dtype = torch.float16``, ``return torch.bfloat16 if … else torch.float16``."""
    if not isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Return)) or statement.value is None:
        return False
    value = statement.value
    arms = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
    return any(code.name(arm) in _HALF for arm in arms)


def arm_lines(branch: ast.If, test: str, sites: Sequence[Site], code: Code, most: int = 4) -> list[str] | None:
    """A further arm: the body of ``branch`` in XPU's words. None where the body is long, or CUDA's alone."""
    lines: list[str] = []
    for statement in branch.body:
        if not isinstance(statement, SIMPLE):
            return None
        if _needless(statement, code):
            continue
        text = swapped(statement, sites, code)
        if text is None:
            return None
        lines.append(deeper(branch, code) + text)
    if not lines or len(lines) > most:
        return None
    return [f"elif {test}:", *lines]


def deeper(branch: ast.If, code: Code) -> str:
    """What the body of an ``if`` is indented by, in its own white space; four spaces for one on a single line."""
    outer, inner = code.text.indent(branch.lineno - 1), code.text.indent(branch.body[0].lineno - 1)
    plain = "\t" if outer.endswith("\t") else "    "
    return inner[len(outer) :] if len(inner) > len(outer) and inner.startswith(outer) else plain


def arm_after_mps(site: Site, code: Code, sites: Sequence[Site]) -> Verdict | None:
    """An arm for XPUs that sets what MPS's arm sets, with the device of CUDA's: flags for kernels stay off there."""
    if (branch := _branch_on(site, code)) is None:
        return None
    test = swapped(branch.test, sites, code) if repeatable(branch.test, code) else None
    ours, theirs = _assigned(branch.body, code), _assigned(_arm_for_mps(branch, code), code)
    if test is None or not ours or not ours.keys() <= theirs.keys():
        return None
    lines, claimed = [f"elif {test}:"], {site}
    for target, statement in theirs.items():
        named = [
            site
            for site in below(ours.get(target, statement), sites, code)
            if site.kind in (Kind.LITERAL, Kind.PROVIDER)
        ]
        text = swapped(ours[target] if named and target in ours else statement, sites, code)
        if text is None or (not named and (below(statement, sites, code) or code.mentions([statement], MPS))):
            return None
        lines.append(deeper(branch, code) + text)
        claimed |= set(named)
    return converted(claimed, code.arm(branch, lines)) if len(claimed) > 1 else None


def _arm_for_mps(branch: ast.If, code: Code) -> list[ast.stmt]:
    following = branch.orelse
    while len(following) == 1 and isinstance(arm := following[0], ast.If):
        if code.mentions([arm.test], MPS):
            return arm.body
        following = arm.orelse
    return []


def _assigned(body: Sequence[ast.stmt], code: Code) -> dict[str, ast.stmt]:
    """Target → the statement of one line that assigns it; nothing where something else stands there."""
    single = (part for part in body if isinstance(part, ast.Assign) and len(part.targets) == 1)
    assignments: dict[str, ast.stmt] = {code.said(part.targets[0]): part for part in single}
    return assignments if len(assignments) == len(body) else {}


def _needless(statement: ast.stmt, code: Code) -> bool:
    if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)):
        return False
    return code.name(statement.value.func).removeprefix("torch.cuda.") in NEEDLESS


def test_around(node: ast.expr, code: Code) -> tuple[ast.If | ast.IfExp | ast.While | ast.Assert, bool] | None:
    """The ``if`` whose test holds ``node``, and whether the node's truth leads into the body.

    Only ``and``, ``or``, ``not`` and ``== True`` may stand between.
    """
    positive = True
    for parent, child in code.above(node):
        if isinstance(parent, ast.BoolOp) or (isinstance(parent, ast.Call) and parent.func is child):
            continue
        if isinstance(parent, ast.Compare) and (truth := _truth(parent, child)) is not None:
            positive = positive is truth
            continue
        if isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.Not):
            positive = not positive
            continue
        if isinstance(parent, (ast.If, ast.IfExp, ast.While, ast.Assert)) and parent.test is child:
            return parent, positive
        return None
    return None


def _truth(compare: ast.Compare, asked: ast.AST) -> bool | None:
    """Whether ``asked == True`` and the like hold when ``asked`` does; None for another comparison."""
    right, operator = compare.comparators[0], compare.ops[0]
    same = isinstance(operator, (ast.Eq, ast.Is))
    if compare.left is not asked or len(compare.ops) != 1 or not (same or isinstance(operator, (ast.NotEq, ast.IsNot))):
        return None
    return right.value is same if isinstance(right, ast.Constant) and isinstance(right.value, bool) else None


def body_of(gate: object) -> list[ast.AST]:
    """What runs where a test holds; nothing for an assertion."""
    body = getattr(gate, "body", [])
    return list(body) if isinstance(body, list) else [body]


def names_implementations(node: ast.expr, code: Code) -> bool:
    """Whether a string is one of several implementations: by its neighbours, or by the name of what holds them."""
    for parent, child in code.above(node):
        if isinstance(parent, (ast.List, ast.Tuple, ast.Set)):
            if code.once(("implementations", parent), lambda: _lists_implementations(parent)):  # noqa: B023
                return True
        elif isinstance(parent, ast.Compare):
            return bool(IMPLEMENTATION.search(code.said(parent.left).rpartition(".")[2]))
        elif isinstance(parent, ast.keyword):
            return bool(IMPLEMENTATION.search(parent.arg or ""))
        elif isinstance(parent, (ast.Assign, ast.AnnAssign)):
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            return child is parent.value and any(
                IMPLEMENTATION.search(code.said(target).rpartition(".")[2]) for target in targets
            )
        elif isinstance(parent, (ast.stmt, ast.Call, ast.Dict)):
            return False
    return False


def _lists_implementations(parent: ast.List | ast.Tuple | ast.Set) -> bool:
    values = {element.value for element in parent.elts if isinstance(element, ast.Constant)}
    return bool(values & {"ref", "triton", "native", "torch", "cudnn", "cutlass"})


def is_key_of_devices(node: ast.expr, code: Code) -> bool:
    """``{"cuda": torch.device("cuda"), …}[choice]``: an XPU's user says "cuda" too, and gets the device in use."""
    table = code.parent(node)
    keys = isinstance(table, ast.Dict) and code.field(node) == "keys" and isinstance(code.parent(table), ast.Subscript)
    if not keys or not isinstance(table, ast.Dict):
        return False
    value = device_of(table.values[code.index(node)], code)
    return isinstance(node, ast.Constant) and isinstance(value, ast.Constant) and value.value == node.value


def device_of(node: ast.expr, code: Code) -> ast.expr:
    """What ``torch.device`` is given; anything else as it is."""
    made = isinstance(node, ast.Call) and node.args and code.name(node.func) == "torch.device"
    return node.args[0] if made and isinstance(node, ast.Call) else node


_LAYERS = re.compile(r"gpu_layers$")  #: of llama.cpp, which ignores them where it was built without a GPU's back end


def for_any_gpu(chosen: ast.IfExp, code: Code) -> bool:
    """Whether what a test chooses suits every accelerator: torch's own attention, or llama.cpp's layers on the GPU."""
    if isinstance(chosen.body, ast.Constant) and chosen.body.value == "sdpa":
        return True
    parent = code.parent(chosen)
    targets = parent.targets if isinstance(parent, ast.Assign) else []
    return any(_LAYERS.search(name) for name in (*map(code.said, targets), getattr(parent, "arg", None) or ""))


def leaves(body: Sequence[ast.stmt]) -> bool:
    """Whether a block never reaches its end."""
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))


def keyword_of(node: ast.expr, code: Code) -> tuple[str, ast.Call | None]:
    """The keyword that an expression is the value of, and the call; ("", call) for a positional argument."""
    parent = code.parent(node)
    if isinstance(parent, ast.keyword):
        call = code.parent(parent)
        return parent.arg or "", call if isinstance(call, ast.Call) else None
    if isinstance(parent, ast.Call) and parent.func is not node:
        return "", parent
    return "", None


def device_text(value: str) -> str:
    """An expression for the device string ``value`` ("cuda", "cuda:0", "cuda:" before a number)."""
    _, colon, index = value.partition(":")
    if not colon:
        return "_patchforge_device()"
    return f"_patchforge_device({int(index)})" if index.isdecimal() else f'(_patchforge_device() + ":{index}")'


_FORMATTED = re.compile(r"[fFrR]+(\"\"\"|'''|\"|')cuda")


def formatted_device(node: ast.JoinedStr, code: Code) -> Splice | None:
    """The device in use at the beginning of ``f"cuda:{i}"``."""
    match = _FORMATTED.match(code.source.text, code.start(node))
    return code.splice(match.end() - 4, match.end(), "{_patchforge_device()}") if match else None


def is_default(node: ast.expr, code: Code) -> bool:
    """Whether an expression is (a part of) a parameter's default."""
    around = (parent for parent, _ in code.above(node))
    inside = takewhile(lambda parent: not isinstance(parent, ast.stmt), around)
    return any(isinstance(parent, ast.arguments) for parent in inside)


def is_annotation(node: ast.expr, code: Code) -> bool:
    """Whether an expression is (a part of) an annotation."""
    for parent, child in code.above(node):
        if isinstance(parent, (ast.arg, ast.AnnAssign)) and parent.annotation is child:
            return True
        if isinstance(parent, FUNCTIONS):
            return parent.returns is child
        if isinstance(parent, ast.stmt):
            return False
    return False


def reads_of_only_name(assign: ast.AST | None, code: Code) -> list[ast.Name]:
    """Where the one name that a statement assigns is read; nothing where it is given other values, too."""
    target = assign.targets[0] if isinstance(assign, ast.Assign) and len(assign.targets) == 1 else None
    same = code.named(target.id, code.scope(target)) if isinstance(target, ast.Name) else []
    stores = sum(isinstance(node.ctx, ast.Store) for node in same)
    return [node for node in same if isinstance(node.ctx, ast.Load)] if stores == 1 else []
