"""Attributes and methods: those of unknown values, and the harmless ones of plain data."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchforge.effort import TooIntricate
from patchforge.proof.packs.limits import LONGEST_TEXT, NotEvaluable, fit, leaves, weigh
from patchforge.proof.packs.texts import harmless_format
from patchforge.proof.packs.values import Function, Unknown

_TEXT = (
    "startswith endswith replace split rsplit partition rpartition strip lstrip rstrip lower upper title capitalize"
    " casefold find rfind index count join isdigit isdecimal isalpha isnumeric format removeprefix removesuffix"
    " splitlines"
)
_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(_TEXT.split()),
    list: frozenset(("index", "count", "copy")),
    tuple: frozenset(("index", "count")),
    dict: frozenset(("get", "keys", "values", "items", "copy")),
    int: frozenset(("bit_length",)),
    bool: frozenset(),
    float: frozenset(("is_integer",)),
}


@dataclass(frozen=True, slots=True)
class Method:
    """A harmless method of plain data."""

    owner: Any
    name: str

    def __call__(self, *args: Any, **more: Any) -> Any:
        weigh(self.owner, *args, *more.values())
        if isinstance(self.owner, str):
            given = sum(len(leaf) if isinstance(leaf, str) else 1 for leaf in leaves((*args, *more.values())))
            if (len(self.owner) + 1) * (given + 1) > LONGEST_TEXT * 10:
                raise TooIntricate
            if self.name == "format":
                harmless_format(self.owner)
        result = getattr(self.owner, self.name)(*args, **more)
        return list(result) if self.name in ("keys", "values", "items") else fit(result)


def attribute(value: Any, name: str) -> Any:
    """``value.name`` as far as it is harmless. AttributeError as Python would raise it."""
    if isinstance(value, Unknown):
        return type(value).__getattr__(value, name)  # never what Python itself would find
    if name in _METHODS.get(type(value), ()):
        return Method(value, name)
    if name.startswith("_") or hasattr(type(value), name) or isinstance(value, type):
        raise NotEvaluable(f".{name}")
    if isinstance(value, (types.FunctionType, Function, Method, types.GeneratorType)):
        raise NotEvaluable(f".{name}")
    raise AttributeError(f"{type(value).__name__!r} object has no attribute {name!r}")


_MISSING = object()


def get(value: Any, name: Any, default: Any = _MISSING) -> Any:
    """``getattr``."""
    if not isinstance(name, str):
        raise NotEvaluable("getattr")
    try:
        return attribute(value, name)
    except AttributeError:
        if default is _MISSING:
            raise
        return default


def has(value: Any, name: Any) -> bool:
    """``hasattr``."""
    try:
        get(value, name)
    except AttributeError:
        return False
    return True
