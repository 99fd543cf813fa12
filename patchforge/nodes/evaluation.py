"""Expressions of a stranger's file, evaluated on made-up machines without Python ever running them.

Every step is taken here: names that are not known stand for themselves, and of Python's own values only plain data and
harmless operations on it exist. There is no way from an expression to a module, a frame, a class or the inside of an
object of ours, and none to a number or a text so large that it takes time or memory. What is not known here is Beyond,
which proves nothing.
"""

from __future__ import annotations

import ast
import operator
import re
import string
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from patchforge.effort import TooIntricate, spend
from patchforge.nodes.code import Code
from patchforge.nodes.forms import SILENT
from patchforge.nodes.helpers import helpers

NO_CUDA = "Torch not compiled with CUDA enabled"
_ASKS = frozenset(("startswith", "endswith", "replace", "get", "split", "find", "count", "index", "print"))
_MOST = 10_000  #: parts of a value, or numbers in a range
_LONGEST = 100_000  #: characters of a text
_WIDEST = 4096  #: bits of a number


class Beyond(Exception):
    """An expression does what is not known here; its value is not known either."""


@dataclass(frozen=True, slots=True)
class World:
    """One made-up machine."""

    name: str
    cuda: bool
    xpu: bool
    has_xpu: bool = True  #: torch.xpu exists


WORLDS = (
    World("CUDA alone", cuda=True, xpu=False),
    World("CUDA, and a torch without torch.xpu", cuda=True, xpu=False, has_xpu=False),
    World("CUDA beside an XPU", cuda=True, xpu=True),
    World("no accelerator", cuda=False, xpu=False),
)
XPU = World("an XPU alone", cuda=False, xpu=True)


@dataclass
class Outcome:
    """What an evaluation gave."""

    value: object
    error: str
    calls: list[str]
    devices: list[str]
    asked: dict[str, None]  #: values whose truth was asked for, in order
    read: set[str]  #: attributes of unknown values, any of which may be missing

    def shown(self, *, truth: bool = False) -> str:
        """All that is compared, as text. ``truth``: whether the value holds, and which unknown values decided that."""
        holds = truth and bool(self.value)
        said = f"{holds} by {list(self.asked)}" if truth else shown(self.value)
        return f"{self.error or said} after {self.calls}"


class Truths(dict[str, bool]):
    """Which unknown values hold; one that is asked for the first time does not."""

    def __missing__(self, text: str) -> bool:
        self[text] = False
        return False


class Run:
    """One evaluation on one made-up machine."""

    def __init__(self, code: Code, world: World, truths: Truths) -> None:
        self.code, self.world, self.truths = code, world, truths
        self.calls: list[str] = []
        self.asked: dict[str, None] = {}
        self.read: set[str] = set()
        self.devices: list[str] = []
        self.torch = _Torch(self)
        self.names = _Names(self)
        self.names.update(_own_functions(self))

    def evaluate(self, node: ast.expr) -> Outcome:
        """The value of an expression. Beyond for what is not known here, TooIntricate for what takes too long."""
        value: object = None
        error = ""
        self.devices, self.calls, self.asked, self.read = [], [], {}, set()
        try:
            value = _Evaluation(self).of(node, {})
            shown(value)
        except (Beyond, TooIntricate):
            raise
        except (RecursionError, MemoryError):
            raise TooIntricate from None
        except Exception as problem:  # noqa: BLE001 - both sides must raise the same
            error = f"{type(problem).__name__}: {problem}"
        return Outcome(value, error, self.calls, self.devices, self.asked, self.read)


@lru_cache(maxsize=1)
def _helpers() -> types.CodeType:
    return compile("\n\n".join(helpers().values()), "<patchforge>", "exec")


def _answers(code: Code) -> frozenset[str]:
    """Names that hold nothing but the answer of ``torch.cuda.is_available()``."""
    return code.once("answers", lambda: _only_answers(code))


