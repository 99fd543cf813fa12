"""Python's operators on values that stay small."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from patchforge.effort import TooIntricate
from patchforge.proof.packs.limits import MOST_PARTS, WIDEST_NUMBER, fit, weigh
from patchforge.proof.packs.texts import harmless_percent

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.MatMult: operator.matmul,
}
UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, other: item in other,
    ast.NotIn: lambda item, other: item not in other,
}


def computed(symbol: ast.operator, left: Any, other: Any) -> Any:
    """An operator's result, where that is not too large."""
    weigh(left, other)
    if isinstance(symbol, ast.Mod) and isinstance(left, (str, bytes)):
        harmless_percent(left if isinstance(left, str) else left.decode("latin-1"))
    if isinstance(symbol, (ast.Pow, ast.LShift)) and isinstance(left, int) and isinstance(other, int):
        width = left.bit_length() * other if isinstance(symbol, ast.Pow) else left.bit_length() + other
        if width > WIDEST_NUMBER:
            raise TooIntricate
    if isinstance(symbol, ast.Mult):
        for many, times in ((left, other), (other, left)):
            if (
                isinstance(many, (str, bytes, list, tuple))
                and isinstance(times, int)
                and len(many) * times > MOST_PARTS
            ):
                raise TooIntricate
    return fit(_BINARY[type(symbol)](left, other))
