"""How much may be done about one file: counted in steps, so that the same bytes end the same way on every machine.

A stranger's file can be small and take hours to look at. Whoever walks, compares or evaluates spends steps (each about
two microseconds' work); where none are left, TooIntricate ends the look at that file, and a person gets it.
"""

from __future__ import annotations

import ast
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

FILE = 3_000_000  #: steps for one file; the largest that is known (15,000 lines) needs 1,500,000
_START, _PER_BYTE = 8_000_000, 8


def for_all(sizes: Iterable[int]) -> int:
    """Steps for many files: what any one may need, and a number for each byte, so that time grows with size alone."""
    return _START + _PER_BYTE * sum(sizes)


class TooIntricate(Exception):
    """There are no steps left."""

    def __init__(self) -> None:
        super().__init__("too intricate to be looked at: its steps are used up")


class _Left(threading.local):
    steps: float = float("inf")


_LEFT = _Left()


def spend(steps: int = 1) -> None:
    """Takes steps; TooIntricate where none are left."""
    _LEFT.steps -= steps
    if _LEFT.steps < 0:
        raise TooIntricate


@contextmanager
def at_most(steps: int) -> Iterator[None]:
    """No more than ``steps`` inside, nor more than there are outside, which pays for them."""
    outside = _LEFT.steps
    given = _LEFT.steps = min(steps, outside)
    try:
        yield
    finally:
        _LEFT.steps = outside - (given - _LEFT.steps)


#: Nodes that ``ast`` shares among all that have them.
SHARED = (ast.expr_context, ast.operator, ast.boolop, ast.unaryop, ast.cmpop)


def walk(top: ast.AST) -> Iterator[ast.AST]:
    """``ast.walk`` without nodes that are shared, a step for each node."""
    todo = deque([top])
    while todo:
        node = todo.popleft()
        spend()
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                todo += [part for part in value if isinstance(part, ast.AST) and not isinstance(part, SHARED)]
            elif isinstance(value, ast.AST) and not isinstance(value, SHARED):
                todo.append(value)
        yield node
