"""The proof that a converted file does on CUDA what it did, and names no CUDA device beside an XPU.

It knows nothing of the rules. The syntax trees before and after are walked side by side; where an expression differs,
both are evaluated with every unknown name standing for itself, in every way in which unknown values may hold or not,
on machines made up for the purpose:

* CUDA alone, CUDA beside an XPU, no accelerator: both give the same value, of the same type, raise the same, and call
  the same functions in the same order (``is_available`` may be asked more often);
* an XPU alone: the new expression calls nothing of ``torch.cuda`` that raises there, and passes no "cuda" device on.

What may be added is closed: our functions, behind the imports; ``name = _patchforge_choice(name)``; an arm that asks
for an XPU behind one that asks for CUDA. ``x.cuda(i)`` counts as ``x.to("cuda:i")``.
Two options change more, and the proof takes their word: ``get_torch_device`` counts as the CUDA device, and
``torch.load`` may read to the CPU where there is no CUDA.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from patchforge import effort
from patchforge.effort import TooIntricate, spend
from patchforge.errors import CheckFailed
from patchforge.nodes.code import Code
from patchforge.nodes.evaluation import NO_CUDA, WORLDS, XPU, Beyond, Run, Truths, World
from patchforge.nodes.helpers import is_ours

_MOST_WAYS = 256  #: in which unknown values may be true or false in one expression
_MOST_STEPS = 400_000  #: for one expression, in all ways and worlds


class NotProved(CheckFailed):
    """One place of a file is not proved. ``old``: what stood there before; None for the file as a whole."""

    def __init__(self, path: str, line: int, found: str, old: ast.expr | ast.stmt | None) -> None:
        self.old, self.reason = old, f"not proved: {found[:400]}"
        super().__init__(f"{path}:{line}: {self.reason}")


@dataclass
class Proved:
    """How much was looked at."""

    expressions: int = 0
    arms: int = 0


def prove(before: Code, after: Code) -> Proved:
    """NotProved where ``after`` may differ on CUDA, or names CUDA beside an XPU."""
    proved = Proved()
    walk = _Walk(before, after, proved)
    try:
        walk.bodies(before.tree.body, after.tree.body)
    except RecursionError:
        raise walk.refused(None, "nested too deeply") from None
    return proved


class _Shapes:
    """A number for each node, the same for those that ``ast.dump`` would show alike."""

    def __init__(self) -> None:
        self.known: dict[Any, int] = {}
        self.of: dict[ast.AST, int] = {}

    def add(self, code: Code) -> None:
        """Numbers the nodes of a file."""
        for node in reversed(code.nodes):
            spend()
            key = (type(node), *(self.part(getattr(node, field, None)) for field in node._fields))
            self.of[node] = self.known.setdefault(key, len(self.known))

    def part(self, value: object) -> Any:
        """What a field is, to be compared."""
        if isinstance(value, list):
            return tuple(map(self.part, value))
        if isinstance(value, ast.AST):
            return self.of[value] if value in self.of else type(value)
        return type(value), repr(value) if isinstance(value, (float, complex)) else value


class _Walk:
    def __init__(self, before: Code, after: Code, proved: Proved) -> None:
        self.before, self.after, self.proved = before, after, proved
        self.old: ast.expr | ast.stmt | None = None
        self.shapes = _Shapes()
        self.shapes.add(before)
        self.shapes.add(after)

    def alike(self, old: ast.AST, new: ast.AST) -> bool:
        """Whether two nodes are the same but for their places."""
        return self.shapes.of[old] == self.shapes.of[new]

    def bodies(self, old: Sequence[ast.stmt], new: Sequence[ast.stmt]) -> None:
        kept = [statement for statement in new if not self.ours(statement, old)]
        for one, other in zip_longest(old, kept):
            if one is None or other is None:
                raise self.refused(one or other, "a statement more or less")
            if not self.alike(one, other):
                self.old = one
                self.statement(one, other)

    def ours(self, statement: ast.stmt, old: Sequence[ast.stmt]) -> bool:
        """What may be added: our functions, and the mapping of a choice."""
        if is_ours(statement) or _is_comfys(statement):
            return not any(isinstance(one, type(statement)) and self.alike(one, statement) for one in old)
        return isinstance(statement, ast.Assign) and _is_choice(statement)

    def statement(self, old: ast.stmt, new: ast.stmt) -> None:
        if type(old) is not type(new):
            raise self.refused(new, "another statement")
        if isinstance(old, ast.If) and isinstance(new, ast.If):
            self.choice(old, new)
            return
        self.fields(old, new)

    def choice(self, old: ast.If, new: ast.If) -> None:
        self.expression(old.test, new.test, truth=True)
        self.bodies(old.body, new.body)
        rest = new.orelse
        if self.is_arm(rest, old.orelse) and isinstance(arm := rest[0], ast.If):
            self.arm(old, arm)
            rest = arm.orelse
        self.bodies(old.orelse, rest)

    def is_arm(self, new: Sequence[ast.stmt], old: Sequence[ast.stmt]) -> bool:
        if len(new) != 1 or not isinstance(new[0], ast.If) or not _asks_for_xpu(new[0].test):
            return False
        return not (old and isinstance(old[0], ast.If) and self.alike(old[0].test, new[0].test))

    def arm(self, cuda: ast.If, arm: ast.If) -> None:
        """An arm behind CUDA's: never taken where CUDA's would be, nor without an XPU; and it names no CUDA."""
        self.proved.arms += 1
        self.old = cuda
        with self.bounded(arm):
            self.taken(cuda, arm)
        for statement in arm.body:
            for node in effort.walk(statement):
                if isinstance(node, ast.expr) and (self.after.name(node).startswith("torch.cuda") or _is_cuda(node)):
                    raise self.refused(statement, "CUDA in an arm for XPUs")

    def taken(self, cuda: ast.If, arm: ast.If) -> None:
        """In which ways the arm is taken."""
        for world in WORLDS:
            for truths in self.ways(arm):
                before, taken = (self.truth(test, world, truths) for test in (cuda.test, arm.test))
                if taken and not world.xpu:
                    raise self.refused(arm, f"an arm that is taken on {world.name}")
                if taken and world.cuda and not before:
                    raise self.refused(arm, f"an arm that is taken on {world.name} where CUDA's is not")

    @contextmanager
    def bounded(self, node: ast.AST) -> Iterator[None]:
        """What takes too many steps, or does what is not known, is not proved."""
        try:
            with effort.at_most(_MOST_STEPS):
                yield
        except TooIntricate:
            spend()  # the file may have none left, either
            raise self.refused(node, "too intricate to be evaluated") from None

    def truth(self, test: ast.expr, world: World, truths: Truths) -> bool:
        outcome = Run(self.after, world, truths).evaluate(test)
        return outcome.error == "" and bool(outcome.value)

    def ways(self, node: ast.AST) -> Iterator[Truths]:
        """Every way in which the unknown values that ``node`` asks may be true or false; CheckFailed for too many."""
        open_: list[dict[str, bool]] = [{}]
        for _ in range(_MOST_WAYS):
            truths = Truths(open_.pop())
            known = dict(truths)
            yield truths
            for text in [one for one in truths if one not in known]:
                open_.append({**known, text: True})
                known[text] = False
            if not open_:
                return
        raise self.refused(node, f"more than {_MOST_WAYS} ways through it")

    def fields(self, old: ast.AST, new: ast.AST) -> None:
        for name in old._fields:
            one, other = getattr(old, name, None), getattr(new, name, None)
            if isinstance(one, list) and isinstance(other, list):
                if one and isinstance(one[0], ast.stmt):
                    self.bodies(one, other)
                else:
                    self.lists(one, other, new)
            else:
                self.parts(one, other, new)

    def lists(self, one: Sequence[Any], other: Sequence[Any], near: ast.AST) -> None:
        if len(one) != len(other):
            raise self.refused(near, "a part more or less")
        for part, twin in zip(one, other, strict=True):
            self.parts(part, twin, near)

    def parts(self, one: object, other: object, near: ast.AST) -> None:
        if isinstance(one, ast.expr) and isinstance(other, ast.expr):
            self.expression(one, other, truth=isinstance(near, (ast.While, ast.Assert)))
        elif isinstance(one, ast.AST) and isinstance(other, ast.AST) and type(one) is type(other):
            self.fields(one, other)
        elif isinstance(one, ast.AST) or isinstance(other, ast.AST) or one != other:
            raise self.refused(near, "another part")

    def expression(self, old: ast.expr, new: ast.expr, *, truth: bool = False) -> None:
        """``truth``: only whether it holds matters."""
        if self.alike(old, new):
            return
        self.old = old
        if _evaluable(old, self.before) and _evaluable(new, self.after) and self.evaluated(old, new, truth=truth):
            self.proved.expressions += 1
        elif type(old) is type(new):
            self.fields(old, new)
        else:
            raise self.refused(new, "an expression that cannot be evaluated apart")

    def evaluated(self, old: ast.expr, new: ast.expr, *, truth: bool) -> bool:
        """Whether the evaluation proves it; False where what it does is not known."""
        with self.bounded(new):
            try:
                self.same(old, new, truth=truth)
                self.portable(old, new)
            except Beyond:
                return False
        return True

    def same(self, old: ast.expr, new: ast.expr, *, truth: bool) -> None:
        for world in WORLDS:
            for truths in self.ways(new):
                was = Run(self.before, world, truths).evaluate(old)
                now = Run(self.after, world, truths).evaluate(new)
                if was.shown(truth=truth) != now.shown(truth=truth):
                    raise self.refused(new, f"on {world.name}: {now.shown()} instead of {was.shown()}")
                if more := now.read - was.read:
                    raise self.refused(new, f"on {world.name}: it also reads {min(more)}, which need not be there")

    def portable(self, old: ast.expr, new: ast.expr) -> None:
        for smallest in self.differing(old, new):
            for truths in self.ways(smallest):
                now = Run(self.after, XPU, truths).evaluate(smallest)
                if NO_CUDA in now.error:
                    raise self.refused(smallest, f"on an XPU: {now.error}")
                if now.devices:
                    raise self.refused(smallest, f"on an XPU: the device {now.devices[0]}")

    def differing(self, old: ast.expr, new: ast.expr) -> Iterator[ast.expr]:
        """The smallest expressions of ``new`` that are not as they were."""
        if self.alike(old, new):
            return
        parts, twins = list(ast.iter_child_nodes(old)), list(ast.iter_child_nodes(new))
        pairs = list(zip(parts, twins, strict=False))
        splits = isinstance(new, (ast.BinOp, ast.BoolOp, ast.Tuple, ast.List, ast.UnaryOp, ast.IfExp))
        if not splits or type(old) is not type(new) or len(parts) != len(twins) or not all(map(self.match, pairs)):
            yield new
            return
        for one, other in pairs:
            if isinstance(one, ast.expr) and isinstance(other, ast.expr):
                yield from self.differing(one, other)

    def match(self, pair: tuple[ast.AST, ast.AST]) -> bool:
        """Whether two parts are expressions, or alike."""
        if all(isinstance(one, ast.expr) for one in pair):
            return True
        known = all(one in self.shapes.of for one in pair)
        return self.alike(*pair) if known else type(pair[0]) is type(pair[1])

    def refused(self, node: ast.AST | None, found: str) -> NotProved:
        return NotProved(self.after.path, getattr(node, "lineno", 0), found, self.old)


def _is_comfys(statement: ast.stmt) -> bool:
    """``import comfy.model_management``."""
    names = [(one.name, one.asname) for one in statement.names] if isinstance(statement, ast.Import) else []
    return names == [("comfy.model_management", None)]


def _is_choice(statement: ast.Assign) -> bool:
    """``name = _patchforge_choice(name)``."""
    target, call = statement.targets[0], statement.value
    if len(statement.targets) != 1 or not isinstance(target, ast.Name) or not isinstance(call, ast.Call):
        return False
    args = [one.id if isinstance(one, ast.Name) else "" for one in (call.func, *call.args)]
    return args == ["_patchforge_choice", target.id] and not call.keywords


def _asks_for_xpu(test: ast.expr) -> bool:
    """Whether a test cannot hold without an XPU: it asks for one, alone or with ``and``."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(map(_asks_for_xpu, test.values))
    if not isinstance(test, ast.Call) or test.args or test.keywords:
        return False
    asked = test.func
    if isinstance(asked, ast.Attribute) and asked.attr == "is_available":
        asked = asked.value
        return (getattr(asked, "attr", "") or getattr(asked, "id", "")).endswith("xpu")
    return (getattr(asked, "attr", "") or getattr(asked, "id", "")).endswith("_patchforge_xpu")


def _is_cuda(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("cuda")


def _evaluable(node: ast.expr, code: Code) -> bool:
    """No suspension, no binding, and no way to Python's own insides."""
    if isinstance(node, ast.Starred):
        return False
    return not code.among(node, code.once("inside", lambda: sorted(_insides(code))))


def _insides(code: Code) -> Iterator[int]:
    for part in code.nodes:
        name = part.attr if isinstance(part, ast.Attribute) else part.id if isinstance(part, ast.Name) else ""
        hidden = name.startswith("__") or (name == "super" and isinstance(part, ast.Name))
        if hidden or isinstance(part, (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)):
            yield code.span(part)[0]
