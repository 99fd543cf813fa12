"""How a fragment of Python is laid out: put on one line, and the parentheses around a part of it that say nothing."""

from __future__ import annotations

import io
import keyword
import tokenize
from itertools import accumulate, pairwise
from typing import NamedTuple

from patchforge.effort import spend

_LAYOUT = frozenset(
    (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENDMARKER)
)
_VALUES = frozenset(("None", "True", "False"))


class _Token(NamedTuple):
    start: int
    end: int
    text: str
    kind: int


def on_one_line(text: str, *, expression: bool) -> str | None:
    """An expression or a simple statement without its line breaks and remarks; None where a string spans lines."""
    if "\n" not in text:
        return text
    tokens = _tokens(text, expression=expression)
    if any("\n" in text[token.start : token.end] for token in tokens):
        return None
    pieces = [text[tokens[0].start : tokens[0].end]]
    for previous, other in pairwise(tokens):
        gap = text[previous.end : other.start]
        if "\n" in gap:
            gap = "" if previous.text in ("(", "[", "{") or other.text in (")", "]", "}") else " "
        pieces += [gap, text[other.start : other.end]]
    return "".join(pieces)


def enclosed(text: str, start: int, end: int) -> tuple[int, int]:
    """Where the part ``start:end`` of an expression begins and ends with the parentheses that say nothing."""
    if text[end:].lstrip()[:1] not in (")", "#", "\\"):
        return start, end
    tokens = _tokens(text, expression=True)
    first = next(number for number, token in enumerate(tokens) if token.start == start)
    last = next(number for number, token in enumerate(tokens) if token.end == end)
    while first > 0 and last + 1 < len(tokens) and _groups(tokens, first - 1) and tokens[last + 1].text == ")":
        first, last = first - 1, last + 1
    return tokens[first].start, tokens[last].end


def _groups(tokens: list[_Token], number: int) -> bool:
    """Whether a parenthesis opens that only groups: the one of a call stands behind a value."""
    if tokens[number].text != "(":
        return False
    before = tokens[number - 1] if number else None
    if before is None:
        return True
    if before.kind == tokenize.NAME:
        return keyword.iskeyword(before.text) and before.text not in _VALUES
    return before.kind == tokenize.OP and before.text not in (")", "]", "}")


def _tokens(text: str, *, expression: bool) -> list[_Token]:
    """What is neither white space nor a remark; in parentheses of its own an expression may go over lines."""
    spend(1 + len(text) // 4)
    whole = f"({text}\n)" if expression else text
    starts = list(accumulate((len(line) + 1 for line in whole.split("\n")), initial=-1 if expression else 0))
    tokens = [
        _Token(starts[row - 1] + column, starts[last_row - 1] + last_column, token, kind)
        for kind, token, (row, column), (last_row, last_column), _ in tokenize.generate_tokens(
            io.StringIO(whole).readline
        )
        if kind not in _LAYOUT
    ]
    return tokens[1:-1] if expression else tokens
