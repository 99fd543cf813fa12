"""How a patched file calls us: hooks, tests for an Intel XPU, and what such code may do beside them."""

from __future__ import annotations

import ast

HOOKS = "patchforge_xpu"

_XPU_TESTS = frozenset({"is_intel_xpu", "is_device_xpu"})
#: what an argument of ours may call where nothing has asked for an XPU yet: no effects, and no errors of its own
_QUIET_CALLS = _XPU_TESTS | {"globals", "locals", "getattr", "hasattr", "isinstance", "len", "type", "str"}
_LOUD = (ast.NamedExpr, ast.Yield, ast.YieldFrom, ast.Await)


def is_module(node: ast.expr) -> bool:
    """``patchforge_xpu``, also as an attribute."""
    return (isinstance(node, ast.Name) and node.id == HOOKS) or (isinstance(node, ast.Attribute) and node.attr == HOOKS)


def is_hook(node: ast.AST | None) -> bool:
    """``patchforge_xpu.f(…)``."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_module(node.func.value)


def is_hooked(node: ast.AST | None) -> bool:
    """``hook(…)`` or ``hook(E)(…)``."""
    return is_hook(node) or (isinstance(node, ast.Call) and is_hook(node.func))


def called(node: ast.AST) -> str:
    """The last part of the name that is called."""
    func = node.func if isinstance(node, ast.Call) else None
    return func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""


def implies_xpu(test: ast.expr) -> bool:
    """Whether ``test`` can only hold on an Intel XPU."""
    if isinstance(test, ast.BoolOp):
        return (any if isinstance(test.op, ast.And) else all)(map(implies_xpu, test.values))
    if isinstance(test, ast.Compare):
        sides = [test.left, *test.comparators]
        named = any(isinstance(side, ast.Constant) and side.value == "xpu" for side in sides)
        return named and len(sides) == 2 and isinstance(test.ops[0], ast.Eq)
    return called(test) in _XPU_TESTS


def asks_hook(test: ast.expr) -> bool:
    """Whether ``test`` can only decide for our branch after a hook has been asked."""
    if isinstance(test, ast.BoolOp):
        return (any if isinstance(test.op, ast.And) else all)(map(asks_hook, test.values))
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return asks_hook(test.operand)
    if isinstance(test, ast.Compare):
        return any(map(is_hook, [test.left, *test.comparators]))
    return is_hook(test)


def is_guard(test: ast.expr) -> bool:
    """Whether ``test`` keeps other devices out of a branch of ours."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return all(map(is_guard, test.values))
    return implies_xpu(test) or asks_hook(test)


def is_operand(node: ast.expr) -> bool:
    """What may be added to upstream's ``and`` or ``or``."""
    return mentions_hook(node) and is_guard(node)


def mentions_hook(node: ast.AST) -> bool:
    """Whether a hook is called in ``node``."""
    return any(is_hook(child) for child in ast.walk(node))


def loud(node: ast.AST, *, guarded: bool) -> ast.AST | None:
    """The first part of ``node`` that may have an effect on other devices; calls are free where ``guarded``."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        for value in node.values:
            if part := loud(value, guarded=guarded):
                return part
            guarded = guarded or is_guard(value)
        return None
    for child in ast.walk(node):
        if isinstance(child, _LOUD):
            return child
        if isinstance(child, ast.Call) and not guarded and not (is_hooked(child) or called(child) in _QUIET_CALLS):
            return child
    return None
