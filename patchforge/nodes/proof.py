"""The proof that a converted file does on CUDA what it did, and names no CUDA device beside an XPU.

It knows nothing of the rules. The syntax trees before and after are walked side by side; where an expression differs,
both are evaluated with every unknown name standing for itself, in every way in which unknown values may hold or not,
on machines made up for the purpose:

* CUDA alone, CUDA beside an XPU, no accelerator: both give the same value, of the same type, raise the same, and call
  the same functions in the same order (``is_available`` may be asked more often);
* an XPU alone: the new expression calls nothing of ``torch.cuda`` that raises there, and passes no "cuda" device on.

What may be added is closed: our functions, behind the imports; ``name = _patchforge_choice(name)``; an arm that asks
for an XPU behind one that asks for CUDA. ``x.cuda(i)`` counts as ``x.to("cuda:i")``.
Two options change more, and the proof takes their word: ``get_torch_device`` counts as the CUDA device, and
``torch.load`` may read to the CPU where there is no CUDA.
"""

from __future__ import annotations

import ast
import builtins
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from patchforge.errors import CheckFailed
from patchforge.nodes.code import Code
from patchforge.nodes.forms import SILENT

_NO_CUDA = "Torch not compiled with CUDA enabled"
_BUILTINS = [
    "str",
    "int",
    "float",
    "bool",
    "len",
    "range",
    "isinstance",
    "issubclass",
    "hasattr",
    "getattr",
    "tuple",
    "list",
    "dict",
    "set",
    "frozenset",
    "max",
    "min",
    "sum",
    "abs",
    "any",
    "all",
    "zip",
    "enumerate",
    "map",
    "filter",
    "sorted",
    "reversed",
    "type",
    "round",
    "divmod",
    "repr",
]
_ASKS = frozenset(("startswith", "endswith", "replace", "get", "split", "find", "count", "index", "print"))
_MOST_WAYS = 256  #: in which unknown values may be true or false in one expression
_DEEPEST = 10_000  #: operations on unknown values in one expression


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
class Proved:
    """How much was looked at."""

    expressions: int = 0
    arms: int = 0


def prove(before: Code, after: Code) -> Proved:
    """CheckFailed where ``after`` may differ on CUDA, or names CUDA beside an XPU."""
    proved = Proved()
    _Walk(before, after, proved).bodies(before.tree.body, after.tree.body)
    return proved


