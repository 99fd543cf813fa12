"""Questions for CUDA: what asks, what the answer decides, what runs behind it, and how a question takes XPUs in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from patchforge.effort import spend, walk
from patchforge.engine.edits import Splice
from patchforge.engine.syntax import by_position, dotted, is_and, last_name, parameters
from patchforge.nodes.code import Code
from patchforge.nodes.cuts import cut
from patchforge.nodes.shapes import (
    ASKED,
    MPS,
    below,
    binds,
    body_of,
    call_of,
    kernels,
    keyword_of,
    leaves,
    only_cuda,
    test_around,
    within,
)
from patchforge.pattern import Kind, PackFacts, Site, Verdict
from patchforge.vocabulary import Decision


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """``torch.cuda.is_available() and f()`` as a statement: what stands behind it is the other operands."""

    node: ast.BoolOp
    test: ast.expr
    body: list[ast.expr]


Gate = ast.If | ast.IfExp | ast.While | ast.Assert | Operands

_SAYS = frozenset(("print", "warn", "warning", "info", "debug", "error", "log"))
_GPU = re.compile(r"gpu|cuda|accelerat", re.IGNORECASE)


def question(site: Site, code: Code) -> ast.expr | None:
    """The expression that asks: a call, ``.is_cuda``, or the comparison around a device string."""
    if site.kind in (Kind.AVAILABLE, Kind.OWN_QUESTION):
        return call_of(site, code)
    if site.kind is Kind.IS_CUDA:
        return site.node
    return _comparison(site, code) if site.kind is Kind.LITERAL else None


def presence(site: Site, code: Code) -> ast.expr | None:
    """What asks whether CUDA is there without saying so: a number of devices, a version, compared with nothing."""
    whole = call_of(site, code) if site.kind is Kind.API else site.node if site.kind is Kind.BUILD else None
    if whole is None:
        return None
    around = code.parent(whole)
    if isinstance(around, ast.Call) and getattr(around.func, "id", "") == "bool":
        whole, around = around, code.parent(around)
    return around if isinstance(around, ast.Compare) and around.left is whole else whole


def holds_for_none(asked: ast.expr) -> bool:
    """Whether a comparison with a number, or with None, is true of 0 and of None: ``== 0``, ``< 1``, ``is None``."""
    if not isinstance(asked, ast.Compare) or len(asked.ops) != 1 or not isinstance(asked.comparators[0], ast.Constant):
        return False
    operator, value = asked.ops[0], asked.comparators[0].value
    if isinstance(operator, (ast.Eq, ast.Is)):
        return not value
    return isinstance(value, int) and (
        (isinstance(operator, ast.Lt) and value > 0) or (isinstance(operator, ast.LtE) and value >= 0)
    )


def asks(site: Site, code: Code) -> bool:
    """Whether a site asks what a device is."""
    return site.kind in (Kind.IS_CUDA, Kind.LITERAL) and question(site, code) is not None


def _comparison(site: Site, code: Code) -> ast.expr | None:
    for parent, child in code.above(site.node):
        if isinstance(parent, ast.Compare):
            return parent
        if isinstance(parent, ast.Call):
            if last_name(parent) in ("startswith", "find", "count") and code.field(child) == "args":
                return parent
            if code.name(parent.func) != "torch.device":
                return None
        elif isinstance(parent, ast.stmt):
            return None
    return None


def decisions(asked: ast.expr, code: Code, pack: PackFacts | None = None) -> list[tuple[Gate, bool]]:
    """The tests that the answer decides, each with whether a yes leads into the body.

    The answer may have a name of its own in the function, and be passed on to a function of the same file. With
    ``pack`` it may be a flag, too. Nothing where it goes anywhere else.
    """
    no = isinstance(asked, ast.Compare) and isinstance(asked.ops[0], (ast.NotEq, ast.NotIn))
    if isinstance(asked, ast.Compare) and isinstance(asked.comparators[0], ast.Constant) and not _is_text(asked):
        no = holds_for_none(asked)
    if (test := test_around(asked, code)) is not None:
        return [(test[0], test[1] is not no)]
    if (both := operands(asked, code)) is not None and isinstance(code.parent(both.node), ast.Expr):
        return [(both, not no)]
    name = None if no else _named(asked, code)
    if name is not None and pack is not None and (kept := flag(asked, code, pack)) is not None:
        tests = [test_around(read, code) for read in kept.reads if not says(code.statement(read))]
        return [test for test in tests if test is not None] if all(tests) else []
    uses = _uses(name, code) if isinstance(name, ast.Name) else []
    return [use for use in uses if use is not None] if all(uses) else []


def _is_text(asked: ast.Compare) -> bool:
    """Whether a device's name is compared, and not a number."""
    return isinstance(getattr(asked.comparators[0], "value", None), str) or isinstance(asked.left, ast.Constant)