def _only_answers(code: Code) -> frozenset[str]:
    stored: dict[str, set[bool]] = {}
    for node in code.nodes:
        if isinstance(node, ast.arg):
            stored[node.arg] = {False, True}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            assign = code.parent(node)
            value = assign.value if isinstance(assign, ast.Assign) else None
            asks = isinstance(value, ast.Call) and code.name(value.func) == "torch.cuda.is_available"
            stored.setdefault(node.id, set()).add(asks)
    return frozenset(name for name, asks in stored.items() if asks == {True})


class _Own(dict[str, Any]):
    """What our own functions see."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        theirs = {"isinstance": isinstance, "int": int, "str": str, "bool": bool, "object": object, "hasattr": hasattr}
        self["__builtins__"] = {**theirs, "__import__": lambda *_args, **_more: run.torch}


def _own_functions(run: Run) -> dict[str, Any]:
    names = _Own(run)
    exec(_helpers(), names)  # noqa: S102 - from our own file
    return {name: names[name] for name in helpers()}


class _Names(dict[str, Any]):
    """Every name that an expression uses: torch, our functions, harmless builtins, else a value that is only itself."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.harmless = _builtins(run)

    def __missing__(self, name: str) -> Any:
        if name in self.harmless:
            return self.harmless[name]
        if name in _answers(self.run.code):
            return self.run.world.cuda
        full = self.run.code.aliases.get(name, name)
        head, *rest = full.split(".")
        value: Any = self.run.torch if head == "torch" else Value(self.run, head)
        for part in rest:
            value = _attribute(value, part)
        if name == "comfy":
            return Value(self.run, "comfy")
        return value