class _Walk:
    def __init__(self, before: Code, after: Code, proved: Proved) -> None:
        self.before, self.after, self.proved = before, after, proved

    def bodies(self, old: Sequence[ast.stmt], new: Sequence[ast.stmt]) -> None:
        kept = [statement for statement in new if not self.ours(statement, old)]
        for one, other in zip_longest(old, kept):
            if one is None or other is None:
                raise self.refused(one or other, "a statement more or less")
            self.statement(one, other)

    def ours(self, statement: ast.stmt, old: Sequence[ast.stmt]) -> bool:
        """What may be added: our functions, and the mapping of a choice."""
        if isinstance(statement, ast.FunctionDef) and statement.name.startswith("_patchforge_"):
            return not any(isinstance(one, ast.FunctionDef) and one.name == statement.name for one in old)
        text = ast.unparse(statement)
        if text == "import comfy.model_management":
            return not any(ast.unparse(one) == text for one in old)
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            return text == f"{name} = _patchforge_choice({name})"
        return False

    def statement(self, old: ast.stmt, new: ast.stmt) -> None:
        if ast.dump(old) == ast.dump(new):
            return
        if type(old) is not type(new):
            raise self.refused(new, "another statement")
        if isinstance(old, ast.If) and isinstance(new, ast.If):
            self.choice(old, new)
            return
        self.fields(old, new)

    def choice(self, old: ast.If, new: ast.If) -> None:
        self.expression(old.test, new.test, truth=True)
        self.bodies(old.body, new.body)
        rest = new.orelse
        if self.is_arm(rest, old.orelse) and isinstance(arm := rest[0], ast.If):
            self.arm(old, arm)
            rest = arm.orelse
        self.bodies(old.orelse, rest)

    @staticmethod
    def is_arm(new: Sequence[ast.stmt], old: Sequence[ast.stmt]) -> bool:
        if len(new) != 1 or not isinstance(new[0], ast.If) or not _asks_for_xpu(new[0].test):
            return False
        return not (old and isinstance(old[0], ast.If) and ast.dump(old[0].test) == ast.dump(new[0].test))

    def arm(self, cuda: ast.If, arm: ast.If) -> None:
        """An arm behind CUDA's: never taken where CUDA's would be, nor without an XPU; and it names no CUDA."""
        self.proved.arms += 1
        for world in WORLDS:
            for truths in self.ways(arm):
                before, taken = (self.truth(test, world, truths) for test in (cuda.test, arm.test))
                if taken and not world.xpu:
                    raise self.refused(arm, f"an arm that is taken on {world.name}")
                if taken and world.cuda and not before:
                    raise self.refused(arm, f"an arm that is taken on {world.name} where CUDA's is not")
        for statement in arm.body:
            for node in ast.walk(statement):
                if isinstance(node, ast.expr) and (self.after.name(node).startswith("torch.cuda") or _is_cuda(node)):
                    raise self.refused(statement, "CUDA in an arm for XPUs")

    def truth(self, test: ast.expr, world: World, truths: Truths) -> bool:
        outcome = _Run(self.after, world, truths).evaluate(test)
        return outcome.error == "" and bool(outcome.value)

    def ways(self, node: ast.AST) -> Iterator[Truths]:
        """Every way in which the unknown values that ``node`` asks may be true or false; CheckFailed for too many."""
        open_: list[dict[str, bool]] = [{}]
        for _ in range(_MOST_WAYS):
            truths = Truths(open_.pop())
            known = dict(truths)
            yield truths
            for text in [one for one in truths if one not in known]:
                open_.append({**known, text: True})
                known[text] = False
            if not open_:
                return
        raise self.refused(node, f"more than {_MOST_WAYS} ways through it")

    def fields(self, old: ast.AST, new: ast.AST) -> None:
        for name in old._fields:
            one, other = getattr(old, name, None), getattr(new, name, None)
            if isinstance(one, list) and isinstance(other, list):
                if one and isinstance(one[0], ast.stmt):
                    self.bodies(one, other)
                else:
                    self.lists(one, other, new)
            else:
                self.parts(one, other, new)

    def lists(self, one: Sequence[Any], other: Sequence[Any], near: ast.AST) -> None:
        if len(one) != len(other):
            raise self.refused(near, "a part more or less")
        for part, twin in zip(one, other, strict=True):
            self.parts(part, twin, near)

    def parts(self, one: object, other: object, near: ast.AST) -> None:
        if isinstance(one, ast.expr) and isinstance(other, ast.expr):
            self.expression(one, other, truth=isinstance(near, (ast.While, ast.Assert)))
        elif isinstance(one, ast.AST) and isinstance(other, ast.AST) and type(one) is type(other):
            self.fields(one, other)
        elif isinstance(one, ast.AST) or isinstance(other, ast.AST) or one != other:
            raise self.refused(near, "another part")

    def expression(self, old: ast.expr, new: ast.expr, *, truth: bool = False) -> None:
        """``truth``: only whether it holds matters."""
        if ast.dump(old) == ast.dump(new):
            return
        if _evaluable(old) and _evaluable(new):
            self.proved.expressions += 1
            self.same(old, new, truth=truth)
            self.portable(old, new)
        elif type(old) is type(new):
            self.fields(old, new)
        else:
            raise self.refused(new, "an expression that cannot be evaluated apart")

    def same(self, old: ast.expr, new: ast.expr, *, truth: bool) -> None:
        for world in WORLDS:
            for truths in self.ways(new):
                was = _Run(self.before, world, truths, helpers=self.after).evaluate(old)
                now = _Run(self.after, world, truths).evaluate(new)
                if was.shown(truth=truth) != now.shown(truth=truth):
                    raise self.refused(new, f"on {world.name}: {now.shown()} instead of {was.shown()}")
                if more := now.read - was.read:
                    raise self.refused(new, f"on {world.name}: it also reads {min(more)}, which need not be there")

    def portable(self, old: ast.expr, new: ast.expr) -> None:
        for smallest in _differing(old, new):
            for truths in self.ways(smallest):
                now = _Run(self.after, XPU, truths).evaluate(smallest)
                if _NO_CUDA in now.error:
                    raise self.refused(smallest, f"on an XPU: {now.error}")
                if now.devices:
                    raise self.refused(smallest, f"on an XPU: the device {now.devices[0]}")

    def refused(self, node: ast.AST | None, found: str) -> CheckFailed:
        line = getattr(node, "lineno", 0)
        return CheckFailed(f"{self.after.path}:{line}: not proved: {found[:400]}")


