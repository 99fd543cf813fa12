"""The static proof of no interference: taking our hooks out of a patched file gives upstream's syntax tree.

It knows nothing of the engine and works on ``ast`` alone. Upstream's tree and the patched tree are walked side by side;
where they differ, the difference must be one of a closed set:

=========== ==================================================================================
import      an import of the hooks' module, and of nothing else
statement   ``hook(…)`` or ``hook(E)(…)``
refinement  ``x = hook(…, x, …)``
branch      an ``if`` or ``elif`` that asks a hook or for an XPU, with nothing but ours in it
wrap        ``hook(E, …)`` where upstream has ``E``
operand     ``A and hook(…)`` or ``A or hook(…)`` where upstream has ``A``
replaced    a declared replacement, in an XPU arm
=========== ==================================================================================

Anything else fails with its line and both fragments. So do edits that strip cleanly and change other devices all the
same: a name made local, a function made a generator, a docstring that is no longer first, a hook before its import.
"""

from __future__ import annotations

import ast
import io
import tokenize
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from patchforge.errors import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HOOKS = "patchforge_xpu"

_XPU_TESTS = frozenset({"is_intel_xpu", "is_device_xpu"})
#: what an argument of ours may call where nothing has asked for an XPU yet: no effects, and no errors of its own
_QUIET_CALLS = _XPU_TESTS | {"globals", "locals", "getattr", "hasattr", "isinstance", "len", "type", "str"}
_LOUD = (ast.NamedExpr, ast.Yield, ast.YieldFrom, ast.Await)
_NEW_SCOPE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = frozenset({"body", "orelse", "finalbody"})


@dataclass(frozen=True, slots=True, order=True)
class Replacement:
    """A declared REPLACE edit: the expression ``before`` in ``path`` gives way to ``after``."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, order=True)
class Stripped:
    """One thing of ours. ``line`` is 1-based, in the patched file; ``text`` is its source."""

    line: int
    rule: str
    text: str


@dataclass(frozen=True, slots=True, order=True)
class Replaced:
    """One declared replacement that was met. ``line`` is 1-based, in upstream's file."""

    line: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class StaticProof:
    """That ``path`` without what is ``stripped`` and ``replaced`` has upstream's syntax tree."""

    path: str
    hooks: int  #: calls of hooks in the patched file
    stripped: tuple[Stripped, ...]
    replaced: tuple[Replaced, ...]


def prove(
    path: str, upstream: str | bytes, patched: str | bytes, replacements: Iterable[Replacement] = ()
) -> StaticProof:
    """The proof for one Python file. CheckFailed names the file, the line and both fragments.

    ``replacements`` are all declared ones; those of other files are ignored.
    """
    walk = _Walk(path, _Side(path, upstream), _Side(path, patched), _declared(path, replacements))
    try:
        if walk.upstream.hook_lines:
            raise _failed(path, walk.upstream.hook_lines[0], f"upstream's file mentions {HOOKS} already")
        walk.run()
        _check_imports(path, walk.notes)
    except RecursionError:
        raise _failed(path, 1, "an expression is nested too deeply to be proved") from None
    stripped = tuple(sorted(note.stripped for note in walk.notes))
    return StaticProof(path, sum(note.hooks for note in walk.notes), stripped, tuple(sorted(walk.replaced)))


def _failed(path: str, line: int, problem: str, expected: str = "", found: str = "") -> CheckFailed:
    return CheckFailed(f"{path}:{line}: {problem}", expected=expected, found=found)


# --- sources


class _Side:
    """One of the two files: its lines, its tree and where it mentions the hooks."""

    def __init__(self, path: str, source: str | bytes) -> None:
        try:
            text = source if isinstance(source, str) else _decoded(source)
            self.tree = ast.parse(text.removeprefix("\ufeff"))
        except SyntaxError as error:
            raise _failed(
                path, error.lineno or 1, f"not Python: {error.msg}", found=(error.text or "").strip()
            ) from None
        except (UnicodeDecodeError, ValueError, RecursionError, MemoryError) as error:
            raise _failed(path, 1, f"cannot be read as Python: {error}") from None
        self.lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")

    @cached_property
    def hook_lines(self) -> list[int]:
        """1-based lines that mention the hooks, also in comments: more than needed, never less."""
        return [number for number, line in enumerate(self.lines, 1) if HOOKS in line]

    def mentions(self, node: ast.stmt) -> bool:
        """Whether a line of the statement mentions the hooks."""
        at = bisect_left(self.hook_lines, _first_line(node))
        return at < len(self.hook_lines) and self.hook_lines[at] <= (node.end_lineno or 0)

    def text_lines(self, node: ast.stmt) -> list[str]:
        """All lines that the statement is on."""
        return self.lines[_first_line(node) - 1 : node.end_lineno]

    def fragment(self, node: ast.AST) -> str:
        """The node's first line, as written."""
        line, end = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
        if not line:
            return type(node).__name__
        raw = self.lines[line - 1].encode()
        stop = node.end_col_offset if end == line else None  # type: ignore[attr-defined]
        return raw[node.col_offset : stop].decode(errors="replace").strip() + (" …" if end != line else "")  # type: ignore[attr-defined]


