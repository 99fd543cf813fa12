"""Where the value of a name goes: to a device, into questions alone, or nobody sees where."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from enum import Enum

from patchforge.effort import spend
from patchforge.engine.syntax import last_name
from patchforge.nodes.code import Code
from patchforge.nodes.cuda_tests import given_parameter, only_definition
from patchforge.nodes.shapes import keyword_of


class Goes(Enum):
    """Where a value goes."""

    DEVICE = "where torch takes a device"
    ASKED = "only asked about"
    IMPLEMENTATION = "the name of an implementation"
    NOWHERE = "nothing reads it"
    UNSEEN = "nobody sees where"


#: What an expression is used as, in the place where it stands: "device", "implementation", or something else.
Role = Callable[[ast.expr], str]
_THROUGH = (ast.IfExp, ast.BoolOp, ast.BinOp, ast.JoinedStr, ast.FormattedValue)
_TEXT = frozenset(("startswith", "lower", "strip", "split"))


def goes(name: str, scope: ast.AST, code: Code, role: Role) -> Goes:
    """Where a parameter or a local name goes: through other names, attributes and functions of the file."""
    found = set(_Trail(code, role).of(name, scope))
    if Goes.DEVICE in found:
        return Goes.DEVICE
    if Goes.UNSEEN in found:
        return Goes.UNSEEN
    if Goes.IMPLEMENTATION in found:
        return Goes.IMPLEMENTATION
    return Goes.ASKED if found else Goes.NOWHERE


class _Trail:
    def __init__(self, code: Code, role: Role) -> None:
        self.code, self.role = code, role
        self.seen: set[tuple[ast.AST | None, str]] = set()

    def of(self, name: str, scope: ast.AST) -> Iterator[Goes]:
        if (scope, name) in self.seen:
            return
        self.seen.add((scope, name))
        for use in self.code.named(name, scope):
            if isinstance(use.ctx, ast.Load):
                yield from self.one(use)

    def one(self, use: ast.expr) -> Iterator[Goes]:
        """Where one use of the value leads."""
        outer: ast.expr = use
        for parent, child in self.code.above(use):
            spend()
            if isinstance(parent, ast.Compare) or (
                isinstance(parent, (ast.If, ast.IfExp, ast.While, ast.Assert)) and child is parent.test
            ):
                yield Goes.ASKED
                return
            text = isinstance(parent, ast.Call) and child in parent.args and last_name(parent) == "str"
            if text or isinstance(parent, _THROUGH):
                outer = parent if isinstance(parent, ast.expr) else outer
            elif isinstance(parent, ast.Attribute) and parent.attr in _TEXT and self._asks(parent):
                yield Goes.ASKED
                return
            else:
                yield from self._placed(outer, parent)
                return

    def _asks(self, method: ast.Attribute) -> bool:
        """``name.startswith("cuda")``, or what is then compared."""
        call = self.code.parent(method)
        return method.attr == "startswith" or isinstance(self.code.parent(call) if call else None, ast.Compare)

    def _placed(self, value: ast.expr, parent: ast.AST) -> Iterator[Goes]:
        if isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            for target in parent.targets if isinstance(parent, ast.Assign) else [parent.target]:
                if isinstance(target, ast.Name):
                    yield from self.of(target.id, self.code.scope(target))
                elif isinstance(target, ast.Attribute):
                    yield from self._kept(target.attr)
                else:
                    yield self._by_role(value)
            return
        keyword, call = keyword_of(value, self.code)
        function = only_definition(last_name(call), self.code) if call is not None else None
        if call is not None and function is not None and (name := given_parameter(function, call, keyword, value)):
            yield from self.of(name, function)
            return
        yield self._by_role(value)

    def _kept(self, name: str) -> Iterator[Goes]:
        """Where an attribute of that name is read in the file; one that is not read there goes on elsewhere."""
        if (None, name) in self.seen:
            return
        self.seen.add((None, name))
        loads = [node for node in self.code.attributes(name) if isinstance(node.ctx, ast.Load)]
        if not loads:
            yield Goes.UNSEEN
        for read in loads:
            yield from self.one(read)

    def _by_role(self, value: ast.expr) -> Goes:
        role = self.role(value)
        if role == "device":
            return Goes.DEVICE
        return Goes.IMPLEMENTATION if role == "implementation" else Goes.UNSEEN