def _asks_for_xpu(test: ast.expr) -> bool:
    """Whether a test cannot hold without an XPU: it asks for one, alone or with ``and``."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(map(_asks_for_xpu, test.values))
    return isinstance(test, ast.Call) and ast.unparse(test).endswith(("xpu.is_available()", "_patchforge_xpu()"))


def _is_cuda(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("cuda")


def _evaluable(node: ast.expr) -> bool:
    """No suspension, no binding, and no way to Python's own insides."""
    for part in ast.walk(node):
        if isinstance(part, (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr, ast.Starred)) and not (
            isinstance(part, ast.Starred) and part is not node
        ):
            return False
        if isinstance(part, ast.Attribute) and part.attr.startswith("__"):
            return False
        if isinstance(part, ast.Name) and (part.id.startswith("__") or part.id == "super"):
            return False
        if (
            isinstance(part, ast.BinOp)
            and isinstance(part.op, (ast.Pow, ast.LShift))
            and isinstance(part.right, ast.Constant)
        ) and (not isinstance(part.right.value, int) or part.right.value > 64):
            return False
    return True


def _differing(old: ast.expr, new: ast.expr) -> Iterator[ast.expr]:
    """The smallest expressions of ``new`` that are not as they were."""
    if ast.dump(old) == ast.dump(new):
        return
    pairs = list(zip(ast.iter_child_nodes(old), ast.iter_child_nodes(new), strict=False))
    expressions = all(
        (isinstance(one, ast.expr) and isinstance(other, ast.expr)) or ast.dump(one) == ast.dump(other)
        for one, other in pairs
    )
    alike = type(old) is type(new) and len(list(ast.iter_child_nodes(old))) == len(list(ast.iter_child_nodes(new)))
    if (
        not (
            alike
            and expressions
            and isinstance(new, (ast.BinOp, ast.BoolOp, ast.Tuple, ast.List, ast.UnaryOp, ast.IfExp))
        )
        or not pairs
    ):
        yield new
        return
    for one, other in pairs:
        if isinstance(one, ast.expr) and isinstance(other, ast.expr):
            yield from _differing(one, other)


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


