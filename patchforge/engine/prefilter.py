"""Whether a piece of Python occurs in a text: quickly and perhaps wrongly before a parse, slowly and for certain.

A piece is a few tokens (``def is_oom``, ``torch.cuda``) or what a string says (``--directml``).
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable
from functools import cache

_TOKEN = re.compile(r"\w+|[^\w\s()]")
_BETWEEN = rb"(?>[\s\\()]+|#[^\n]*+)*+"  #: what may stand between two tokens, and more
_LAYOUT = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


def may_say(data: bytes, pieces: Iterable[str]) -> bool:
    """Whether one of ``pieces`` may occur in ``data``, however it is laid out. A comment counts; a no is certain."""
    for piece in pieces:
        words, pattern = _prepared(piece)
        if all(word in data for word in words) and (pattern is None or pattern.search(data)):
            return True
    return False


def says(text: str, piece: str) -> bool:
    """Whether ``piece`` occurs in the code of ``text``, or is what one of its strings says. Comments say nothing."""
    wanted = _TOKEN.findall(piece)
    try:
        tokens = [_value(token) for token in tokenize.generate_tokens(io.StringIO(text).readline) if _tells(token)]
    except (tokenize.TokenError, SyntaxError):
        return True  # what this Python cannot read is not known to lack it
    starts = (index for index, token in enumerate(tokens) if token == wanted[0])
    return piece in tokens or any(tokens[index : index + len(wanted)] == wanted for index in starts)


@cache
def _prepared(piece: str) -> tuple[tuple[bytes, ...], re.Pattern[bytes] | None]:
    tokens = [token.encode() for token in _TOKEN.findall(piece)]
    return tuple(tokens), re.compile(_BETWEEN.join(map(re.escape, tokens))) if len(tokens) > 1 else None


def _tells(token: tokenize.TokenInfo) -> bool:
    return token.type not in _LAYOUT and token.string not in ("(", ")")


def _value(token: tokenize.TokenInfo) -> str:
    if token.type != tokenize.STRING or "f" in token.string.partition(token.string[-1])[0].lower():
        return token.string
    value = ast.literal_eval(token.string)
    return value if isinstance(value, str) else token.string
