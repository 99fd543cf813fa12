"""Upstream's tree and the patched one side by side: statements are paired, and what pairs with none must be ours."""

from __future__ import annotations

import ast
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from patchforge.errors import CheckFailed
from patchforge.proof.differences import Replaced, Replacement, Stripped
from patchforge.proof.hooks import HOOKS, implies_xpu, is_hook, is_operand, loud
from patchforge.proof.insertions import TreePlace, inside, objection, rule
from patchforge.proof.reading import PythonFile, first_line, same, same_text

_BLOCKS = frozenset({"body", "orelse", "finalbody"})


class HookedFile(PythonFile):
    """One of the two files, and where it mentions the hooks."""

    @cached_property
    def hook_lines(self) -> list[int]:
        """1-based lines that mention the hooks, also in comments: more than needed, never less."""
        return [number for number, line in enumerate(self.lines, 1) if HOOKS in line]

    def mentions(self, node: ast.stmt) -> bool:
        """Whether a line of the statement mentions the hooks."""
        at = bisect_left(self.hook_lines, first_line(node))
        return at < len(self.hook_lines) and self.hook_lines[at] <= (node.end_lineno or 0)


@dataclass(frozen=True, slots=True)
class StrippedNote:
    """What was stripped, for the proof, and where, for the check that hooks are imported before they are used."""

    stripped: Stripped
    hooks: int
    place: TreePlace


