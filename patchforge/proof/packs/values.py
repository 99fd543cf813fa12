"""Values of which nothing is known but how they came to be, and what of ``torch`` is known."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from patchforge.effort import TooIntricate, spend
from patchforge.proof.packs.limits import LONGEST_TEXT, NotEvaluable
from patchforge.proof.packs.machines import (
    LACKING_ON_XPU,
    MODULES,
    NO_CUDA,
    NOT_TAKEN,
    QUIET_WITHOUT_CUDA,
    TAKEN_BY_XPU,
)

if TYPE_CHECKING:
    from patchforge.proof.packs.evaluation import Evaluation

#: Methods that ask about a text, and what shows it: a "cuda" that they get goes to no device.
_ASKS = frozenset(("startswith", "endswith", "replace", "get", "split", "find", "count", "index", "print"))


class Function:
    """A function that an expression makes."""

    __slots__ = ()

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation that it is a part of."""
        raise NotImplementedError

    @property
    def arity(self) -> int:
        """How many arguments it has a name for."""
        raise NotImplementedError

    def __call__(self, *args: Any, **more: Any) -> Any:
        """What it gives."""
        raise NotImplementedError


class Unknown:
    """A value of which nothing is known but how it came to be."""

    def __init__(self, evaluation: Evaluation, text: str) -> None:
        spend(1 + len(text) // 64)
        if len(text) > LONGEST_TEXT:
            raise TooIntricate
        self.__dict__["_evaluation"], self.__dict__["_text"] = evaluation, text

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        text = f"{self._text}.{name}"
        if name == "is_xpu":  # a tensor has it, and much that has is_cuda has not
            if self._evaluation.world.intel_alone:
                return True
            raise AttributeError(text)
        if not text.startswith(("torch.", "comfy.")):
            self._evaluation.read.add(f"{self._text}.to" if name == "cuda" else text)
        return Unknown(self._evaluation, text)

    def __call__(self, *args: Any, **more: Any) -> Any:
        owner, _, name = self._text.rpartition(".")
        if name in ("cuda", "to") and owner and not args and "device" in more:
            args = (more.pop("device"),)
        if name == "cuda" and owner and not self._evaluation.is_no_object(owner, args):
            name, args = "to", _as_to(args)
        if name == "startswith" and args == (("cuda", "xpu"),) and not self._evaluation.world.intel_alone:
            args = ("cuda",)
        if self._text == "comfy.model_management.get_torch_device":
            return "xpu" if self._evaluation.world.intel_alone else "cuda"
        if self._text == "torch.load" and "map_location" in more:
            default = None if self._evaluation.world.cuda else "cpu"
            more = {key: value for key, value in more.items() if key != "map_location" or value != default}
        if name not in _ASKS:
            given = [*args, *more.values()]
            self._evaluation.devices += [
                value for value in given if isinstance(value, str) and value.startswith("cuda")
            ]
        called = f"{owner}.{name}" if owner else name
        spelled = [*map(shown, args), *(f"{key}={shown(value)}" for key, value in sorted(more.items()))]
        text = f"{called}({', '.join(spelled)})"
        self._evaluation.calls.append(text)
        return Unknown(self._evaluation, text)

    def __bool__(self) -> bool:
        self._evaluation.asked[self._text] = None
        return bool(self._evaluation.truths[self._text])

    def __eq__(self, other: object) -> Any:
        if isinstance(other, str) and other.startswith("xpu"):
            return self._evaluation.world.intel_alone
        return Unknown(self._evaluation, f"({self._text} == {shown(other)})")

    def __ne__(self, other: object) -> Any:
        return Unknown(self._evaluation, f"({self._text} != {shown(other)})")

    def __hash__(self) -> int:
        return hash(self._text)

    def __contains__(self, item: object) -> bool:
        if isinstance(item, str) and item.startswith("xpu"):
            return bool(self._evaluation.world.intel_alone)
        return bool(Unknown(self._evaluation, f"({shown(item)} in {self._text})"))

    def __iter__(self) -> Iterator[Unknown]:
        return iter([Unknown(self._evaluation, f"{self._text}[{index}]") for index in range(2)])

    def __len__(self) -> int:
        return 2

    def __index__(self) -> int:
        return 2

    def __int__(self) -> int:
        return 2

    def __float__(self) -> float:
        return 2.0

    def __str__(self) -> str:
        return f"<{self._text}>"

    def __repr__(self) -> str:
        return f"<{self._text}>"

    def __format__(self, spec: str) -> str:
        return f"<{self._text}:{spec}>"

    def __getitem__(self, item: object) -> Unknown:
        if isinstance(item, slice):
            item = f"{item.start}:{item.stop}:{item.step}"
        return Unknown(self._evaluation, f"{self._text}[{shown(item)}]")


def _operator(symbol: str, *, swapped: bool = False) -> Callable[[Unknown, object], Unknown]:
    def apply(self: Unknown, other: object) -> Unknown:
        pair = (shown(other), self._text) if swapped else (self._text, shown(other))
        return Unknown(self._evaluation, f"({pair[0]} {symbol} {pair[1]})")

    return apply


_ARITHMETIC = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "and": "&",
    "or": "|",
    "xor": "^",
    "matmul": "@",
    "lshift": "<<",
    "rshift": ">>",
}
for _name, _symbol in _ARITHMETIC.items():
    setattr(Unknown, f"__{_name}__", _operator(_symbol))
    setattr(Unknown, f"__r{_name}__", _operator(_symbol, swapped=True))