def _decoded(source: bytes) -> str:
    return source.decode(tokenize.detect_encoding(io.BytesIO(source).readline)[0])


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(item.lineno for item in decorators)])


# --- questions about nodes


def _is_module(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == HOOKS) or (isinstance(node, ast.Attribute) and node.attr == HOOKS)


def _is_hook(node: ast.AST | None) -> bool:
    """``patchforge_xpu.f(…)``."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_module(node.func.value)


def _is_hooked(node: ast.AST | None) -> bool:
    """``hook(…)`` or ``hook(E)(…)``."""
    return _is_hook(node) or (isinstance(node, ast.Call) and _is_hook(node.func))


def _called(node: ast.AST) -> str:
    """The last part of the name that is called."""
    func = node.func if isinstance(node, ast.Call) else None
    return func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""


def _implies_xpu(test: ast.expr) -> bool:
    """Whether ``test`` can only hold on an Intel XPU."""
    if isinstance(test, ast.BoolOp):
        return (any if isinstance(test.op, ast.And) else all)(map(_implies_xpu, test.values))
    if isinstance(test, ast.Compare):
        sides = [test.left, *test.comparators]
        named = any(isinstance(side, ast.Constant) and side.value == "xpu" for side in sides)
        return named and len(sides) == 2 and isinstance(test.ops[0], ast.Eq)
    return _called(test) in _XPU_TESTS


def _asks_hook(test: ast.expr) -> bool:
    """Whether ``test`` can only decide for our branch after a hook has been asked."""
    if isinstance(test, ast.BoolOp):
        return (any if isinstance(test.op, ast.And) else all)(map(_asks_hook, test.values))
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _asks_hook(test.operand)
    if isinstance(test, ast.Compare):
        return any(map(_is_hook, [test.left, *test.comparators]))
    return _is_hook(test)


def _is_guard(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return all(map(_is_guard, test.values))
    return _implies_xpu(test) or _asks_hook(test)


def _is_operand(node: ast.expr) -> bool:
    """What may be added to upstream's ``and`` or ``or``."""
    return _mentions_hook(node) and _is_guard(node)


def _mentions_hook(node: ast.AST) -> bool:
    return any(_is_hook(child) for child in ast.walk(node))


def _loud(node: ast.AST, *, guarded: bool) -> ast.AST | None:
    """The first part of ``node`` that may have an effect on other devices; calls are free where ``guarded``."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        for value in node.values:
            if found := _loud(value, guarded=guarded):
                return found
            guarded = guarded or _is_guard(value)
        return None
    for child in ast.walk(node):
        if isinstance(child, _LOUD):
            return child
        if isinstance(child, ast.Call) and not guarded and not (_is_hooked(child) or _called(child) in _QUIET_CALLS):
            return child
    return None


def _same(one: ast.AST, other: ast.AST) -> bool:
    """Whether two nodes are alike; reading and writing a name are."""
    stack: list[tuple[object, object]] = [(one, other)]
    while stack:
        a, b = stack.pop()
        if type(a) is not type(b):
            return False
        if isinstance(a, ast.AST):
            stack += [(getattr(a, name, None), getattr(b, name, None)) for name in a._fields if name != "ctx"]
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            stack += zip(a, b, strict=True)
        elif a != b:
            return False
    return True


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function that are not another function's."""
    stack = list(ast.iter_child_nodes(function))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, _NEW_SCOPE):
            stack.extend(ast.iter_child_nodes(node))


def _bound(function: ast.AST) -> frozenset[str]:
    """Names that are the function's own, or declared global or nonlocal in it."""
    names: set[str] = set()
    for node in _own_nodes(function):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            names.update(node.names)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.ExceptHandler)) and node.name:
            names.add(node.name)
    return frozenset(names)