def operands(asked: ast.expr, code: Code) -> Operands | None:
    """What is only evaluated where the answer is yes, in an ``and`` whose operand it is."""
    both = code.parent(asked)
    if not is_and(both):
        return None
    rest = both.values[both.values.index(asked) + 1 :]
    return Operands(both, asked, rest) if rest else None


def _named(asked: ast.expr, code: Code) -> ast.Name | ast.Attribute | None:
    """The name, or the attribute of ``self``, that is given the answer, alone or among others."""
    for parent, child in code.above(asked):
        if isinstance(parent, ast.BoolOp) or _is_bool(parent, child):
            continue
        target = parent.targets[0] if isinstance(parent, ast.Assign) and len(parent.targets) == 1 else None
        return target if isinstance(target, ast.Name) or _of_self(target) else None
    return None


def _of_self(node: ast.AST | None) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


@dataclass(frozen=True, slots=True)
class Flag:
    """An answer that outlives its function: an attribute of ``self``, or a name of the module."""

    answers: tuple[ast.expr, ...]  #: what it is given, but for constants
    reads: tuple[ast.Name | ast.Attribute, ...]


def flag(asked: ast.expr, code: Code, pack: PackFacts) -> Flag | None:
    """The flag that keeps an answer. None where anything else writes it, or another file of the pack may read it."""
    name = _named(asked, code)
    if isinstance(name, ast.Attribute):
        return code.once(("flag", name.attr), lambda: _flag(name.attr, _attributes(name.attr, code), code, pack))
    if name is not None and code.scope(name) is code.tree and not _in_class(name, code):
        return code.once(
            ("flag of the module", name.id), lambda: _flag(name.id, code.named(name.id, code.tree), code, pack)
        )
    return None


def _in_class(node: ast.AST, code: Code) -> bool:
    return any(isinstance(parent, ast.ClassDef) for parent, _ in code.above(node))


def _attributes(name: str, code: Code) -> list[ast.Attribute]:
    """Every ``x.name`` of the file; ``x.is_cuda`` only of ``self``, as any other x is a tensor."""
    return [node for node in code.attributes(name) if name != "is_cuda" or _of_self(node)]


def _flag(name: str, uses: Sequence[ast.Name | ast.Attribute], code: Code, pack: PackFacts) -> Flag | None:
    stores = [code.parent(use) for use in uses if not isinstance(use.ctx, ast.Load)]
    given = [store.value for store in stores if isinstance(store, ast.Assign) and len(store.targets) == 1]
    answers = [value for value in given if not (isinstance(value, ast.Constant) and not value.value)]
    reads = [use for use in uses if isinstance(use.ctx, ast.Load)]
    plain = all(isinstance(use, ast.Name) or _of_self(use) for use in uses)
    by_text = any(isinstance(node, ast.Constant) and node.value == name for node in code.nodes)
    cudas = all(any(code.name(part) == ASKED for part in walk(answer)) for answer in answers)
    if not (plain and cudas) or by_text or len(given) < len(stores) or pack.elsewhere(name, code.path):
        return None
    return Flag(tuple(answers), tuple(reads))


def _is_bool(parent: ast.AST, child: ast.AST) -> bool:
    return isinstance(parent, ast.Call) and getattr(parent.func, "id", "") == "bool" and child in parent.args


def _uses(name: ast.Name, code: Code) -> list[tuple[Gate, bool] | None]:
    scope = code.scope(name)
    if scope is code.tree:  # others may import it
        return [None]
    value = code.statement(name)
    return [test for use in _reads(name.id, scope, code, value) for test in (_decided(use, code) if use else [None])]


def _reads(name: str, scope: ast.AST, code: Code, but: ast.AST | None = None) -> Iterator[ast.Name | None]:
    """Every place that reads a name; None for one that stores it."""
    for node in code.named(name, scope):
        if but is None or not code.holds(but, node):
            yield node if isinstance(node.ctx, ast.Load) else None