_Nodes = tuple[ast.AST, ast.AST]  #: upstream's and the patched one


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two nodes to be compared. ``near`` has a line, for messages, where they have none."""

    old: ast.AST
    new: ast.AST
    place: TreePlace
    near: _Nodes


@dataclass(frozen=True, slots=True)
class _Block:
    """Two lists of statements to be aligned."""

    old: list[ast.stmt]
    new: list[ast.stmt]
    place: TreePlace
    near: _Nodes


@dataclass
class Alignment:
    """Both trees side by side, without recursion: what remains to be compared is on ``stack``."""

    path: str
    upstream: HookedFile
    patched: HookedFile
    declared: Sequence[tuple[ast.expr, ast.expr, Replacement]]
    notes: list[StrippedNote] = field(default_factory=list)
    replaced: list[Replaced] = field(default_factory=list)
    stack: list[_Pair | _Block] = field(default_factory=list)
    fitting: dict[tuple[int, int], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.near: _Nodes = (self.upstream.tree, self.patched.tree)

    def run(self) -> None:
        self.push(self.upstream.tree, self.patched.tree, TreePlace())
        self.drain()

    def push(self, old: ast.AST, new: ast.AST, place: TreePlace) -> None:
        self.stack.append(_Pair(old, new, place, self.near))

    def drain(self) -> None:
        while self.stack:
            item = self.stack.pop()
            self.near = item.near
            if isinstance(item, _Block):
                self.align(item.old, item.new, item.place)
            else:
                if hasattr(item.old, "lineno") and hasattr(item.new, "lineno"):
                    self.near = (item.old, item.new)
                self.compare(item.old, item.new, item.place)

    def compare(self, old: ast.AST, new: ast.AST, place: TreePlace) -> None:
        """Upstream's node and the patched one: alike, or different by a rule about expressions."""
        if same_text(self.upstream, old, self.patched, new):
            return
        if self.is_replaced(old, new, place) or self.drop_operands(old, new, place):
            return
        if is_hook(new):
            self.unwrap(old, new, place)  # type: ignore[arg-type]
        elif type(old) is not type(new):
            raise self.differs(old, new)
        else:
            self.compare_fields(old, new, place)

    def compare_fields(self, old: ast.AST, new: ast.AST, place: TreePlace) -> None:
        items: list[_Pair | _Block] = []
        for name in old._fields:
            parts, twins = getattr(old, name, None), getattr(new, name, None)
            if not isinstance(parts, list) or not isinstance(twins, list):
                parts, twins = [parts], [twins]
            elif name in _BLOCKS:
                items.append(_Block(parts, twins, inside(old, name, place), self.near))
                continue
            if len(parts) != len(twins):
                raise self.differs(old, new)
            items += [
                _Pair(part, twin, place, self.near)
                for part, twin in zip(parts, twins, strict=True)
                if self.is_pair(part, twin, old, new)
            ]
        self.stack += reversed(items)

    def is_pair(self, part: object, twin: object, old: ast.AST, new: ast.AST) -> bool:
        """Whether both are nodes; plain values are compared at once."""
        if isinstance(part, ast.AST) and isinstance(twin, ast.AST):
            return True
        if type(part) is not type(twin) or part != twin:
            raise self.differs(old, new)
        return False

    # statements

    def align(self, old: list[ast.stmt], new: list[ast.stmt], place: TreePlace) -> None:
        """Pairs the statements of two blocks; a patched one that pairs with none must be an insertion."""
        rest, at = deque(new), 0
        pairs: list[_Pair] = []
        while rest:
            node = rest.popleft()
            objection = self.objection(node, place)
            upstream = old[at] if at < len(old) else None
            if not objection and not self.is_counterpart(upstream, node, place, rest, len(old) - at):
                self.insert(node, upstream, place, first=place.documented and at == 0)
                rest.extendleft(reversed(node.orelse if isinstance(node, ast.If) else []))
                continue
            if upstream is None or (self.patched.mentions(node) and not self.resembles(upstream, node, place)):
                raise self.differs(upstream or self.near[0], node, objection)
            pairs.append(_Pair(upstream, node, place, (upstream, node)))
            at += 1
        if at < len(old):
            raise self.differs(old[at], new[-1] if new else self.near[1], "upstream's statement is gone")
        self.stack += reversed(pairs)

    def objection(self, node: ast.stmt, place: TreePlace) -> str:
        asks_xpu = isinstance(node, ast.If) and implies_xpu(node.test)
        if not asks_xpu and not self.patched.mentions(node):
            return "the statement is neither upstream's nor a hook"
        return objection(node, place)

    def insert(self, node: ast.stmt, before: ast.stmt | None, place: TreePlace, *, first: bool) -> None:
        if before is not None and (_is_future(before) or (first and _is_docstring(before))):
            raise self.differs(before, node, "nothing may stand before a docstring or a __future__ import")
        parts: list[ast.AST] = [node.test, *node.body] if isinstance(node, ast.If) else [node]
        self.note(node, rule(node), place, *parts)

    def is_counterpart(
        self, upstream: ast.stmt | None, node: ast.stmt, place: TreePlace, rest: Iterable[ast.stmt], left: int
    ) -> bool:
        """Whether ``node``, which may be an insertion, is upstream's next statement all the same.

        It is when it fits and the statements behind it that cannot be insertions leave one of upstream's for it.
        """
        return upstream is not None and self.fits(upstream, node, place) and self.needed(rest, place) < left

    def needed(self, nodes: Iterable[ast.stmt], place: TreePlace) -> int:
        """How many of upstream's statements ``nodes`` need at least."""
        count, stack = 0, list(nodes)
        while stack:
            node = stack.pop()
            if self.objection(node, place):
                count += 1
            elif isinstance(node, ast.If):
                stack += node.orelse
        return count

    def fits(self, old: ast.stmt, new: ast.stmt, place: TreePlace) -> bool:
        """Whether two statements are alike but for our expressions; the ``else`` of an ``if`` is not looked at."""
        key = (id(old), id(new))
        if key not in self.fitting:
            self.fitting[key] = type(old) is type(new) and self.try_out(old, new, place)
        return self.fitting[key]

    def try_out(self, old: ast.AST, new: ast.AST, place: TreePlace) -> bool:
        items: list[_Pair | _Block] = [_Pair(old, new, place, (old, new))]
        if isinstance(old, ast.If) and isinstance(new, ast.If):
            block = _Block(old.body, new.body, inside(old, "body", place), (old, new))
            items = [block, _Pair(old.test, new.test, place, (old, new))]
        try:
            replace(self, notes=[], replaced=[], stack=items).drain()
        except CheckFailed:
            return False
        return True

    def resembles(self, old: ast.stmt, new: ast.stmt, place: TreePlace) -> bool:
        """Whether what differs is to be looked for inside; if not, ``new`` is a bad insertion."""
        if type(old) is not type(new):
            return False
        if isinstance(old, ast.If) and isinstance(new, ast.If):
            return self.try_out(old.test, new.test, place)
        if isinstance(old, ast.Assign) and isinstance(new, ast.Assign):
            return all(map(same, old.targets, new.targets))
        return hasattr(old, "body") or self.fits(old, new, place)

    # expressions

    def unwrap(self, old: ast.AST, new: ast.Call, place: TreePlace) -> None:
        """``hook(E, …)`` where upstream has ``E``."""
        if not new.args or isinstance(new.args[0], ast.Starred):
            raise self.differs(old, new, "a hook around an expression takes it as its first argument")
        for extra in [*new.args[1:], *new.keywords]:
            if loud(extra, guarded=place.xpu):
                raise self.differs(old, new, "an argument of a hook calls something before an XPU is asked")
        self.note(new, "wrap", place, *new.args[1:], *new.keywords, calls=1)
        self.push(old, new.args[0], place)

    def drop_operands(self, old: ast.AST, new: ast.AST, place: TreePlace) -> bool:
        """``A and hook(…)`` where upstream has ``A``. Ours are the last operands that can be ours."""
        if not isinstance(new, ast.BoolOp):
            return False
        same_operator = isinstance(old, ast.BoolOp) and type(old.op) is type(new.op)
        values = old.values if same_operator else [old]  # type: ignore[attr-defined]
        surplus = len(new.values) - len(values)
        kept = list(new.values)
        for value in reversed(new.values):
            if len(kept) > len(values) and is_operand(value):
                kept.remove(value)
        if surplus <= 0 or len(kept) != len(values):
            return False
        self.check_operands(old, new, kept, place)
        for value, twin in zip(reversed(values), reversed(kept), strict=True):
            self.push(value, twin, place)
        return True

    def check_operands(self, old: ast.AST, new: ast.BoolOp, kept: list[ast.expr], place: TreePlace) -> None:
        guarded = place.xpu
        for value in new.values:
            if value not in kept:
                if loud(value, guarded=guarded):
                    raise self.differs(old, new, "an added operand calls something before an XPU is asked")
                self.note(value, "operand", place, value)
            guarded = guarded or (isinstance(new.op, ast.And) and implies_xpu(value))

    def is_replaced(self, old: ast.AST, new: ast.AST, place: TreePlace) -> bool:
        """Whether this is a declared replacement. CheckFailed for one that other devices would run."""
        for before, after, declared in self.declared:
            if same(old, before) and same(new, after):
                if not place.xpu:
                    raise self.differs(old, new, "a declared replacement stands outside an XPU arm")
                self.replaced.append(Replaced(old.lineno, declared.before, declared.after))  # type: ignore[attr-defined]
                return True
        return False

    # records

    def note(self, node: ast.AST, rule: str, place: TreePlace, *parts: ast.AST, calls: int = 0) -> None:
        calls += sum(is_hook(child) for part in parts for child in ast.walk(part))
        stripped = Stripped(node.lineno, rule, self.patched.fragment(node))  # type: ignore[attr-defined]
        self.notes.append(StrippedNote(stripped, calls, place))

    def differs(self, old: ast.AST, new: ast.AST, why: str = "") -> CheckFailed:
        old, new = (node if hasattr(node, "lineno") else near for node, near in zip((old, new), self.near, strict=True))
        lines = [getattr(node, "lineno", 1) for node in (old, new)]
        return CheckFailed(
            f"{self.path}:{lines[1]}: {why or 'not the code of upstream, and no hook of old'}",
            expected=f"{self.upstream.fragment(old)} (upstream, line {lines[0]})",
            found=f"{self.patched.fragment(new)} (patched, line {lines[1]})",
            do="see the rules in patchforge/proof/static.py, or declare a replacement",
        )


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
