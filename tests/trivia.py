"""Python rewritten without changing what it says: comments, spaces, commas, parentheses, line breaks, quotes.

It works on tokens and on ``ast`` and knows nothing of the engine. Each mutant has the syntax tree of the original.
"""

from __future__ import annotations

import ast
import io
import random
import tokenize
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

#: A remark that names what transforms look for; as a comment it says nothing.
REMARK = (
    '# ( \' """ is_intel_xpu() UR_RESULT ipex.optimize ZE_AFFINITY_MASK def is_device_xpu,'
    " ONEAPI_DEVICE_SELECTOR --oneapi-device-selector signbit"
)
_LAYOUT = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.COMMENT}


@dataclass(frozen=True, order=True)
class Splice:
    """``text`` in place of the characters ``start:end``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Mutant:
    """A way to write the same program; ``splices`` made it out of the original."""

    kind: str
    text: str
    splices: tuple[Splice, ...] = ()


@cache
def mutants(source: str) -> tuple[Mutant, ...]:
    """Every mutant of one change, in the order of kind and place, and some of several changes at once."""
    meant = ast.dump(ast.parse(source))
    single = [made for kind, splices in _changes(source) if (made := _made(source, kind, splices, meant))]
    single += [Mutant(kind, text) for kind, text in _indented(source) if _says(text, meant)]
    return (*single, *_stacked(source, single, meant))


def sample(source: str, each: int) -> list[Mutant]:
    """At most ``each`` mutants of every kind, spread over the text."""
    kinds: defaultdict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants(source):
        kinds[mutant.kind].append(mutant)
    chosen: list[Mutant] = []
    for members in kinds.values():
        count = min(each, len(members))
        chosen += [members[(2 * index + 1) * len(members) // (2 * count)] for index in range(count)]
    return chosen


def _made(source: str, kind: str, splices: Sequence[Splice], meant: str) -> Mutant | None:
    pieces, position = list[str](), 0
    for splice in sorted(splices):
        if splice.start < position:
            return None
        pieces += [source[position : splice.start], splice.text]
        position = splice.end
    text = "".join([*pieces, source[position:]])
    return Mutant(kind, text, tuple(splices)) if text != source and _says(text, meant) else None


def _says(text: str, meant: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "2and" is on its way out of the language
            return ast.dump(ast.parse(text)) == meant
    except SyntaxError:
        return False


def _stacked(source: str, single: Sequence[Mutant], meant: str) -> Iterator[Mutant]:
    """Several changes at once, chosen by the text alone."""
    chance = random.Random(source)
    spliced = [mutant for mutant in single if mutant.splices]
    for count in (2, 3, 5, 8, 13, 21):
        several = chance.sample(spliced, min(count, len(spliced)))
        made = _made(source, "stacked", [splice for mutant in several for splice in mutant.splices], meant)
        if made:
            yield made


def _changes(source: str) -> Iterator[tuple[str, tuple[Splice, ...]]]:
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for made in (_gaps, _lines, _strings):
        for kind, start, end, text in made(tokens, starts):
            yield kind, (Splice(start, end, text),)
    yield from _parentheses(source, starts)


_Change = tuple[str, int, int, str]


def _gaps(tokens: Sequence[tokenize.TokenInfo], starts: Sequence[int]) -> Iterator[_Change]:
    """Between two tokens of one logical line."""
    depth = 0
    for token, after in pairwise(tokens):
        depth += (token.string in tuple("([{")) - (token.string in tuple(")]}"))
        if token.type in _LAYOUT or after.type in _LAYOUT:
            continue
        at = starts[after.start[0] - 1] + after.start[1]
        yield "space", at, at, "  "
        yield "tab", at, at, "\t"
        if starts[token.end[0] - 1] + token.end[1] < at:
            yield "no space", starts[token.end[0] - 1] + token.end[1], at, ""
        if not depth:
            yield "backslash", at, at, " \\\n      "
            continue
        yield "break", at, at, "\n"
        yield "remark in brackets", at, at, f"  {REMARK}\n      "
        if after.string in (")", "]", "}"):
            yield "trailing comma", at, at, ","
            yield "trailing comma and remark", at, at, f", {REMARK}\n"


def _lines(tokens: Sequence[tokenize.TokenInfo], starts: Sequence[int]) -> Iterator[_Change]:
    """At the ends of lines and before logical lines."""
    fresh = True
    for token in tokens:
        at = starts[token.start[0] - 1] + token.start[1]
        if token.type in (tokenize.NEWLINE, tokenize.NL) and token.string:
            yield "remark at the end", at, at, f"  {REMARK}"
            yield "space at the end", at, at, "  "
            yield "semicolon", at, at, ";"
            yield "semicolon and remark", at, at, f" ; {REMARK}"
        elif fresh and token.type not in _LAYOUT:
            begin = starts[token.start[0] - 1]
            indent = " " * token.start[1]
            yield "remark before", begin, begin, f"{indent}{REMARK}\n"
            yield "remark at the margin", begin, begin, f"{REMARK}\n"
            yield "remark further in", begin, begin, f"{indent}        {REMARK}\n"
            yield "blank line", begin, begin, "\n"
            yield "blank line of spaces", begin, begin, f"{indent}  \n"
            yield "blank lines and a form feed", begin, begin, "\n\f\n"
        fresh = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.NL)


def _strings(tokens: Sequence[tokenize.TokenInfo], starts: Sequence[int]) -> Iterator[_Change]:
    """The quotes of plain strings."""
    for token in tokens:
        if token.type != tokenize.STRING or token.string[0] not in "'\"":
            continue
        text = ast.literal_eval(token.string)
        start, end = starts[token.start[0] - 1] + token.start[1], starts[token.end[0] - 1] + token.end[1]
        for quotes in ("'", '"', "'''", '"""'):
            yield "quotes", start, end, f"{quotes}{text}{quotes}"
        yield "raw", start, end, f"r{token.string}"
        yield "two strings", start, end, f"'' {token.string}"


def _parentheses(source: str, starts: Sequence[int]) -> Iterator[tuple[str, tuple[Splice, ...]]]:
    """Around every expression."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.expr) or node.end_lineno is None or node.end_col_offset is None:
            continue
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        for kind, left, right in (
            ("parentheses", "(", ")"),
            ("two parentheses", "((", "))"),
            ("parentheses and remarks", f"( {REMARK}\n  ", f" {REMARK}\n )"),
        ):
            yield kind, (Splice(start, start, left), Splice(end, end, right))


def _indented(source: str) -> Iterator[tuple[str, str]]:
    """Other units of indentation."""
    for unit in ("\t", "  ", "        "):
        lines = source.splitlines(keepends=True)
        depths = [(len(line) - len(line.lstrip(" "))) // 4 for line in lines]
        yield (
            "indentation",
            "".join(unit * depth + line[4 * depth :] for depth, line in zip(depths, lines, strict=True)),
        )