for _name, _symbol in {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    setattr(Unknown, f"__{_name}__", _operator(_symbol))
for _name, _symbol in {"neg": "-", "pos": "+", "invert": "~"}.items():
    setattr(Unknown, f"__{_name}__", lambda self, sign=_symbol: Unknown(self._evaluation, f"({sign}{self._text})"))


class TorchValue(Unknown):
    """``torch`` itself: its CUDA and XPU sides answer as the world says."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__(evaluation, "torch")

    def __getattr__(self, name: str) -> Any:
        if name == "cuda":
            return _Backend(self._evaluation, "cuda")
        if name == "xpu":
            if not self._evaluation.world.has_xpu:
                raise AttributeError("module 'torch' has no attribute 'xpu'")
            return _Backend(self._evaluation, "xpu")
        return super().__getattr__(name)


class _Backend(Unknown):
    """``torch.cuda`` or ``torch.xpu``."""

    def __init__(self, evaluation: Evaluation, kind: str) -> None:
        super().__init__(evaluation, f"torch.{kind}")
        self.__dict__["_kind"] = kind

    def __getattr__(self, name: str) -> Any:
        world, kind = self._evaluation.world, self._kind
        there = world.cuda if kind == "cuda" else world.xpu
        if name == "is_available":
            return lambda: there
        if kind == "xpu" and name in LACKING_ON_XPU:
            raise AttributeError(f"module 'torch.xpu' has no attribute {name!r}")
        if kind == "xpu" and name in TAKEN_BY_XPU:
            return _Taking(self._evaluation, f"torch.xpu.{name}")
        value = super().__getattr__(name)
        if kind == "cuda" and not there and name not in QUIET_WITHOUT_CUDA:
            return _Module(self._evaluation, f"torch.cuda.{name}") if name in MODULES else raises
        return value


class _Taking(Unknown):
    """A function of ``torch.xpu`` that takes less than its namesake."""

    def __call__(self, *args: Any, **more: Any) -> Any:
        name = self._text.rpartition(".")[2]
        known = TAKEN_BY_XPU[name]
        others = [key for key in more if key not in known] or [shown(value) for value in args[len(known) :]]
        if others:
            raise TypeError(f"{others[0]} {NOT_TAKEN}{name}")
        return super().__call__(*args, **more)


class _Module(Unknown):
    """A module of ``torch.cuda`` whose functions raise without CUDA."""

    def __getattr__(self, name: str) -> Any:
        return raises


def raises(*_args: object, **_more: object) -> None:
    """What torch.cuda does without CUDA, whatever it is given."""
    raise AssertionError(NO_CUDA)


def _as_to(args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not args or args[0] is None:
        return ("cuda", *args[1:])
    return (f"cuda:{args[0]}" if isinstance(args[0], int) else args[0], *args[1:])


def shown(value: object) -> str:
    """Text that depends on the value and its type alone."""
    spend()
    if isinstance(value, Unknown):
        return str(value.__dict__["_text"])
    if isinstance(value, (types.FunctionType, Function)):
        return _shown_function(value)
    if isinstance(value, types.GeneratorType):
        text = f"generator{[shown(item) for item in value]}"
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{shown(key)}: {shown(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, (list, tuple, set, frozenset)):
        text = f"{type(value).__name__}{[shown(item) for item in value]}"
    else:
        text = repr(value) if isinstance(value, str) else f"{type(value).__name__} {value!r}"
    spend(len(text) // 64)
    if len(text) > 2 * LONGEST_TEXT:  # quotes in quotes double
        raise TooIntricate
    return text


def _shown_function(value: types.FunctionType | Function) -> str:
    evaluation: Evaluation | None
    if isinstance(value, Function):
        evaluation, count = value.evaluation, value.arity
    elif (evaluation := getattr(value.__globals__, "evaluation", None)) is None:
        return value.__qualname__
    else:
        count = value.__code__.co_argcount
    try:
        return f"function giving {shown(value(*(Unknown(evaluation, f'argument {index}') for index in range(count))))}"
    except (NotEvaluable, TooIntricate, RecursionError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001
        return f"function raising {type(error).__name__}: {error}"
