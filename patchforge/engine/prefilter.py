"""Whether a piece of Python occurs in a text: quickly and perhaps wrongly before a parse, slowly and for certain.

A piece is a few tokens (``def is_oom``, ``torch.cuda``) or what a string says (``--directml``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache, lru_cache

_TOKEN = re.compile(r"\w+|[^\w\s()\\]")
_BETWEEN = rb"(?>[\s\\()]+|#[^\n]*+)*+"  #: what may stand between two tokens, and more
_QUOTES = frozenset("'\"")
_STRING = r"""[rbuf]{0,2}(?:
        \"\"\"(?:[^"\\]+|\\.|"(?!""))*+(?:\"\"\")?+ | '''(?:[^'\\]+|\\.|'(?!''))*+(?:''')?+
        | "(?:\\.|[^"\\\n])*+"?+ | '(?:\\.|[^'\\\n])*+'?+
    )"""
_ANY = re.compile(rf"\#[^\n]* | ({_STRING} | {_TOKEN.pattern})", re.DOTALL | re.IGNORECASE | re.VERBOSE)


def may_say(data: bytes, pieces: Iterable[str]) -> bool:
    """Whether one of ``pieces`` may occur in ``data``, however it is laid out. A comment counts; a no is certain."""
    for piece in pieces:
        tokens = _encoded(piece)
        if all(token in data for token in tokens) and (len(tokens) == 1 or _pattern(piece).search(data)):
            return True
    return False


def says(text: str, piece: str) -> bool:
    """Whether ``piece`` occurs in the code of ``text``, or is what one of its strings says. Comments say nothing."""
    code = _read(text)
    if _joined(_TOKEN.findall(piece)) in code:
        return True
    strings = (token for token in code.split("\0") if piece in token and not _QUOTES.isdisjoint((token[0], token[-1])))
    try:
        return any(ast.literal_eval(string) == piece for string in strings if not _formatted(string))
    except (SyntaxError, ValueError):
        return True  # what this Python cannot read is not known to lack it


@lru_cache(maxsize=8)
def _read(text: str) -> str:
    """The tokens of a text, joined; a string is one."""
    return _joined(filter(None, _ANY.findall(text)))


def _formatted(string: str) -> bool:
    """What it says is not known before it is run."""
    return "f" in re.split("['\"]", string)[0].lower()


def _joined(tokens: Iterable[str]) -> str:
    return "\0".join(["", *tokens, ""])


@cache
def _encoded(piece: str) -> tuple[bytes, ...]:
    return tuple(token.encode() for token in _TOKEN.findall(piece))


@cache
def _pattern(piece: str) -> re.Pattern[bytes]:
    return re.compile(_BETWEEN.join(map(re.escape, _encoded(piece))))