class _Run:
    """One evaluation on one made-up machine."""

    def __init__(self, code: Code, world: World, truths: Truths, helpers: Code | None = None) -> None:
        self.code, self.world, self.truths = code, world, truths
        self.calls: list[str] = []
        self.asked: dict[str, None] = {}
        self.read: set[str] = set()
        self.devices: list[str] = []
        self.count = 0
        self.torch = _Torch(self)
        self.names = _Names(self)
        exec(_helpers(helpers or code), self.names)  # noqa: S102 - our own functions

    def evaluate(self, node: ast.expr) -> Outcome:
        value: object = None
        error = ""
        self.devices, self.calls, self.asked, self.read = [], [], {}, set()
        try:
            value = eval(_compiled(node), self.names)  # noqa: S307 - names are made up
            shown(value)
        except Exception as problem:  # noqa: BLE001 - both sides must raise the same
            error = f"{type(problem).__name__}: {problem}"
        return Outcome(value, error, self.calls, self.devices, self.asked, self.read)

    def tick(self) -> None:
        self.count += 1
        if self.count > _DEEPEST:
            raise RuntimeError("too long")


@lru_cache(maxsize=64)
def _helpers(code: Code) -> types.CodeType:
    ours = [
        node for node in code.tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("_patchforge_")
    ]
    return compile(ast.Module(list(ours), []), "<patchforge>", "exec")


@lru_cache(maxsize=64)
def _answers(code: Code) -> frozenset[str]:
    """Names that hold nothing but the answer of ``torch.cuda.is_available()``."""
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


@lru_cache(maxsize=256)
def _compiled(node: ast.expr) -> types.CodeType:
    return compile(ast.Expression(node), "<expression>", "eval")


class _Names(dict[str, Any]):
    """Every name that an expression uses: torch, our functions, harmless builtins, else a value that is only itself."""

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self.run = run
        harmless = {name: getattr(builtins, name) for name in _BUILTINS}
        self["__builtins__"] = {**harmless, "__import__": lambda *_args, **_more: run.torch}

    def __missing__(self, name: str) -> Any:
        if name in self["__builtins__"]:
            return self["__builtins__"][name]
        if name in _answers(self.run.code):
            return self.run.world.cuda
        full = self.run.code.aliases.get(name, name)
        head, *rest = full.split(".")
        value: Any = self.run.torch if head == "torch" else Value(self.run, head)
        for part in rest:
            value = getattr(value, part)
        if name == "comfy":
            return Value(self.run, "comfy")
        return value


class Value:
    """A value of which nothing is known but how it came to be."""

    def __init__(self, run: _Run, text: str) -> None:
        self.__dict__["_run"], self.__dict__["_text"] = run, text

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._run.tick()
        text = f"{self._text}.{name}"
        if name == "is_xpu":  # a tensor has it, and much that has is_cuda has not
            if self._run.world.xpu and not self._run.world.cuda:
                return True
            raise AttributeError(text)
        if not text.startswith(("torch.", "comfy.")):
            self._run.read.add(f"{self._text}.to" if name == "cuda" else text)
        return Value(self._run, text)

    def __call__(self, *args: Any, **more: Any) -> Any:
        self._run.tick()
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
        self._run.tick()
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

    def __init__(self, run: _Run) -> None:
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

    def __init__(self, run: _Run, kind: str) -> None:
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
    raise AssertionError(_NO_CUDA)


def _as_to(args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not args or args[0] is None:
        return ("cuda", *args[1:])
    return (f"cuda:{args[0]}" if isinstance(args[0], int) else args[0], *args[1:])


def shown(value: object) -> str:
    """Text that depends on the value and its type alone."""
    if isinstance(value, Value):
        return str(value.__dict__["_text"])
    if isinstance(value, types.FunctionType):
        arguments = [f"argument {index}" for index in range(value.__code__.co_argcount)]
        run = getattr(value.__globals__, "run", None)
        if run is None:
            return value.__qualname__
        try:
            return f"function giving {shown(value(*(Value(run, name) for name in arguments)))}"
        except Exception as error:  # noqa: BLE001
            return f"function raising {type(error).__name__}: {error}"
    if isinstance(value, types.GeneratorType):
        return f"generator{[shown(one) for one in value]}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{shown(key)}: {shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"{type(value).__name__}{[shown(one) for one in value]}"
    return f"{type(value).__name__} {value!r}" if not isinstance(value, str) else repr(value)
