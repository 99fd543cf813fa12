"""What a name means at a place of a file: which scope gives it to something, as Python itself looks it up."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence
from functools import cached_property

from patchforge.effort import SHARED, spend
from patchforge.proof.packs.helpers import helpers, is_ours

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_LOOPS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_COMFY = "comfy.model_management"


class Scopes:
    """The scopes of one file: the module, functions, lambdas, classes and comprehensions."""

    def __init__(self, module: ast.Module) -> None:
        self.module = module
        self._outer: dict[ast.AST, ast.AST] = {}  #: node → the scope that it is evaluated in
        self._bound: dict[ast.AST, dict[str, list[ast.AST]]] = {self.module: {}}
        self._declared: dict[ast.AST, dict[str, bool]] = {}  #: scope → name → whether it is the module's
        todo: list[tuple[ast.AST, ast.AST]] = [(self.module, self.module)]
        while todo:
            node, scope = todo.pop()
            spend(2)
            self._outer[node] = scope
            self._note(node, scope)
            todo += [(child, inner) for child, inner in _children(node, scope) if not isinstance(child, SHARED)]

    def _note(self, node: ast.AST, scope: ast.AST) -> None:
        if isinstance(node, (*_FUNCTIONS, *_LOOPS, ast.ClassDef)):
            self._bound.setdefault(node, {})
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            self._declared.setdefault(scope, {}).update(dict.fromkeys(node.names, isinstance(node, ast.Global)))
        for name in bound_by(node):
            self._bound.setdefault(scope, {}).setdefault(name, []).append(node)
        if isinstance(node, ast.NamedExpr):  # binds beyond the comprehensions that it is in
            while isinstance(scope, _LOOPS):
                scope = self._outer[scope]
                self._bound[scope].setdefault(node.target.id, []).append(node)

    def scope(self, node: ast.AST) -> ast.AST:
        """The innermost scope around a node."""
        return self._outer[node]

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """The scopes around a node, from the inside out."""
        scope = self._outer[node]
        while scope is not self.module:
            spend()
            yield scope
            scope = self._outer[scope]
        yield scope

    def owner(self, node: ast.AST, name: str) -> ast.AST:
        """The scope in which a name is looked up at a node; the module where no other has it."""
        for number, scope in enumerate(self.around(node)):
            if isinstance(scope, ast.ClassDef) and number:
                continue  # its names are not seen from within its functions
            declared = self._declared.get(scope, {}).get(name)
            if declared:
                return self.module
            if declared is None and name in self._bound[scope]:
                return scope
        return self.module

    def binds(self, scope: ast.AST, name: str) -> list[ast.AST]:
        """The nodes that give a scope's name to something; of a function also its parameters."""
        return self._bound[scope].get(name, [])

    @cached_property
    def _set_from_within(self) -> frozenset[str]:
        """Names of the module that a function declares, and may give to something."""
        return frozenset(name for names in self._declared.values() for name, whole in names.items() if whole)

    def may_read(self, node: ast.Name) -> bool:
        """Whether an edit may read a name there: a function of ours, a builtin or ComfyUI, and nothing else."""
        name = node.id
        if self.owner(node, name) is not self.module or name in self._set_from_within:
            return False
        if name in helpers() or name == "comfy":
            return name in self._added and self._added[name] < node.lineno
        return not self.binds(self.module, name) and hasattr(builtins, name)

    @cached_property
    def _added(self) -> dict[str, int]:
        """Our functions and ComfyUI, where the module gives those names to nothing else → the line that has them."""
        lines: dict[str, int] = {}
        known = set[ast.AST]()
        for statement in self.module.body:
            imported = statement.names if isinstance(statement, ast.Import) else []
            for alias in imported:
                if alias.name.partition(".")[0] == "comfy" and not alias.asname:
                    known.add(alias)
                    if alias.name == _COMFY:
                        lines.setdefault("comfy", statement.end_lineno or statement.lineno)
            if is_ours(statement) and isinstance(statement, ast.FunctionDef):
                known.add(statement)
                lines[statement.name] = statement.end_lineno or statement.lineno
        return {name: line for name, line in lines.items() if known.issuperset(self.binds(self.module, name))}


def has_value(name: str, above: Sequence[ast.stmt], below: ast.stmt, scopes: Scopes) -> bool:
    """Whether a name of the scope itself has a value between two statements of a block, on every way there."""
    scope = scopes.scope(below)
    given = scopes.binds(scope, name)
    if not given or isinstance(scope, ast.ClassDef):
        return False
    if any(isinstance(each, ast.arg) for each in given):
        return not any(isinstance(each, ast.Name) and isinstance(each.ctx, ast.Del) for each in given)
    assigned = (target for statement in above if isinstance(statement, ast.Assign) for target in statement.targets)
    return any(isinstance(target, ast.Name) and target.id == name for target in assigned) or _reads_first(below, name)


def _reads_first(statement: ast.stmt, name: str) -> bool:
    """Whether the test of an ``if`` reads a name before all else."""
    node = statement.test if isinstance(statement, ast.If) else None
    while node is not None and not isinstance(node, ast.Name):
        if isinstance(node, ast.BoolOp):
            node = node.values[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and hasattr(builtins, node.func.id):
            node = node.args[0] if node.args else None
        else:
            parts = (getattr(node, field, None) for field in ("left", "operand", "func", "value"))
            node = next((part for part in parts if isinstance(part, ast.expr)), None)
    return node is not None and node.id == name


def named_by(node: ast.AST) -> list[str]:
    """The names that a node itself reads, or gives to something."""
    return [node.id] if isinstance(node, ast.Name) else bound_by(node)


def bound_by(node: ast.AST) -> list[str]:
    """The names that a node itself gives to something, or takes away."""
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, ast.alias):
        return [(node.asname or node.name).partition(".")[0]]
    if isinstance(node, ast.keyword):
        return []
    names = (getattr(node, field, None) for field in ("arg", "name", "rest"))
    return [name for name in names if isinstance(name, str)]


def _children(node: ast.AST, scope: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """The parts of a node, each with the scope that it is evaluated in."""
    if isinstance(node, _LOOPS):
        first, *rest = node.generators
        yield first.iter, scope
        yield from ((part, node) for part in (first.target, *first.ifs, *rest))
        values = (getattr(node, field, None) for field in ("elt", "key", "value"))
        yield from ((part, node) for part in values if isinstance(part, ast.AST))
        return
    inner = isinstance(node, (*_FUNCTIONS, ast.ClassDef))
    for field in node._fields:
        value = getattr(node, field, None)
        parts = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST)]
        if isinstance(node, _FUNCTIONS) and field == "args":
            yield from _parameters(node.args, node, scope)
        else:
            own = inner and field in ("body", "type_params")
            yield from ((part, node if own else scope) for part in parts)


def _parameters(arguments: ast.arguments, function: ast.AST, scope: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Parameters are the function's; defaults and annotations are evaluated outside."""
    optional = [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *optional):
        bare = ast.arg(argument.arg)
        yield bare, function
        if argument.annotation is not None:
            yield argument.annotation, scope
    yield from ((default, scope) for default in (*arguments.defaults, *arguments.kw_defaults) if default is not None)