def _is_generator(function: ast.AST | None) -> bool:
    return function is not None and any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in _own_nodes(function))


# --- what may be inserted


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the walk stands in upstream's tree."""

    function: ast.AST | None = None  #: the innermost function around it
    top: bool = True  #: directly in the module's body
    xpu: bool = False  #: in an arm that only an XPU takes
    documented: bool = True  #: a string at the start of this block is a docstring


def _objection(node: ast.stmt, place: _Place) -> str:
    """Why ``node`` may not stand where upstream has nothing; "" where it may. An ``else`` of it is upstream's."""
    if isinstance(node, ast.If):
        if not _is_guard(node.test):
            return "an inserted branch must ask a hook or for an Intel XPU"
        if _loud(node.test, guarded=place.xpu):
            return "the test of an inserted branch calls something before a hook or an XPU is asked"
        return _first(_guarded_objection(child, node.test, place) for child in node.body)
    if isinstance(node, ast.Assign):
        names = len(node.targets) == 1 and _is_hook(node.value) and isinstance(node.value, ast.Call)
        if not names or not any(_same(node.targets[0], argument) for argument in node.value.args):  # type: ignore[attr-defined]
            return "an inserted assignment outside a branch of ours must refine its own target by a hook"
    return _simple_objection(node, place, guarded=place.xpu)


def _simple_objection(node: ast.stmt, place: _Place, *, guarded: bool) -> str:
    """For imports, calls of hooks, and assignments of what a hook returns."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return "" if _is_our_import(node) else f"an import of more than {HOOKS}"
    if not isinstance(node, (ast.Expr, ast.Assign)) or not _is_hooked(node.value):
        return "it is neither upstream's nor a hook"
    if _loud(node.value, guarded=guarded):
        return "an argument of a hook calls something before an XPU is asked"
    return _first(_target_objection(target, place) for target in getattr(node, "targets", ()))


def _guarded_objection(node: ast.stmt, test: ast.expr, place: _Place) -> str:
    """For the statements of an inserted branch."""
    if isinstance(node, ast.Pass):
        return ""
    if isinstance(node, ast.Return):
        plain = node.value is None or isinstance(node.value, ast.Constant) or _is_hooked(node.value)
        loud = node.value is not None and _loud(node.value, guarded=True)
        return "" if plain and not loud else "an inserted return must give a constant or what a hook returns"
    if isinstance(node, ast.If):
        return _first(_guarded_objection(child, test, place) for child in [*node.body, *node.orelse]) or (
            "a test of an inserted branch has an effect" if _loud(node.test, guarded=True) else ""
        )
    if isinstance(node, ast.With):
        return _with_objection(node, test, place)
    if isinstance(node, ast.Assign) and ast.unparse(node) == "cpu_state = CPUState.CPU" and _mentions_hook(test):
        return _target_objection(node.targets[0], place)
    return _simple_objection(node, place, guarded=True)


def _with_objection(node: ast.With, test: ast.expr, place: _Place) -> str:
    for item in node.items:
        if not _is_hook(item.context_expr) or _loud(item.context_expr, guarded=True) or item.optional_vars:
            return "an inserted with must enter a hook, and bind nothing"
    for child in node.body:
        value = child.value if isinstance(child, ast.Expr) else None
        if isinstance(value, ast.Yield) and (value.value is None or isinstance(value.value, ast.Constant)):
            if not _is_generator(place.function):
                return "an inserted yield makes a generator of a function that upstream calls"
        elif objection := _guarded_objection(child, test, place):
            return objection
    return ""


def _target_objection(target: ast.expr, place: _Place) -> str:
    if isinstance(target, ast.Name):
        if place.function is not None and target.id not in _bound(place.function):
            return f"the assignment makes {target.id} local to the function, which upstream does not"
        return "" if target.id != HOOKS else f"the assignment hides {HOOKS}"
    return "" if isinstance(target, ast.Attribute) else "an inserted assignment must set one name or attribute"


def _is_our_import(node: ast.Import | ast.ImportFrom) -> bool:
    return all(alias.name.rpartition(".")[2] == HOOKS and alias.asname in (None, HOOKS) for alias in node.names)


def _first(objections: Iterable[str]) -> str:
    return next((objection for objection in objections if objection), "")


def _rule(node: ast.stmt) -> str:
    if isinstance(node, ast.If):
        return "branch"
    if isinstance(node, ast.Assign):
        return "refinement"
    return "statement" if isinstance(node, ast.Expr) else "import"


# --- the walk


@dataclass(frozen=True, slots=True)
class _Note:
    """What was stripped, for the proof, and where, for the check that hooks are imported before they are used."""

    stripped: Stripped
    hooks: int
    place: _Place


_Nodes = tuple[ast.AST, ast.AST]  #: upstream's and the patched one


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two nodes to be compared. ``near`` has a line, for messages, where they have none."""

    ours: ast.AST
    theirs: ast.AST
    place: _Place
    near: _Nodes


