"""Values as Nix expressions. What is emitted is data: no text can become code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from patchforge.errors import PatchforgeError

Value: TypeAlias = "bool | int | str | Sequence[Value] | Mapping[str, Value] | None"

_BARE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_'-]*")
_KEYWORDS = frozenset({"assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with"})
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LIMIT = 1 << 63  #: Nix has integers of 64 bits


def string(text: str) -> str:
    """In double quotes. PatchforgeError for what no Nix string holds: NUL and lone surrogates."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise PatchforgeError(
            f"{text!r} cannot be a Nix string",
            expected="text without NUL and lone surrogates",
            do="correct where it comes from",
        )
    escaped = "".join(_ESCAPES.get(character, character) for character in text)
    return '"' + escaped.replace("${", "\\${") + '"'


def name(text: str) -> str:
    """An attribute's name, quoted where it has to be."""
    return text if _BARE.fullmatch(text) and text not in _KEYWORDS else string(text)


def expression(value: Value, indent: int = 0) -> str:
    """Lists and sets one entry to a line, in the style of RFC 166; sets keep their order."""
    if isinstance(value, str):
        return string(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, Mapping):
        lines = [f"{name(key)} = {expression(each, indent + 1)};" for key, each in value.items()]
        return _block("{", lines, "}", indent)
    lines = [_element(each, indent + 1) for each in value]
    return _block("[", lines, "]", indent)


def _integer(value: int) -> str:
    if not -_LIMIT < value < _LIMIT:
        raise PatchforgeError(
            f"{value} does not fit a Nix integer", expected="64 bits", do="correct where it comes from"
        )
    return str(value)


def _element(value: Value, indent: int) -> str:
    """A negative number in a list would be read as a subtraction."""
    negative = isinstance(value, int) and not isinstance(value, bool) and value < 0
    text = expression(value, indent)
    return f"({text})" if negative else text


def _block(begin: str, lines: Sequence[str], end: str, indent: int) -> str:
    if not lines:
        return f"{begin} {end}"
    inner = "".join(f"{'  ' * (indent + 1)}{line}\n" for line in lines)
    return f"{begin}\n{inner}{'  ' * indent}{end}"
