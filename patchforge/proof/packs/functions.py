"""Calls: Python's harmless builtins, and what else an expression may call."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from patchforge.effort import spend
from patchforge.proof.packs.attributes import Method, get, has
from patchforge.proof.packs.limits import NotEvaluable, each, fit, leaves, weigh
from patchforge.proof.packs.values import Function, Unknown, raises, shown

if TYPE_CHECKING:
    from patchforge.proof.packs.evaluation import Evaluation


@dataclass(frozen=True, slots=True)
class UnknownKeywords:
    """``**x`` of an unknown value."""

    text: str


def builtins(evaluation: Evaluation) -> dict[str, Any]:
    """Name → what may be called by it."""
    return _plain_builtins() | {
        "getattr": get,
        "hasattr": has,
        "isinstance": lambda *args: _symbolic(evaluation, "isinstance", isinstance, args),
        "issubclass": lambda *args: _symbolic(evaluation, "issubclass", issubclass, args),
        "type": lambda *args: _type(evaluation, args),
    }


@lru_cache(maxsize=1)
def _plain_builtins() -> dict[str, Any]:
    kinds = {kind.__name__: kind for kind in (str, int, float, bool, tuple, list, dict, set, frozenset)}
    consuming = {function.__name__: _consuming(function) for function in (max, min, sum, any, all, sorted)}
    simple = {function.__name__: _simple(function) for function in (len, abs, round, divmod, repr)}
    lazy = {"zip": zip, "enumerate": enumerate, "reversed": reversed}
    return {
        **kinds,
        **consuming,
        **simple,
        **{name: _lazy(function) for name, function in lazy.items()},
        "range": _range,
        "map": _map,
        "filter": _filter,
    }


def _simple(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Any:
        weigh(*args, *more.values())
        return fit(function(*args, **more))

    call.__qualname__ = function.__name__
    return call


def _consuming(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(first: Any, *args: Any, **more: Any) -> Any:
        weigh(first, *args, *more.values())
        return fit(function(each(first) if not args or function is sum else first, *args, **more))

    call.__qualname__ = function.__name__
    return call


def _lazy(function: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Iterator[Any]:
        weigh(*args, *more.values())
        return (item for item in each(function(*args, **more)))

    call.__qualname__ = function.__name__
    return call


def _range(*args: Any) -> range:
    weigh(*args)
    return range(*args)


def _map(function: Any, *iterables: Any) -> Iterator[Any]:
    return (called(function, list(items), {}) for items in zip(*map(each, iterables), strict=False))


def _filter(function: Any, iterable: Any) -> Iterator[Any]:
    return (item for item in each(iterable) if (item if function is None else called(function, [item], {})))


def _symbolic(evaluation: Evaluation, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """The answer where it is known; of unknown values it is a value as well."""
    weigh(*args)
    if any(isinstance(leaf, Unknown) for leaf in leaves(args)):
        return Unknown(evaluation, f"{name}({', '.join(map(shown, args))})")
    if not all(isinstance(leaf, type) for leaf in leaves(args[1:])):
        raise NotEvaluable(name)
    return function(*args)


def _type(evaluation: Evaluation, args: tuple[Any, ...]) -> Any:
    if len(args) != 1:
        raise NotEvaluable("type")
    return Unknown(evaluation, f"type({shown(args[0])})") if isinstance(args[0], Unknown) else type(args[0])


def called(function: Any, args: list[Any], more: dict[str, Any]) -> Any:
    """Calls what may be called: unknown values, lambdas, harmless builtins and methods, and our own functions."""
    spend()
    if isinstance(function, (Unknown, Function, Method)) or function is raises:
        return function(*args, **more)
    if any(isinstance(value, UnknownKeywords) for value in more.values()):
        raise NotEvaluable("** of an unknown value")
    if isinstance(function, type):
        return _constructed(function, args, more)
    if isinstance(function, types.FunctionType):
        return function(*args, **more)
    raise TypeError(f"{type(function).__name__!r} object is not callable")


def _constructed(kind: type, args: list[Any], more: dict[str, Any]) -> Any:
    if kind not in _plain_builtins().values():
        raise NotEvaluable(kind.__name__)
    weigh(*args, *more.values())
    if kind in (tuple, list, set, frozenset) and len(args) == 1:
        return fit(kind(each(args[0])))
    if kind is dict and args and not isinstance(args[0], Mapping):
        return fit(dict(each(args[0]), **more))
    return fit(kind(*args, **more))
