"""An interpreter of expressions, which takes every step itself: Python never runs a stranger's code."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchforge.effort import TooIntricate, spend
from patchforge.proof.packs.attributes import attribute
from patchforge.proof.packs.functions import UnknownKeywords, called
from patchforge.proof.packs.limits import LONGEST_TEXT, MOST_PARTS, NotEvaluable, each, fit, weigh
from patchforge.proof.packs.operators import COMPARE, UNARY, computed
from patchforge.proof.packs.texts import harmless_spec
from patchforge.proof.packs.values import Function, Unknown, shown

if TYPE_CHECKING:
    from patchforge.proof.packs.evaluation import Evaluation

Scope = dict[str, Any]


class Evaluator:
    """An interpreter of expressions: a method for each kind of node."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation

    def of(self, node: ast.AST | None, scope: Scope) -> Any:
        """The value of a node. NotEvaluable for a kind of node that has no method here."""
        spend()
        method = getattr(self, f"on_{type(node).__name__.lower()}", None)
        if method is None:
            raise NotEvaluable(type(node).__name__)
        return method(node, scope)

    def on_nonetype(self, _node: None, _scope: Scope) -> None:
        return None

    def on_constant(self, node: ast.Constant, _scope: Scope) -> Any:
        return fit(node.value)

    def on_name(self, node: ast.Name, scope: Scope) -> Any:
        if node.id in scope:
            return scope[node.id]
        self.evaluation.looked_up.setdefault(node.id, node)
        return self.evaluation.names[node.id]

    def on_attribute(self, node: ast.Attribute, scope: Scope) -> Any:
        return attribute(self.of(node.value, scope), node.attr)

    def on_call(self, node: ast.Call, scope: Scope) -> Any:
        function = self.of(node.func, scope)
        args = self.items(node.args, scope)
        more: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.of(keyword.value, scope)
            if keyword.arg is not None:
                more[keyword.arg] = value
            elif isinstance(value, Unknown):
                more[f"**{shown(value)}"] = UnknownKeywords(shown(value))
            elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
                more.update(value)
            else:
                raise TypeError("keywords must be strings")
        return called(function, args, more)

    def items(self, nodes: Sequence[ast.expr], scope: Scope) -> list[Any]:
        """The values of a display or of a call's arguments, with ``*x`` unfolded."""
        values: list[Any] = []
        for node in nodes:
            values += each(self.of(node.value, scope)) if isinstance(node, ast.Starred) else [self.of(node, scope)]
            if len(values) > MOST_PARTS:
                raise TooIntricate
        return values

    def on_list(self, node: ast.List, scope: Scope) -> list[Any]:
        return self.items(node.elts, scope)

    def on_tuple(self, node: ast.Tuple, scope: Scope) -> tuple[Any, ...]:
        return tuple(self.items(node.elts, scope))

    def on_set(self, node: ast.Set, scope: Scope) -> set[Any]:
        return set(fit(self.items(node.elts, scope)))

    def on_dict(self, node: ast.Dict, scope: Scope) -> dict[Any, Any]:
        value: dict[Any, Any] = {}
        for key, part in zip(node.keys, node.values, strict=True):
            if key is None:
                value.update(self.of(part, scope))
            else:
                value[fit(self.of(key, scope))] = self.of(part, scope)
        return value

    def on_binop(self, node: ast.BinOp, scope: Scope) -> Any:
        return computed(node.op, self.of(node.left, scope), self.of(node.right, scope))

    def on_unaryop(self, node: ast.UnaryOp, scope: Scope) -> Any:
        return UNARY[type(node.op)](self.of(node.operand, scope))

    def on_boolop(self, node: ast.BoolOp, scope: Scope) -> Any:
        value: Any = None
        for part in node.values:
            value = self.of(part, scope)
            if bool(value) is isinstance(node.op, ast.Or):
                return value
        return value

    def on_compare(self, node: ast.Compare, scope: Scope) -> Any:
        left, result = self.of(node.left, scope), None
        for number, (symbol, part) in enumerate(zip(node.ops, node.comparators, strict=True)):
            right = self.of(part, scope)
            weigh(left, right)
            result = COMPARE[type(symbol)](left, right)
            if number < len(node.ops) - 1 and not result:
                return result
            left = right
        return result

    def on_ifexp(self, node: ast.IfExp, scope: Scope) -> Any:
        return self.of(node.body if self.of(node.test, scope) else node.orelse, scope)

    def on_subscript(self, node: ast.Subscript, scope: Scope) -> Any:
        value = self.of(node.value, scope)
        item = self.of(node.slice, scope)
        if not isinstance(value, (Unknown, str, bytes, list, tuple, dict, range)):
            raise NotEvaluable("[]")
        return value[fit(item)]

    def on_slice(self, node: ast.Slice, scope: Scope) -> slice:
        return slice(self.of(node.lower, scope), self.of(node.upper, scope), self.of(node.step, scope))

    def on_joinedstr(self, node: ast.JoinedStr, scope: Scope) -> str:
        pieces: list[str] = []
        length = 0
        for part in node.values:
            pieces.append(str(part.value) if isinstance(part, ast.Constant) else self.of(part, scope))
            length += len(pieces[-1])
            if length > LONGEST_TEXT:
                raise TooIntricate
        return "".join(pieces)

    def on_formattedvalue(self, node: ast.FormattedValue, scope: Scope) -> str:
        value = fit(self.of(node.value, scope))
        spec = harmless_spec(self.of(node.format_spec, scope) or "")
        conversions: dict[int, Callable[[Any], str]] = {ord("s"): str, ord("r"): repr, ord("a"): ascii}
        return format(conversions[node.conversion](value) if node.conversion in conversions else value, spec)

    def on_lambda(self, node: ast.Lambda, scope: Scope) -> Lambda:
        arguments = node.args
        return Lambda(
            self,
            node,
            scope,
            [self.of(default, scope) for default in arguments.defaults],
            {
                name.arg: self.of(default, scope)
                for name, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
                if default is not None
            },
        )

    def on_listcomp(self, node: ast.ListComp, scope: Scope) -> list[Any]:
        return fit([self.of(node.elt, inner) for inner in self.loops(node.generators, scope)])  # type: ignore[no-any-return]

    def on_setcomp(self, node: ast.SetComp, scope: Scope) -> set[Any]:
        return {fit(self.of(node.elt, inner)) for inner in self.loops(node.generators, scope)}

    def on_dictcomp(self, node: ast.DictComp, scope: Scope) -> dict[Any, Any]:
        loops = self.loops(node.generators, scope)
        return {fit(self.of(node.key, inner)): self.of(node.value, inner) for inner in loops}

    def on_generatorexp(self, node: ast.GeneratorExp, scope: Scope) -> Iterator[Any]:
        return (self.of(node.elt, inner) for inner in self.loops(node.generators, scope))

    def loops(self, generators: Sequence[ast.comprehension], scope: Scope) -> Iterator[Scope]:
        """The names of a comprehension, once for each turn."""
        if not generators:
            yield scope
            return
        first, *rest = generators
        if first.is_async:
            raise NotEvaluable("async for")
        for value in each(self.of(first.iter, scope)):
            inner = dict(scope)
            self.bind(first.target, value, inner)
            if all(self.of(test, inner) for test in first.ifs):
                yield from self.loops(rest, inner)

    def bind(self, target: ast.expr, value: Any, scope: Scope) -> None:
        """Gives a target of a comprehension its value."""
        if isinstance(target, ast.Name):
            scope[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            values = list(each(value))
            if len(values) != len(target.elts):
                raise ValueError(f"{len(values)} values for {len(target.elts)} names")
            for part, given in zip(target.elts, values, strict=True):
                self.bind(part, given, scope)
        else:
            raise NotEvaluable("a target of a loop")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Lambda(Function):
    """A lambda."""

    interpreter: Evaluator
    node: ast.Lambda
    scope: Scope
    defaults: list[Any]
    keywords: dict[str, Any]

    @property
    def evaluation(self) -> Evaluation:
        return self.interpreter.evaluation

    @property
    def arity(self) -> int:
        return len(self.node.args.posonlyargs) + len(self.node.args.args)

    def __call__(self, *args: Any, **more: Any) -> Any:
        return self.interpreter.of(self.node.body, {**self.scope, **self.bound(args, more)})

    def bound(self, args: Sequence[Any], more: Mapping[str, Any]) -> Scope:
        """Its arguments by name; TypeError where they do not fit."""
        wanted = self.node.args
        names = [argument.arg for argument in (*wanted.posonlyargs, *wanted.args)]
        only = [argument.arg for argument in wanted.kwonlyargs]
        given = dict(zip(names[len(names) - len(self.defaults) :], self.defaults, strict=True)) | self.keywords
        given |= dict(zip(names, args, strict=False))
        rest = {name: value for name, value in more.items() if name not in (*names, *only)}
        given |= {name: value for name, value in more.items() if name not in rest}
        if (rest and not wanted.kwarg) or (len(args) > len(names) and not wanted.vararg):
            raise TypeError("<lambda>() got an argument that it does not take")
        if missing := [name for name in (*names, *only) if name not in given]:
            raise TypeError(f"<lambda>() misses {', '.join(missing)}")
        if wanted.vararg:
            given[wanted.vararg.arg] = tuple(args[len(names) :])
        if wanted.kwarg:
            given[wanted.kwarg.arg] = rest
        return given