@dataclass(frozen=True, slots=True)
class _Block:
    """Two lists of statements to be aligned."""

    ours: list[ast.stmt]
    theirs: list[ast.stmt]
    place: _Place
    near: _Nodes


@dataclass
class _Walk:
    """Both trees side by side, without recursion: what remains to be compared is on ``stack``."""

    path: str
    upstream: _Side
    patched: _Side
    declared: Sequence[tuple[ast.expr, ast.expr, Replacement]]
    notes: list[_Note] = field(default_factory=list)
    replaced: list[Replaced] = field(default_factory=list)
    stack: list[_Pair | _Block] = field(default_factory=list)
    fitting: dict[tuple[int, int], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.near: _Nodes = (self.upstream.tree, self.patched.tree)

    def run(self) -> None:
        self.push(self.upstream.tree, self.patched.tree, _Place())
        self.drain()

    def push(self, ours: ast.AST, theirs: ast.AST, place: _Place) -> None:
        self.stack.append(_Pair(ours, theirs, place, self.near))

    def drain(self) -> None:
        while self.stack:
            item = self.stack.pop()
            self.near = item.near
            if isinstance(item, _Block):
                self.align(item.ours, item.theirs, item.place)
            else:
                if hasattr(item.ours, "lineno") and hasattr(item.theirs, "lineno"):
                    self.near = (item.ours, item.theirs)
                self.compare(item.ours, item.theirs, item.place)

    def compare(self, ours: ast.AST, theirs: ast.AST, place: _Place) -> None:
        """Upstream's node and the patched one: alike, or different by a rule about expressions."""
        if isinstance(ours, ast.stmt) and isinstance(theirs, ast.stmt) and self.same_text(ours, theirs):
            return
        if self.is_replaced(ours, theirs, place) or self.drop_operands(ours, theirs, place):
            return
        if _is_hook(theirs):
            self.unwrap(ours, theirs, place)  # type: ignore[arg-type]
        elif type(ours) is not type(theirs):
            raise self.differs(ours, theirs)
        else:
            self.compare_fields(ours, theirs, place)

    def same_text(self, ours: ast.stmt, theirs: ast.stmt) -> bool:
        """Whether two statements are the same lines at the same columns, and so the same tree."""
        return (
            type(ours) is type(theirs)
            and (ours.col_offset, ours.end_col_offset) == (theirs.col_offset, theirs.end_col_offset)
            and self.upstream.text_lines(ours) == self.patched.text_lines(theirs)
        )

    def compare_fields(self, ours: ast.AST, theirs: ast.AST, place: _Place) -> None:
        items: list[_Pair | _Block] = []
        for name in ours._fields:
            one, other = getattr(ours, name, None), getattr(theirs, name, None)
            if not isinstance(one, list) or not isinstance(other, list):
                one, other = [one], [other]
            elif name in _BLOCKS:
                items.append(_Block(one, other, _inside(ours, name, place), self.near))
                continue
            if len(one) != len(other):
                raise self.differs(ours, theirs)
            items += [
                _Pair(a, b, place, self.near)
                for a, b in zip(one, other, strict=True)
                if self.is_pair(a, b, ours, theirs)
            ]
        self.stack += reversed(items)

    def is_pair(self, one: object, other: object, ours: ast.AST, theirs: ast.AST) -> bool:
        """Whether both are nodes; plain values are compared at once."""
        if isinstance(one, ast.AST) and isinstance(other, ast.AST):
            return True
        if type(one) is not type(other) or one != other:
            raise self.differs(ours, theirs)
        return False

    # statements

    def align(self, ours: list[ast.stmt], theirs: list[ast.stmt], place: _Place) -> None:
        """Pairs the statements of two blocks; a patched one that pairs with none must be an insertion."""
        rest, at = deque(theirs), 0
        pairs: list[_Pair] = []
        while rest:
            node = rest.popleft()
            objection = self.objection(node, place)
            upstream = ours[at] if at < len(ours) else None
            if not objection and not self.is_counterpart(upstream, node, place, rest, len(ours) - at):
                self.insert(node, upstream, place, first=place.documented and at == 0)
                rest.extendleft(reversed(node.orelse if isinstance(node, ast.If) else []))
                continue
            if upstream is None or (self.patched.mentions(node) and not self.resembles(upstream, node, place)):
                raise self.differs(upstream or self.near[0], node, objection)
            pairs.append(_Pair(upstream, node, place, (upstream, node)))
            at += 1
        if at < len(ours):
            raise self.differs(ours[at], theirs[-1] if theirs else self.near[1], "upstream's statement is gone")
        self.stack += reversed(pairs)

    def objection(self, node: ast.stmt, place: _Place) -> str:
        asks_xpu = isinstance(node, ast.If) and _implies_xpu(node.test)
        if not asks_xpu and not self.patched.mentions(node):
            return "the statement is neither upstream's nor a hook"
        return _objection(node, place)

    def insert(self, node: ast.stmt, before: ast.stmt | None, place: _Place, *, first: bool) -> None:
        if before is not None and (_is_future(before) or (first and _is_docstring(before))):
            raise self.differs(before, node, "nothing may stand before a docstring or a __future__ import")
        parts: list[ast.AST] = [node.test, *node.body] if isinstance(node, ast.If) else [node]
        self.note(node, _rule(node), place, *parts)

    def is_counterpart(
        self, upstream: ast.stmt | None, node: ast.stmt, place: _Place, rest: Iterable[ast.stmt], left: int
    ) -> bool:
        """Whether ``node``, which may be an insertion, is upstream's next statement all the same.

        It is when it fits and the statements behind it that cannot be insertions leave one of upstream's for it.
        """
        return upstream is not None and self.fits(upstream, node, place) and self.needed(rest, place) < left

    def needed(self, nodes: Iterable[ast.stmt], place: _Place) -> int:
        """How many of upstream's statements ``nodes`` need at least."""
        count, stack = 0, list(nodes)
        while stack:
            node = stack.pop()
            if self.objection(node, place):
                count += 1
            elif isinstance(node, ast.If):
                stack += node.orelse
        return count

    def fits(self, ours: ast.stmt, theirs: ast.stmt, place: _Place) -> bool:
        """Whether two statements are alike but for our expressions; the ``else`` of an ``if`` is not looked at."""
        key = (id(ours), id(theirs))
        if key not in self.fitting:
            self.fitting[key] = type(ours) is type(theirs) and self.try_out(ours, theirs, place)
        return self.fitting[key]

    def try_out(self, ours: ast.AST, theirs: ast.AST, place: _Place) -> bool:
        items: list[_Pair | _Block] = [_Pair(ours, theirs, place, (ours, theirs))]
        if isinstance(ours, ast.If) and isinstance(theirs, ast.If):
            block = _Block(ours.body, theirs.body, _inside(ours, "body", place), (ours, theirs))
            items = [block, _Pair(ours.test, theirs.test, place, (ours, theirs))]
        try:
            replace(self, notes=[], replaced=[], stack=items).drain()
        except CheckFailed:
            return False
        return True

    def resembles(self, ours: ast.stmt, theirs: ast.stmt, place: _Place) -> bool:
        """Whether what differs is to be looked for inside; if not, ``theirs`` is a bad insertion."""
        if type(ours) is not type(theirs):
            return False
        if isinstance(ours, ast.If) and isinstance(theirs, ast.If):
            return self.try_out(ours.test, theirs.test, place)
        if isinstance(ours, ast.Assign) and isinstance(theirs, ast.Assign):
            return all(map(_same, ours.targets, theirs.targets))
        return hasattr(ours, "body") or self.fits(ours, theirs, place)

    # expressions

    def unwrap(self, ours: ast.AST, theirs: ast.Call, place: _Place) -> None:
        """``hook(E, …)`` where upstream has ``E``."""
        if not theirs.args or isinstance(theirs.args[0], ast.Starred):
            raise self.differs(ours, theirs, "a hook around an expression takes it as its first argument")
        for extra in [*theirs.args[1:], *theirs.keywords]:
            if _loud(extra, guarded=place.xpu):
                raise self.differs(ours, theirs, "an argument of a hook calls something before an XPU is asked")
        self.note(theirs, "wrap", place, *theirs.args[1:], *theirs.keywords, calls=1)
        self.push(ours, theirs.args[0], place)

    def drop_operands(self, ours: ast.AST, theirs: ast.AST, place: _Place) -> bool:
        """``A and hook(…)`` where upstream has ``A``. Ours are the last operands that can be ours."""
        if not isinstance(theirs, ast.BoolOp):
            return False
        same_operator = isinstance(ours, ast.BoolOp) and type(ours.op) is type(theirs.op)
        values = ours.values if same_operator else [ours]  # type: ignore[attr-defined]
        surplus = len(theirs.values) - len(values)
        kept = list(theirs.values)
        for value in reversed(theirs.values):
            if len(kept) > len(values) and _is_operand(value):
                kept.remove(value)
        if surplus <= 0 or len(kept) != len(values):
            return False
        self.check_operands(ours, theirs, kept, place)
        for one, other in zip(reversed(values), reversed(kept), strict=True):
            self.push(one, other, place)
        return True

    def check_operands(self, ours: ast.AST, theirs: ast.BoolOp, kept: list[ast.expr], place: _Place) -> None:
        guarded = place.xpu
        for value in theirs.values:
            if value not in kept:
                if _loud(value, guarded=guarded):
                    raise self.differs(ours, theirs, "an added operand calls something before an XPU is asked")
                self.note(value, "operand", place, value)
            guarded = guarded or (isinstance(theirs.op, ast.And) and _implies_xpu(value))

    def is_replaced(self, ours: ast.AST, theirs: ast.AST, place: _Place) -> bool:
        """Whether this is a declared replacement. CheckFailed for one that other devices would run."""
        for before, after, declared in self.declared:
            if _same(ours, before) and _same(theirs, after):
                if not place.xpu:
                    raise self.differs(ours, theirs, "a declared replacement stands outside an XPU arm")
                self.replaced.append(Replaced(ours.lineno, declared.before, declared.after))  # type: ignore[attr-defined]
                return True
        return False

    # records

    def note(self, node: ast.AST, rule: str, place: _Place, *parts: ast.AST, calls: int = 0) -> None:
        calls += sum(_is_hook(child) for part in parts for child in ast.walk(part))
        stripped = Stripped(node.lineno, rule, self.patched.fragment(node))  # type: ignore[attr-defined]
        self.notes.append(_Note(stripped, calls, place))

    def differs(self, ours: ast.AST, theirs: ast.AST, why: str = "") -> CheckFailed:
        ours, theirs = (
            one if hasattr(one, "lineno") else near for one, near in zip((ours, theirs), self.near, strict=True)
        )
        lines = [getattr(one, "lineno", 1) for one in (ours, theirs)]
        return CheckFailed(
            f"{self.path}:{lines[1]}: {why or 'not the code of upstream, and no hook of ours'}",
            expected=f"{self.upstream.fragment(ours)} (upstream, line {lines[0]})",
            found=f"{self.patched.fragment(theirs)} (patched, line {lines[1]})",
            do="see the rules in patchforge/proof/static.py, or declare a replacement",
        )


def _inside(node: ast.AST, block: str, place: _Place) -> _Place:
    """The place of a block of upstream's ``node``."""
    if isinstance(node, ast.Module):
        return place
    function = node if isinstance(node, _FUNCTIONS) else None if isinstance(node, ast.ClassDef) else place.function
    xpu = place.xpu or (isinstance(node, ast.If) and block == "body" and _implies_xpu(node.test))
    return _Place(function, top=False, xpu=xpu, documented=isinstance(node, (*_FUNCTIONS, ast.ClassDef)))


def _declared(path: str, replacements: Iterable[Replacement]) -> list[tuple[ast.expr, ast.expr, Replacement]]:
    out = []
    for replacement in sorted({replacement for replacement in replacements if replacement.path == path}):
        try:
            out.append(
                (
                    ast.parse(replacement.before, mode="eval").body,
                    ast.parse(replacement.after, mode="eval").body,
                    replacement,
                )
            )
        except (SyntaxError, ValueError):
            raise _failed(
                path, 1, "a declared replacement is not an expression", replacement.before, replacement.after
            ) from None
    return out


def _check_imports(path: str, notes: Sequence[_Note]) -> None:
    """CheckFailed where a hook is used and its module's import does not come before it: a NameError on every device."""
    imports = [note for note in notes if note.stripped.rule == "import"]
    for use in notes:
        if use.hooks and not any(
            (known.place.top or known.place.function is use.place.function) and known.stripped.line < use.stripped.line
            for known in imports
        ):
            raise _failed(path, use.stripped.line, f"{HOOKS} is used before it is imported", found=use.stripped.text)
