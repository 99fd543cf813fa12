"""Python code compared and walked by its structure: what it says, and not how it is laid out.

Trivia, which no comparison here sees: white space, comments, line breaks, backslashes, redundant parentheses, trailing
commas, semicolons at a line's end, the quotes and the pieces of a plain string, the base of a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import libcst as cst

from patchforge.effort import spend


def dotted(node: cst.CSTNode) -> str:
    """``a.b.c`` of names and attributes as written; "" for anything else."""
    parts: list[str] = []
    while isinstance(node, cst.Attribute):
        parts.append(node.attr.value)
        node = node.value
    if not isinstance(node, cst.Name):
        return ""
    parts.append(node.value)
    return ".".join(reversed(parts))


_NO_SOURCE = cst.Module([])


def code(node: cst.CSTNode) -> str:
    """The node's source text, without surrounding whitespace: for showing it, never for comparing."""
    text = _NO_SOURCE.code_for_node(node).strip()
    spend(1 + len(text) // 4)
    return text


def same(node: cst.CSTNode | None, *patterns: str) -> bool:
    """Whether ``node`` says what one of ``patterns``, an expression or a statement of one line, says.

    A block or a line of one statement stands for that statement, and an expression that is a statement for itself.
    """
    return node is not None and any(_equal(_core(node), _parsed(pattern)) for pattern in patterns)


def statements(block: cst.BaseSuite) -> list[cst.CSTNode]:
    """The statements of a block, those that share a line one by one; also of what follows a colon on its line."""
    if not isinstance(block, cst.IndentedBlock):
        return list(block.body)
    lines = (line.body if isinstance(line, cst.SimpleStatementLine) else (line,) for line in block.body)
    return [statement for line in lines for statement in line]


@cache
def _parsed(pattern: str) -> cst.CSTNode:
    return _core(cst.parse_statement(pattern))


def _core(node: cst.CSTNode) -> cst.CSTNode:
    while isinstance(node, (cst.IndentedBlock, cst.SimpleStatementSuite, cst.SimpleStatementLine)):
        if len(node.body) != 1:
            return node
        node = node.body[0]
    return node.value if isinstance(node, cst.Expr) else node


_LITERALS = (cst.SimpleString, cst.ConcatenatedString, cst.Integer, cst.Float, cst.Imaginary)


def _equal(part: object, other: object) -> bool:
    if isinstance(part, _LITERALS) and isinstance(other, _LITERALS):
        value = part.evaluated_value
        if value is not None:
            return type(value) is type(other.evaluated_value) and value == other.evaluated_value
    if type(part) is not type(other):
        return False
    if isinstance(part, cst.Subscript) and isinstance(other, cst.Subscript) and _of_tuple(part) != _of_tuple(other):
        return False
    if isinstance(part, cst.CSTNode):
        return all(_equal(getattr(part, name), getattr(other, name)) for name in _fields(type(part)))
    if isinstance(part, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(part) == len(other) and all(map(_equal, part, other))
    return part == other


def _of_tuple(node: cst.Subscript) -> bool:
    """Whether the one comma that is no trivia stands there: ``x[0,]`` asks for another key than ``x[0]``."""
    return len(node.slice) > 1 or isinstance(node.slice[0].comma, cst.Comma)


_SKIPPED_FIELDS = frozenset(
    {
        "leading_lines",
        "lines_after_decorators",
        "header",
        "footer",
        "lpar",
        "rpar",
        "comma",
        "semicolon",
        "equal",
        "trailing_whitespace",
        "indent",
        "lbracket",
        "rbracket",
        "dot",
        "first_colon",
        "second_colon",
        "operator_whitespace",
    }
)


@cache
def _fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    kept = (name for name in kind.__dataclass_fields__ if name not in _SKIPPED_FIELDS)
    return tuple(name for name in kept if "whitespace" not in name and not name.startswith("_"))


def children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The node's parts that carry meaning, in source order; whitespace and punctuation are passed over."""
    for name in _fields(type(node)):
        value = getattr(node, name)
        if type(value) in (tuple, list):
            for item in value:
                if _is_node(type(item)):
                    yield item
        elif _is_node(type(value)):
            yield value


#: As ``isinstance``, which asks each time, since nodes have an abstract base.
_is_node: Callable[[type], bool] = cache(lambda kind: issubclass(kind, cst.CSTNode))


def descend(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """``node`` and everything below it, depth first."""
    stack = [node]
    while stack:
        node = stack.pop()
        spend(2)
        yield node
        stack.extend(reversed(list(children(node))))