def _decided(use: ast.Name, code: Code) -> list[tuple[Gate, bool] | None]:
    if (test := test_around(use, code)) is not None:
        return [test]
    keyword, call = keyword_of(use, code)
    if call is None:
        return [None]
    functions = code.functions.get(last_name(call), [])
    name = given_parameter(functions[0], call, keyword, use) if len(functions) == 1 else ""
    if not name:
        return [None]
    return [test_around(read, code) if read else None for read in _reads(name, functions[0], code)]


def given_parameter(function: ast.FunctionDef, call: ast.Call, keyword: str, use: ast.expr) -> str:
    """The parameter that an argument of a call is for; "" where that is not known."""
    names = by_position(function, bound=isinstance(call.func, ast.Attribute) or function.name == "__init__")
    spend(1 + len(names) + len(call.args))
    if keyword:
        return keyword if keyword in parameters(function) else ""
    if any(isinstance(argument, ast.Starred) for argument in call.args):
        return ""
    at = call.args.index(use)
    return names[at] if at < len(names) else ""


@dataclass(frozen=True, slots=True)
class Handed:
    """An argument of a call of something that the file does not define: by its keyword, or its place."""

    called: str
    keyword: str
    place: int


@dataclass(slots=True)
class Along:
    """Where a parameter goes: what is asked about it, where it is read, what leaves the file."""

    asked: set[Site]
    reads: list[ast.Name]
    handed: list[Handed]


def along(function: ast.FunctionDef, name: str, sites: Sequence[Site], code: Code) -> Along:
    """Follows a parameter through a function, attributes that keep it, and functions of the file that get it."""
    todo, seen = [(function, name)], set[tuple[ast.FunctionDef, str]]()
    route = Along(set(), [], [])
    while todo:
        parameter = scope, own = todo.pop()
        if parameter in seen:
            continue
        seen.add(parameter)
        asking = [(site, question(site, code)) for site in below(scope, sites, code) if asks(site, code)]
        for read in _reads(own, scope, code):
            if read is None:
                continue
            route.reads.append(read)
            route.asked |= {site for site, asked in asking if asked is not None and code.holds(asked, read)}
            outer = _shown(read, code)
            route.asked |= _asked_of_attribute(outer, sites, code)
            keyword, call = keyword_of(outer, code)
            if call is None or any(isinstance(argument, ast.Starred) for argument in call.args):
                continue
            if (definition := only_definition(last_name(call), code)) is not None:
                if given := given_parameter(definition, call, keyword, outer):
                    todo.append((definition, given))
            else:
                route.handed.append(Handed(last_name(call), keyword, 0 if keyword else call.args.index(outer)))
    return route


def only_definition(name: str, code: Code) -> ast.FunctionDef | None:
    """The only function of a name in the file, or the constructor of the only class."""
    definitions = code.definitions(name)
    return definitions[0] if len(definitions) == 1 else None


def _asked_of_attribute(value: ast.expr, sites: Sequence[Site], code: Code) -> set[Site]:
    """What is asked of ``self.device`` where it is given the value."""
    assign = code.parent(value)
    if not isinstance(assign, ast.Assign) or not isinstance(assign.targets[0], ast.Attribute):
        return set()
    kept = dotted(assign.targets[0])
    owner = next((parent for parent, _ in code.above(assign) if isinstance(parent, ast.ClassDef)), code.tree)
    asking = [(site, question(site, code)) for site in below(owner, sites, code) if asks(site, code)]
    return {site for site, asked in asking if asked is not None and any(dotted(part) == kept for part in walk(asked))}


def ready(code: Code, handed: Handed, sites: Sequence[Site], verdicts: Mapping[Site, Verdict]) -> bool:
    """Whether what a file of the pack does with an argument is ready for an XPU; also where it has no such function."""
    definition = only_definition(handed.called, code)
    if definition is None:
        return True
    names = by_position(definition)
    name = handed.keyword or (names[handed.place] if handed.place < len(names) else "")
    route = along(definition, name, sites, code)
    looked_up = any(isinstance(code.parent(read), ast.Subscript) for read in route.reads)
    return not looked_up and all(verdicts[site].runs_on_xpu for site in route.asked if site in verdicts)


def _shown(node: ast.expr, code: Code) -> ast.expr:
    """``str(x)`` and the like around ``x``."""
    parent = code.parent(node)
    if (
        isinstance(parent, ast.Call)
        and node in parent.args
        and last_name(parent) in ("str", "device", "_patchforge_choice")
    ):
        return parent
    return node