class Value:
    """A value of which nothing is known but how it came to be."""

    def __init__(self, run: Run, text: str) -> None:
        spend(1 + len(text) // 64)
        if len(text) > _LONGEST:
            raise TooIntricate
        self.__dict__["_run"], self.__dict__["_text"] = run, text

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        text = f"{self._text}.{name}"
        if name == "is_xpu":  # a tensor has it, and much that has is_cuda has not
            if self._run.world.xpu and not self._run.world.cuda:
                return True
            raise AttributeError(text)
        if not text.startswith(("torch.", "comfy.")):
            self._run.read.add(f"{self._text}.to" if name == "cuda" else text)
        return Value(self._run, text)

    def __call__(self, *args: Any, **more: Any) -> Any:
        owner, _, name = self._text.rpartition(".")
        if name == "cuda" and owner:
            name, args = "to", _as_to(args)
        if name == "startswith" and args == (("cuda", "xpu"),) and (self._run.world.cuda or not self._run.world.xpu):
            args = ("cuda",)
        if self._text == "comfy.model_management.get_torch_device":
            return "xpu" if self._run.world.xpu and not self._run.world.cuda else "cuda"
        if self._text == "torch.load" and "map_location" in more:
            default = None if self._run.world.cuda else "cpu"
            more = {key: value for key, value in more.items() if key != "map_location" or value != default}
        if name not in _ASKS:
            given = [*args, *more.values()]
            self._run.devices += [value for value in given if isinstance(value, str) and value.startswith("cuda")]
        called = f"{owner}.{name}" if owner else name
        spelled = [*map(shown, args), *(f"{key}={shown(value)}" for key, value in sorted(more.items()))]
        text = f"{called}({', '.join(spelled)})"
        self._run.calls.append(text)
        return Value(self._run, text)

    def __bool__(self) -> bool:
        self._run.asked[self._text] = None
        return bool(self._run.truths[self._text])

    def __eq__(self, other: object) -> Any:
        if isinstance(other, str) and other.startswith("xpu"):
            return self._run.world.xpu and not self._run.world.cuda
        return Value(self._run, f"({self._text} == {shown(other)})")

    def __ne__(self, other: object) -> Any:
        return Value(self._run, f"({self._text} != {shown(other)})")

    def __hash__(self) -> int:
        return hash(self._text)

    def __contains__(self, item: object) -> bool:
        if isinstance(item, str) and item.startswith("xpu"):
            return self._run.world.xpu and not self._run.world.cuda
        return bool(Value(self._run, f"({shown(item)} in {self._text})"))

    def __iter__(self) -> Iterator[Value]:
        return iter([Value(self._run, f"{self._text}[{index}]") for index in range(2)])

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

    def __getitem__(self, item: object) -> Value:
        if isinstance(item, slice):
            item = f"{item.start}:{item.stop}:{item.step}"
        return Value(self._run, f"{self._text}[{shown(item)}]")


def _operator(symbol: str, *, swapped: bool = False) -> Callable[[Value, object], Value]:
    def apply(self: Value, other: object) -> Value:
        pair = (shown(other), self._text) if swapped else (self._text, shown(other))
        return Value(self._run, f"({pair[0]} {symbol} {pair[1]})")

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
    setattr(Value, f"__{_name}__", _operator(_symbol))
    setattr(Value, f"__r{_name}__", _operator(_symbol, swapped=True))
for _name, _symbol in {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    setattr(Value, f"__{_name}__", _operator(_symbol))
for _name, _symbol in {"neg": "-", "pos": "+", "invert": "~"}.items():
    setattr(Value, f"__{_name}__", lambda self, sign=_symbol: Value(self._run, f"({sign}{self._text})"))


class _Torch(Value):
    """``torch`` itself: its CUDA and XPU sides answer as the world says."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, "torch")

    def __getattr__(self, name: str) -> Any:
        if name == "cuda":
            return _Backend(self._run, "cuda")
        if name == "xpu":
            if not self._run.world.has_xpu:
                raise AttributeError("module 'torch' has no attribute 'xpu'")
            return _Backend(self._run, "xpu")
        return super().__getattr__(name)


class _Backend(Value):
    """``torch.cuda`` or ``torch.xpu``."""

    def __init__(self, run: Run, kind: str) -> None:
        super().__init__(run, f"torch.{kind}")
        self.__dict__["_kind"] = kind

    def __getattr__(self, name: str) -> Any:
        run, kind = self._run, self._kind
        there = run.world.cuda if kind == "cuda" else run.world.xpu
        if name == "is_available":
            return lambda: there
        if kind == "xpu" and name in ("ipc_collect", "amp", "nvtx", "OutOfMemoryError", "get_device_capability_"):
            raise AttributeError(f"module 'torch.xpu' has no attribute {name!r}")
        value = super().__getattr__(name)
        if kind == "cuda" and not there and name not in SILENT and name not in ("amp", "OutOfMemoryError"):
            return _raises
        return value


def _raises(*_args: object, **_more: object) -> None:
    raise AssertionError(NO_CUDA)


def _as_to(args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not args or args[0] is None:
        return ("cuda", *args[1:])
    return (f"cuda:{args[0]}" if isinstance(args[0], int) else args[0], *args[1:])


def shown(value: object) -> str:
    """Text that depends on the value and its type alone."""
    spend()
    if isinstance(value, Value):
        return str(value.__dict__["_text"])
    if isinstance(value, (types.FunctionType, _Function)):
        return _shown_function(value)
    if isinstance(value, types.GeneratorType):
        text = f"generator{[shown(one) for one in value]}"
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{shown(key)}: {shown(one)}" for key, one in value.items()) + "}"
    elif isinstance(value, (list, tuple, set, frozenset)):
        text = f"{type(value).__name__}{[shown(one) for one in value]}"
    else:
        text = repr(value) if isinstance(value, str) else f"{type(value).__name__} {value!r}"
    spend(len(text) // 64)
    if len(text) > 2 * _LONGEST:  # quotes in quotes double
        raise TooIntricate
    return text


def _shown_function(value: types.FunctionType | _Function) -> str:
    run: Run | None
    if isinstance(value, _Function):
        run, name, count = value.run, "<lambda>", value.arity
    else:
        run, name, count = getattr(value.__globals__, "run", None), value.__qualname__, value.__code__.co_argcount
    if run is None:
        return name
    try:
        return f"function giving {shown(value(*(Value(run, f'argument {index}') for index in range(count))))}"
    except (Beyond, TooIntricate, RecursionError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001
        return f"function raising {type(error).__name__}: {error}"


def _weighed(*values: object) -> None:
    """Spends a step for each part of the values; TooIntricate where they have too many, also by sharing parts."""
    todo, count = list(values), 0
    while todo:
        value = todo.pop()
        count += 1
        spend()
        if count > _MOST:
            raise TooIntricate
        if isinstance(value, Mapping):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            todo += value
        elif isinstance(value, (str, bytes)):
            spend(len(value) // 64)
            if len(value) > _LONGEST:
                raise TooIntricate
        elif type(value) is int and value.bit_length() > _WIDEST:
            raise TooIntricate


def _fit(value: Any) -> Any:
    """The value, where it is not too large."""
    _weighed(value)
    return value


def _each(value: Any) -> Iterator[Any]:
    """What a loop over a value sees, a step for each."""
    if isinstance(value, range) and len(value) > _MOST:
        raise TooIntricate
    for one in value:
        spend()
        yield one


# --- attributes and methods of plain data

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
class _Method:
    """A harmless method of plain data."""

    owner: Any
    name: str

    def __call__(self, *args: Any, **more: Any) -> Any:
        _weighed(self.owner, *args, *more.values())
        if isinstance(self.owner, str):
            given = sum(len(one) if isinstance(one, str) else 1 for one in _leaves((*args, *more.values())))
            if (len(self.owner) + 1) * (given + 1) > _LONGEST * 10:
                raise TooIntricate
            if self.name == "format":
                _harmless_format(self.owner)
        found = getattr(self.owner, self.name)(*args, **more)
        return list(found) if self.name in ("keys", "values", "items") else _fit(found)


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple, set, frozenset)):
            yield from _leaves(value)
        else:
            yield value


def _attribute(value: Any, name: str) -> Any:
    if isinstance(value, Value):
        return type(value).__getattr__(value, name)  # never what Python itself would find
    if name in _METHODS.get(type(value), ()):
        return _Method(value, name)
    if name.startswith("_") or hasattr(type(value), name) or isinstance(value, type):
        raise Beyond(f".{name}")
    if isinstance(value, (types.FunctionType, _Function, _Method, types.GeneratorType)):
        raise Beyond(f".{name}")
    raise AttributeError(f"{type(value).__name__!r} object has no attribute {name!r}")


_MISSING = object()


def _get(value: Any, name: Any, default: Any = _MISSING) -> Any:
    if not isinstance(name, str):
        raise Beyond("getattr")
    try:
        return _attribute(value, name)
    except AttributeError:
        if default is _MISSING:
            raise
        return default


def _has(value: Any, name: Any) -> bool:
    try:
        _get(value, name)
    except AttributeError:
        return False
    return True


# --- harmless builtins


def _builtins(run: Run) -> dict[str, Any]:
    """Name → what may be called by it."""
    return _plain_builtins() | {
        "getattr": _get,
        "hasattr": _has,
        "isinstance": lambda *args: _symbolic(run, "isinstance", isinstance, args),
        "issubclass": lambda *args: _symbolic(run, "issubclass", issubclass, args),
        "type": lambda *args: _type(run, args),
    }


@lru_cache(maxsize=1)
def _plain_builtins() -> dict[str, Any]:
    kinds = {kind.__name__: kind for kind in (str, int, float, bool, tuple, list, dict, set, frozenset)}
    consuming = {one.__name__: _consuming(one) for one in (max, min, sum, any, all, sorted)}
    simple = {one.__name__: _simple(one) for one in (len, abs, round, divmod, repr)}
    lazy = {"zip": zip, "enumerate": enumerate, "reversed": reversed}
    return {
        **kinds,
        **consuming,
        **simple,
        **{name: _lazy(one) for name, one in lazy.items()},
        "range": _range,
        "map": _map,
        "filter": _filter,
    }


def _simple(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Any:
        _weighed(*args, *more.values())
        return _fit(function(*args, **more))

    call.__qualname__ = function.__name__
    return call


def _consuming(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(first: Any, *args: Any, **more: Any) -> Any:
        _weighed(first, *args, *more.values())
        return _fit(function(_each(first) if not args or function is sum else first, *args, **more))

    call.__qualname__ = function.__name__
    return call


def _lazy(function: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Iterator[Any]:
        _weighed(*args, *more.values())
        return (one for one in _each(function(*args, **more)))

    call.__qualname__ = function.__name__
    return call


def _range(*args: Any) -> range:
    _weighed(*args)
    return range(*args)


def _map(function: Any, *iterables: Any) -> Iterator[Any]:
    return (_called(function, list(items), {}) for items in zip(*map(_each, iterables), strict=False))


def _filter(function: Any, iterable: Any) -> Iterator[Any]:
    return (one for one in _each(iterable) if (one if function is None else _called(function, [one], {})))


def _symbolic(run: Run, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """The answer where it is known; of unknown values it is a value as well."""
    _weighed(*args)
    if any(isinstance(one, Value) for one in _leaves(args)):
        return Value(run, f"{name}({', '.join(map(shown, args))})")
    if not all(isinstance(one, type) for one in _leaves(args[1:])):
        raise Beyond(name)
    return function(*args)


def _type(run: Run, args: tuple[Any, ...]) -> Any:
    if len(args) != 1:
        raise Beyond("type")
    return Value(run, f"type({shown(args[0])})") if isinstance(args[0], Value) else type(args[0])


def _called(function: Any, args: list[Any], more: dict[str, Any]) -> Any:
    """Calls what may be called: unknown values, lambdas, harmless builtins and methods, and our own functions."""
    spend()
    if isinstance(function, (Value, _Function, _Method)):
        return function(*args, **more)
    if any(isinstance(one, _Symbol) for one in more.values()):
        raise Beyond("** of an unknown value")
    if isinstance(function, type):
        return _constructed(function, args, more)
    if isinstance(function, types.FunctionType):
        return function(*args, **more)
    raise TypeError(f"{type(function).__name__!r} object is not callable")


def _constructed(kind: type, args: list[Any], more: dict[str, Any]) -> Any:
    if kind not in _plain_builtins().values():
        raise Beyond(kind.__name__)
    _weighed(*args, *more.values())
    if kind in (tuple, list, set, frozenset) and len(args) == 1:
        return _fit(kind(_each(args[0])))
    if kind is dict and args and not isinstance(args[0], Mapping):
        return _fit(dict(_each(args[0]), **more))
    return _fit(kind(*args, **more))


# --- texts with values in them

_WIDE = re.compile(r"\d{3,}|\*")
_PERCENT = re.compile(r"%(?:\([^)]{0,100}\))?([^a-zA-Z%]*)")


def _harmless_spec(spec: str) -> str:
    if _WIDE.search(spec):
        raise Beyond("a wide format")
    return spec


def _harmless_format(text: str) -> None:
    for _, name, spec, _ in string.Formatter().parse(text):
        if (name and not name.isidentifier() and not name.isdecimal()) or "{" in (spec or ""):
            raise Beyond("a format that looks into values")
        _harmless_spec(spec or "")


# --- operators

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.MatMult: operator.matmul,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda one, other: one in other,
    ast.NotIn: lambda one, other: one not in other,
}


def _computed(symbol: ast.operator, one: Any, other: Any) -> Any:
    _weighed(one, other)
    if isinstance(symbol, ast.Mod) and isinstance(one, (str, bytes)):
        for spec in _PERCENT.findall(one if isinstance(one, str) else one.decode("latin-1")):
            _harmless_spec(spec)
    if isinstance(symbol, (ast.Pow, ast.LShift)) and isinstance(one, int) and isinstance(other, int):
        width = one.bit_length() * other if isinstance(symbol, ast.Pow) else one.bit_length() + other
        if width > _WIDEST:
            raise TooIntricate
    if isinstance(symbol, ast.Mult):
        for many, times in ((one, other), (other, one)):
            if isinstance(many, (str, bytes, list, tuple)) and isinstance(times, int) and len(many) * times > _MOST:
                raise TooIntricate
    return _fit(_BINARY[type(symbol)](one, other))


# --- expressions

_Scope = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Symbol:
    """``**x`` of an unknown value."""

    text: str


class _Evaluation:
    """An interpreter of expressions: a method for each kind of node; what has none is Beyond."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def of(self, node: ast.AST | None, scope: _Scope) -> Any:
        spend()
        method = getattr(self, f"on_{type(node).__name__.lower()}", None)
        if method is None:
            raise Beyond(type(node).__name__)
        return method(node, scope)

    def on_nonetype(self, _node: None, _scope: _Scope) -> None:
        return None

    def on_constant(self, node: ast.Constant, _scope: _Scope) -> Any:
        return _fit(node.value)

    def on_name(self, node: ast.Name, scope: _Scope) -> Any:
        return scope[node.id] if node.id in scope else self.run.names[node.id]

    def on_attribute(self, node: ast.Attribute, scope: _Scope) -> Any:
        return _attribute(self.of(node.value, scope), node.attr)

    def on_call(self, node: ast.Call, scope: _Scope) -> Any:
        function = self.of(node.func, scope)
        args = self.items(node.args, scope)
        more: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.of(keyword.value, scope)
            if keyword.arg is not None:
                more[keyword.arg] = value
            elif isinstance(value, Value):
                more[f"**{shown(value)}"] = _Symbol(shown(value))
            elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
                more.update(value)
            else:
                raise TypeError("keywords must be strings")
        return _called(function, args, more)

    def items(self, nodes: Sequence[ast.expr], scope: _Scope) -> list[Any]:
        """The values of a display or of a call's arguments, with ``*x`` unfolded."""
        found: list[Any] = []
        for node in nodes:
            found += _each(self.of(node.value, scope)) if isinstance(node, ast.Starred) else [self.of(node, scope)]
            if len(found) > _MOST:
                raise TooIntricate
        return found

    def on_list(self, node: ast.List, scope: _Scope) -> list[Any]:
        return self.items(node.elts, scope)

    def on_tuple(self, node: ast.Tuple, scope: _Scope) -> tuple[Any, ...]:
        return tuple(self.items(node.elts, scope))

    def on_set(self, node: ast.Set, scope: _Scope) -> set[Any]:
        return set(_fit(self.items(node.elts, scope)))

    def on_dict(self, node: ast.Dict, scope: _Scope) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, part in zip(node.keys, node.values, strict=True):
            if key is None:
                found.update(self.of(part, scope))
            else:
                found[_fit(self.of(key, scope))] = self.of(part, scope)
        return found

    def on_binop(self, node: ast.BinOp, scope: _Scope) -> Any:
        return _computed(node.op, self.of(node.left, scope), self.of(node.right, scope))

    def on_unaryop(self, node: ast.UnaryOp, scope: _Scope) -> Any:
        return _UNARY[type(node.op)](self.of(node.operand, scope))

    def on_boolop(self, node: ast.BoolOp, scope: _Scope) -> Any:
        value: Any = None
        for part in node.values:
            value = self.of(part, scope)
            if bool(value) is isinstance(node.op, ast.Or):
                return value
        return value

    def on_compare(self, node: ast.Compare, scope: _Scope) -> Any:
        left, result = self.of(node.left, scope), None
        for number, (symbol, part) in enumerate(zip(node.ops, node.comparators, strict=True)):
            right = self.of(part, scope)
            _weighed(left, right)
            result = _COMPARE[type(symbol)](left, right)
            if number < len(node.ops) - 1 and not result:
                return result
            left = right
        return result

    def on_ifexp(self, node: ast.IfExp, scope: _Scope) -> Any:
        return self.of(node.body if self.of(node.test, scope) else node.orelse, scope)

    def on_subscript(self, node: ast.Subscript, scope: _Scope) -> Any:
        value = self.of(node.value, scope)
        item = self.of(node.slice, scope)
        if not isinstance(value, (Value, str, bytes, list, tuple, dict, range)):
            raise Beyond("[]")
        return value[_fit(item)]

    def on_slice(self, node: ast.Slice, scope: _Scope) -> slice:
        return slice(self.of(node.lower, scope), self.of(node.upper, scope), self.of(node.step, scope))

    def on_joinedstr(self, node: ast.JoinedStr, scope: _Scope) -> str:
        pieces: list[str] = []
        length = 0
        for part in node.values:
            pieces.append(str(part.value) if isinstance(part, ast.Constant) else self.of(part, scope))
            length += len(pieces[-1])
            if length > _LONGEST:
                raise TooIntricate
        return "".join(pieces)

    def on_formattedvalue(self, node: ast.FormattedValue, scope: _Scope) -> str:
        value = _fit(self.of(node.value, scope))
        spec = _harmless_spec(self.of(node.format_spec, scope) or "")
        conversions: dict[int, Callable[[Any], str]] = {ord("s"): str, ord("r"): repr, ord("a"): ascii}
        return format(conversions[node.conversion](value) if node.conversion in conversions else value, spec)

    def on_lambda(self, node: ast.Lambda, scope: _Scope) -> _Function:
        arguments = node.args
        return _Function(
            self,
            node,
            scope,
            [self.of(one, scope) for one in arguments.defaults],
            {
                name.arg: self.of(one, scope)
                for name, one in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
                if one is not None
            },
        )

    def on_listcomp(self, node: ast.ListComp, scope: _Scope) -> list[Any]:
        return _fit([self.of(node.elt, inner) for inner in self.loops(node.generators, scope)])  # type: ignore[no-any-return]

    def on_setcomp(self, node: ast.SetComp, scope: _Scope) -> set[Any]:
        return {_fit(self.of(node.elt, inner)) for inner in self.loops(node.generators, scope)}

    def on_dictcomp(self, node: ast.DictComp, scope: _Scope) -> dict[Any, Any]:
        loops = self.loops(node.generators, scope)
        return {_fit(self.of(node.key, inner)): self.of(node.value, inner) for inner in loops}

    def on_generatorexp(self, node: ast.GeneratorExp, scope: _Scope) -> Iterator[Any]:
        return (self.of(node.elt, inner) for inner in self.loops(node.generators, scope))

    def loops(self, generators: Sequence[ast.comprehension], scope: _Scope) -> Iterator[_Scope]:
        """The names of a comprehension, once for each turn."""
        if not generators:
            yield scope
            return
        first, *rest = generators
        if first.is_async:
            raise Beyond("async for")
        for value in _each(self.of(first.iter, scope)):
            inner = dict(scope)
            self.bind(first.target, value, inner)
            if all(self.of(test, inner) for test in first.ifs):
                yield from self.loops(rest, inner)

    def bind(self, target: ast.expr, value: Any, scope: _Scope) -> None:
        """Gives a target of a comprehension its value."""
        if isinstance(target, ast.Name):
            scope[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            values = list(_each(value))
            if len(values) != len(target.elts):
                raise ValueError(f"{len(values)} values for {len(target.elts)} names")
            for part, one in zip(target.elts, values, strict=True):
                self.bind(part, one, scope)
        else:
            raise Beyond("a target of a loop")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Function:
    """A lambda."""

    evaluation: _Evaluation
    node: ast.Lambda
    scope: _Scope
    defaults: list[Any]
    keywords: dict[str, Any]

    @property
    def run(self) -> Run:
        """The evaluation that it is a part of."""
        return self.evaluation.run

    @property
    def arity(self) -> int:
        """How many arguments it has a name for."""
        return len(self.node.args.posonlyargs) + len(self.node.args.args)

    def __call__(self, *args: Any, **more: Any) -> Any:
        return self.evaluation.of(self.node.body, {**self.scope, **self.bound(args, more)})

    def bound(self, args: Sequence[Any], more: Mapping[str, Any]) -> _Scope:
        """Its arguments by name; TypeError where they do not fit."""
        wanted = self.node.args
        names = [one.arg for one in (*wanted.posonlyargs, *wanted.args)]
        only = [one.arg for one in wanted.kwonlyargs]
        found = dict(zip(names[len(names) - len(self.defaults) :], self.defaults, strict=True)) | self.keywords
        found |= dict(zip(names, args, strict=False))
        rest = {name: value for name, value in more.items() if name not in (*names, *only)}
        found |= {name: value for name, value in more.items() if name not in rest}
        if (rest and not wanted.kwarg) or (len(args) > len(names) and not wanted.vararg):
            raise TypeError("<lambda>() got an argument that it does not take")
        if missing := [name for name in (*names, *only) if name not in found]:
            raise TypeError(f"<lambda>() misses {', '.join(missing)}")
        if wanted.vararg:
            found[wanted.vararg.arg] = tuple(args[len(names) :])
        if wanted.kwarg:
            found[wanted.kwarg.arg] = rest
        return found
