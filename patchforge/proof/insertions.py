"""What may stand in a patched file where upstream has nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from patchforge.proof.hooks import HOOKS, implies_xpu, is_guard, is_hook, is_hooked, loud, mentions_hook
from patchforge.proof.reading import same

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NEW_SCOPE = (*_FUNCTIONS, ast.ClassDef, ast.Lambda)


@dataclass(frozen=True, slots=True)
class TreePlace:
    """Where the walk stands in upstream's tree."""

    function: ast.AST | None = None  #: the innermost function around it
    top: bool = True  #: directly in the module's body
    xpu: bool = False  #: in an arm that only an XPU takes
    documented: bool = True  #: a string at the start of this block is a docstring


def inside(node: ast.AST, block: str, place: TreePlace) -> TreePlace:
    """The place of a block of upstream's ``node``."""
    if isinstance(node, ast.Module):
        return place
    function = node if isinstance(node, _FUNCTIONS) else None if isinstance(node, ast.ClassDef) else place.function
    xpu = place.xpu or (isinstance(node, ast.If) and block == "body" and implies_xpu(node.test))
    return TreePlace(function, top=False, xpu=xpu, documented=isinstance(node, (*_FUNCTIONS, ast.ClassDef)))


def objection(node: ast.stmt, place: TreePlace) -> str:
    """Why ``node`` may not stand where upstream has nothing; "" where it may. An ``else`` of it is upstream's."""
    if isinstance(node, ast.If):
        if not is_guard(node.test):
            return "an inserted branch must ask a hook or for an Intel XPU"
        if loud(node.test, guarded=place.xpu):
            return "the test of an inserted branch calls something before a hook or an XPU is asked"
        return _first(_guarded_objection(child, node.test, place) for child in node.body)
    if isinstance(node, ast.Assign):
        names = len(node.targets) == 1 and is_hook(node.value) and isinstance(node.value, ast.Call)
        if not names or not any(same(node.targets[0], argument) for argument in node.value.args):  # type: ignore[attr-defined]
            return "an inserted assignment outside a branch of ours must refine its own target by a hook"
    return _simple_objection(node, place, guarded=place.xpu)


def _simple_objection(node: ast.stmt, place: TreePlace, *, guarded: bool) -> str:
    """For imports, calls of hooks, and assignments of what a hook returns."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return "" if _is_our_import(node) else f"an import of more than {HOOKS}"
    if not isinstance(node, (ast.Expr, ast.Assign)) or not is_hooked(node.value):
        return "it is neither upstream's nor a hook"
    if loud(node.value, guarded=guarded):
        return "an argument of a hook calls something before an XPU is asked"
    return _first(_target_objection(target, place) for target in getattr(node, "targets", ()))


def _guarded_objection(node: ast.stmt, test: ast.expr, place: TreePlace) -> str:
    """For the statements of an inserted branch."""
    if isinstance(node, ast.Pass):
        return ""
    if isinstance(node, ast.Return):
        plain = node.value is None or isinstance(node.value, ast.Constant) or is_hooked(node.value)
        has_effect = node.value is not None and loud(node.value, guarded=True)
        return "" if plain and not has_effect else "an inserted return must give a constant or what a hook returns"
    if isinstance(node, ast.If):
        return _first(_guarded_objection(child, test, place) for child in [*node.body, *node.orelse]) or (
            "a test of an inserted branch has an effect" if loud(node.test, guarded=True) else ""
        )
    if isinstance(node, ast.With):
        return _with_objection(node, test, place)
    if isinstance(node, ast.Assign) and ast.unparse(node) == "cpu_state = CPUState.CPU" and mentions_hook(test):
        return _target_objection(node.targets[0], place)
    return _simple_objection(node, place, guarded=True)


def _with_objection(node: ast.With, test: ast.expr, place: TreePlace) -> str:
    for item in node.items:
        if not is_hook(item.context_expr) or loud(item.context_expr, guarded=True) or item.optional_vars:
            return "an inserted with must enter a hook, and bind nothing"
    for child in node.body:
        value = child.value if isinstance(child, ast.Expr) else None
        if isinstance(value, ast.Yield) and (value.value is None or isinstance(value.value, ast.Constant)):
            if not _is_generator(place.function):
                return "an inserted yield makes a generator of a function that upstream calls"
        elif problem := _guarded_objection(child, test, place):
            return problem
    return ""


def _target_objection(target: ast.expr, place: TreePlace) -> str:
    if isinstance(target, ast.Name):
        if place.function is not None and target.id not in _bound(place.function):
            return f"the assignment makes {target.id} local to the function, which upstream does not"
        return "" if target.id != HOOKS else f"the assignment hides {HOOKS}"
    return "" if isinstance(target, ast.Attribute) else "an inserted assignment must set one name or attribute"


def _is_our_import(node: ast.Import | ast.ImportFrom) -> bool:
    return all(alias.name.rpartition(".")[2] == HOOKS and alias.asname in (None, HOOKS) for alias in node.names)


def _first(objections: Iterable[str]) -> str:
    return next((objection for objection in objections if objection), "")


def rule(node: ast.stmt) -> str:
    """By which rule an insertion is stripped."""
    if isinstance(node, ast.If):
        return "branch"
    if isinstance(node, ast.Assign):
        return "refinement"
    return "statement" if isinstance(node, ast.Expr) else "import"


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function that are not another function's."""
    stack = list(ast.iter_child_nodes(function))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, _NEW_SCOPE):
            stack.extend(ast.iter_child_nodes(node))


def _bound(function: ast.AST) -> frozenset[str]:
    """Names that are the function's own, or declared global or nonlocal in it."""
    names: set[str] = set()
    for node in _own_nodes(function):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            names.update(node.names)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.ExceptHandler)) and node.name:
            names.add(node.name)
    return frozenset(names)


def _is_generator(function: ast.AST | None) -> bool:
    return function is not None and any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in _own_nodes(function))
