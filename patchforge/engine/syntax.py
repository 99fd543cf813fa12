"""What is asked of nodes of ``ast`` all over: names, imports, parameters, bodies."""

from __future__ import annotations

import ast
from typing import TypeGuard

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)
LONGEST_NAME = 32  #: dots in a name; nothing that a rule knows has more


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of names and attributes as written; "" for anything else, and for what is longer than any real name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and len(parts) < LONGEST_NAME:
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def resolved(name: str, aliases: dict[str, str]) -> str:
    """A dotted name with its first part resolved. ``aliases``: local name → full name."""
    head, _, rest = name.partition(".")
    full = aliases.get(head, head)
    return f"{full}.{rest}" if rest else full


def last_name(call: ast.Call) -> str:
    """The last part of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else dotted(call.func)


def imported_names(node: ast.AST) -> dict[str, str]:
    """Local name → full name, where an import gives one."""
    if isinstance(node, ast.Import):
        return {alias.asname: alias.name for alias in node.names if alias.asname}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {}


def imported_modules(node: ast.AST) -> list[str]:
    """The modules that an import names, but for those of its own package."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def is_and(node: ast.AST | None) -> TypeGuard[ast.BoolOp]:
    """``a and b``."""
    return isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And)


def by_position(function: ast.FunctionDef, *, bound: bool = True) -> list[str]:
    """The parameters that are given by position. ``bound``: without ``self`` and ``cls``."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if bound and names[:1] in (["self"], ["cls"]) else names


def parameters(scope: ast.AST) -> frozenset[str]:
    """The names of a function's parameters; a module has none."""
    arguments = getattr(scope, "args", None)
    if not isinstance(arguments, ast.arguments):
        return frozenset()
    return frozenset(each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


def called_by(function: ast.FunctionDef | ast.AsyncFunctionDef, owner: ast.AST | None) -> str:
    """The name that calls a function: for a constructor its class's. ``owner``: its parent."""
    return owner.name if function.name == "__init__" and isinstance(owner, ast.ClassDef) else function.name


def after_docstring(function: ast.FunctionDef) -> list[ast.stmt]:
    """What a function does."""
    return function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
