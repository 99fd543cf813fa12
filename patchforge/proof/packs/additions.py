"""What may stand in a converted file where the pack has nothing: our functions, imports and arms."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from patchforge.proof.packs.helpers import is_ours
from patchforge.proof.reading import same


def is_addition(statement: ast.stmt, old: Sequence[ast.stmt]) -> bool:
    """Whether a statement is one of ours that is not among the ``old`` ones."""
    chosen = isinstance(statement, ast.Assign) and _is_choice(statement)
    if not (chosen or is_ours(statement) or _imports_comfy(statement)):
        return False
    return not any(isinstance(known, type(statement)) and same(known, statement) for known in old)


def is_arm(new: Sequence[ast.stmt], old: Sequence[ast.stmt]) -> bool:
    """Whether an ``else`` begins with an arm that asks for an XPU, which the ``old`` one does not."""
    if len(new) != 1 or not isinstance(new[0], ast.If) or not asks_for_xpu(new[0].test):
        return False
    return not (old and isinstance(old[0], ast.If) and same(old[0].test, new[0].test))


def skipped_on_xpu(new: ast.stmt) -> ast.IfExp | None:
    """``if not _patchforge_xpu(): call`` as an expression; None for another statement."""
    if not isinstance(new, ast.If) or new.orelse or len(new.body) != 1 or not isinstance(only := new.body[0], ast.Expr):
        return None
    asked = new.test.operand if isinstance(new.test, ast.UnaryOp) and isinstance(new.test.op, ast.Not) else None
    if not isinstance(asked, ast.Call) or asked.args or asked.keywords or _last_name(asked.func) != "_patchforge_xpu":
        return None
    nothing = ast.copy_location(ast.Constant(None), only)
    return ast.copy_location(ast.IfExp(asked, nothing, only.value), only)


def asks_for_xpu(test: ast.expr) -> bool:
    """Whether a test cannot hold without an XPU: it asks for one, alone or with ``and``."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(map(asks_for_xpu, test.values))
    if not isinstance(test, ast.Call) or test.args or test.keywords:
        return False
    asked = test.func
    if isinstance(asked, ast.Attribute) and asked.attr == "is_available":
        return _last_name(asked.value).endswith("xpu")
    return _last_name(asked).endswith("_patchforge_xpu")


def _last_name(node: ast.expr) -> str:
    return str(getattr(node, "attr", "") or getattr(node, "id", ""))


def _imports_comfy(statement: ast.stmt) -> bool:
    """``import comfy.model_management``."""
    names = [(alias.name, alias.asname) for alias in statement.names] if isinstance(statement, ast.Import) else []
    return names == [("comfy.model_management", None)]


def _is_choice(statement: ast.Assign) -> bool:
    """``name = _patchforge_choice(name)``."""
    target, call = statement.targets[0], statement.value
    if len(statement.targets) != 1 or not isinstance(target, ast.Name) or not isinstance(call, ast.Call):
        return False
    names = [part.id if isinstance(part, ast.Name) else "" for part in (call.func, *call.args)]
    return names == ["_patchforge_choice", target.id] and not call.keywords
