"""Calls and values as text that is the same in every run, and the log of what a tree calls."""

from __future__ import annotations

import enum
import os
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class NotFakedError(NotImplementedError):
    """Code under proof called something of the faked backend that has no chosen answer."""


def canonical(value: object) -> str:
    """Text that depends on the value alone: no addresses, sets and mappings in order."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return repr(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{canonical(k)}: {canonical(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(canonical, value))) + "}"
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "(" + ", ".join(map(canonical, value)) + ")"
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    return _of_torch(value)


def _of_torch(value: object) -> str:
    kind = type(value)
    if kind.__module__ == "torch" and kind.__name__ in ("device", "dtype"):
        return str(value) if kind.__name__ == "dtype" else f"device({value})"
    if kind.__name__ in ("Tensor", "Parameter"):
        tensor: Any = value
        return f"{kind.__name__}({tuple(tensor.shape)}, {tensor.dtype}, {tensor.device})"
    return repr(value) if hasattr(kind, "CANONICAL") else f"<{kind.__module__}.{kind.__qualname__}>"


@dataclass
class CallLog:
    """Calls of faked functions, in order, that come straight from a file of ``tree``."""

    tree: str
    calls: list[str] = field(default_factory=list)
    unfaked: list[str] = field(default_factory=list)

    def watches(self, frame: types.FrameType) -> bool:
        """Whether the frame runs code of the tree (libraries' own calls are not recorded)."""
        return frame.f_code.co_filename.startswith(self.tree + os.sep)

    def take(self) -> list[str]:
        """The calls since the last take."""
        calls, self.calls = self.calls, []
        return calls

    def recorder(self, name: str, function: Callable[..., Any], *, faked: bool = True) -> Callable[..., Any]:
        """``function``, recorded under ``name``; where not ``faked``, code under proof gets NotFakedError."""

        def recorded(*args: Any, **kwargs: Any) -> Any:
            if not self.watches(sys._getframe(1)):  # noqa: SLF001 - who calls is the question
                return function(*args, **kwargs)
            call = f"{name}({', '.join(spelled(args, kwargs))})"
            if not faked:
                self.unfaked.append(call)
                raise NotFakedError(name)
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                self.calls.append(f"{call} ! {canonical(error)}")
                raise
            self.calls.append(f"{call} = {canonical(result)}")
            return result

        recorded.__name__ = recorded.__qualname__ = name.rpartition(".")[2]
        recorded.__module__ = name.rpartition(".")[0]
        return recorded


def spelled(args: Iterable[object], kwargs: Mapping[str, object]) -> list[str]:
    return [*map(canonical, args), *(f"{key}={canonical(value)}" for key, value in sorted(kwargs.items()))]