def following(statement: ast.stmt, code: Code) -> list[ast.stmt]:
    """The statements behind one in its block."""
    block = code.block(statement)
    spend(1 + len(block) // 8)
    return block[code.index(statement) + 1 :] if block else []


def preceding(statement: ast.stmt, code: Code) -> list[ast.stmt]:
    """The statements before one in its block."""
    block = code.block(statement)
    spend(1 + len(block) // 8)
    return block[: code.index(statement)] if block else []


def guarded(gate: Gate, code: Code, *, positive: bool) -> list[ast.AST]:
    """What runs where the answer is yes: a branch, or what follows a test that leaves the block on a no."""
    if isinstance(gate, ast.Assert):
        return list(following(gate, code)) if positive else []
    if positive:
        return body_of(gate)
    other = getattr(gate, "orelse", [])
    if other:
        return list(other) if isinstance(other, list) else [other]
    return list(following(gate, code)) if isinstance(gate, ast.If) and leaves(gate.body) else []


@dataclass(frozen=True, slots=True)
class Behind:
    """What stands behind the tests that an answer decides."""

    near: tuple[ast.AST, ...]  #: tests and bodies
    guarded: tuple[ast.AST, ...]  #: what runs where the answer is yes
    converted: tuple[Site, ...]  #: in ``guarded``
    open: tuple[Site, ...]  #: in ``guarded``: neither converted nor harmless
    beside: tuple[Site, ...]  #: in the tests: neither converted nor harmless

    def kernels(self, code: Code) -> bool:
        """Whether CUDA's kernels or settings are named near."""
        return kernels(self.near, code)

    def suits(self, code: Code) -> bool:
        """Whether all that is guarded is converted, and there is something."""
        return bool(self.converted) and not self.open and not self.kernels(code) and not only_cuda(self.near, code)


def behind(
    gates: Sequence[tuple[Gate, bool]],
    asking: Sequence[Site],
    sites: Sequence[Site],
    verdicts: Mapping[Site, Verdict],
    code: Code,
) -> Behind:
    """What stands behind the tests of the ``asking`` sites, with what was decided about it so far."""
    near = [part for gate, _ in gates for part in (gate.test, *body_of(gate))]
    blocks = [block for gate, positive in gates if (block := guarded(gate, code, positive=positive))]
    parts = [part for block in blocks for part in block]
    spend(len(near) + len(parts) // 4)
    ranges = [(code.span(block[0])[0], code.span(block[-1])[1]) for block in blocks]  # neighbours
    inside = dict.fromkeys(site for first, last in ranges for site in within(first, last, sites, code))
    beside = dict.fromkeys(site for gate, _ in gates for site in below(gate.test, sites, code))
    for site in asking:
        beside.pop(site, None)
    return Behind(
        tuple(near),
        tuple(parts),
        tuple(site for site in inside if site in verdicts and verdicts[site].decision is Decision.CONVERTED),
        _closed_to_xpus(inside, verdicts),
        tuple(site for site in _closed_to_xpus(beside, verdicts) if site in verdicts),
    )


def _closed_to_xpus(sites: Iterable[Site], verdicts: Mapping[Site, Verdict]) -> tuple[Site, ...]:
    return tuple(site for site in sites if site not in verdicts or not verdicts[site].runs_on_xpu)


def counts_mps(asked: ast.expr, code: Code) -> bool:
    """Whether a question takes in MPS beside CUDA: it means "on an accelerator"."""
    either = code.parent(asked)
    if isinstance(either, ast.BoolOp) and isinstance(either.op, ast.Or):
        return code.mentions([either], MPS)
    several = isinstance(asked, ast.Compare) and isinstance(asked.ops[0], (ast.In, ast.NotIn))
    return several and code.mentions([asked], MPS)


def requested(asked: ast.expr, code: Code) -> bool:
    """``use_gpu and torch.cuda.is_available()``: the GPU was asked for."""
    both = code.parent(asked)
    return is_and(both) and code.once(("gpu", both), lambda: any(map(_named_gpu, both.values)))


def _named_gpu(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and bool(_GPU.search(node.id))


def widened(site: Site, code: Code) -> tuple[Splice, ...]:
    """Edits after which a question is answered with yes on an XPU too; none where its form is not known."""
    asked = question(site, code)
    if asked is None or (site.kind is Kind.LITERAL and any(cut(part, code) is not None for part in walk(asked))):
        return ()
    if site.kind is Kind.AVAILABLE:
        return either(asked, "_patchforge_xpu()", code)
    if isinstance(asked, ast.Attribute) and code.binds("getattr"):
        return ()
    if isinstance(asked, ast.Attribute) and not _pure(asked.value):  # asked once, by the name that can hold
        owner = asked.value
        asked_of = code.splice(
            code.enclosed(owner)[1], code.end(asked), ', "is_xpu" if _patchforge_xpu() else "is_cuda")'
        )
        return (code.precede(owner, "getattr("), asked_of)
    if isinstance(asked, ast.Attribute):
        xpu = f'getattr({code.code(asked.value)}, "is_xpu", False)' if _pure(asked.value) else ""
    else:
        xpu = "_patchforge_xpu()" if site.kind is Kind.OWN_QUESTION else ""
    if xpu:  # where the value itself is kept, and not only whether it holds, CUDA's answer stays the last
        return either(asked, xpu, code, first=test_around(asked, code) is None)
    if isinstance(asked, ast.Call):
        plain = (
            site.text == "cuda"
            and code.parent(site.node) is asked
            and code.field(site.node) == "args"
            and last_name(asked) == "startswith"
        )
        return (code.replace(site.node, '("cuda", "xpu")'),) if plain else ()
    return tuple(_compared(asked, site, code)) if isinstance(asked, ast.Compare) else ()


def either(asked: ast.expr, other: str, code: Code, *, first: bool = False) -> tuple[Splice, ...]:
    """``asked or other``, in parentheses where what is around binds closer."""
    opened, closed = ("(", ")") if binds(asked, code) else ("", "")
    return (
        code.around(asked, f"{opened}{other} or ", closed)
        if first
        else code.around(asked, opened, f" or {other}{closed}")
    )


def _compared(asked: ast.Compare, site: Site, code: Code) -> Iterator[Splice]:
    if len(asked.ops) != 1 or site.text != "cuda" or not isinstance(site.node, ast.Constant):
        return
    left, operator, right = asked.left, asked.ops[0], asked.comparators[0]
    among = isinstance(right, (ast.List, ast.Tuple, ast.Set)) and code.parent(site.node) is right
    if isinstance(operator, (ast.In, ast.NotIn)) and among:
        yield code.follow(site.node, ', "xpu"')
    elif isinstance(operator, ast.In) and left is site.node and _pure(right):
        yield from either(asked, f'"xpu" in {code.code(right)}', code)
    elif isinstance(operator, ast.Eq) and right is site.node and _pure(left) and test_around(asked, code):
        yield from either(asked, f'{code.code(left)} == "xpu"', code)
    elif isinstance(operator, (ast.Eq, ast.NotEq)) or (isinstance(operator, ast.In) and left is site.node):
        yield code.replace(site.node, "_patchforge_device()")


def _pure(node: ast.expr) -> bool:
    """Whether asking twice gives the same and calls nobody: names, attributes, indices and ``str(…)`` of those."""
    if isinstance(node, ast.Name):
        return True
    if isinstance(node, ast.Attribute):
        return _pure(node.value)
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and _pure(node.value)
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "str"
        and not node.keywords
        and all(map(_pure, node.args))
    )


def says(statement: ast.AST) -> bool:
    """``print(…)``, ``logger.info(…)``."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Call) and last_name(value) in _SAYS


def harmless(node: ast.AST) -> bool:
    """``x = x.detach().cpu()`` or ``x = x.contiguous()``, as a statement or the expression alone."""
    value = node.value if isinstance(node, (ast.Assign, ast.Expr, ast.Return)) else node
    names = set(_chain(value)) if value is not None else set[str]()
    return bool(names & {"cpu", "contiguous"}) and names <= {"cpu", "detach", "clone", "contiguous", "float", "numpy"}


def _chain(node: ast.AST) -> Iterator[str]:
    """The methods that are called one after another; ``.to("cpu")`` counts as ``.cpu()``."""
    while isinstance(node, (ast.Call, ast.Attribute)):
        if isinstance(node, ast.Call):
            given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "device")]
            to_cpu = any(isinstance(value, ast.Constant) and value.value == "cpu" for value in given)
            yield "cpu" if last_name(node) == "to" and to_cpu else last_name(node)
            node = node.func
        else:
            node = node.value
