"""Whom a method is called of: an object, or its class or a module, which are given the object as an argument."""

from __future__ import annotations

import ast
import re

from patchforge.engine.syntax import dotted
from patchforge.nodes.code import Code

_CLASS = re.compile(r"_*[A-Z]\w*[a-z]\w*")  #: ``Tensor``, and not ``G`` or ``NET``


def of_object(call: ast.Call, code: Code) -> bool:
    """Whether ``x.cuda(…)`` moves x: nothing says that x is a class, a module, or ``super()``."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    if isinstance(owner, ast.Call):
        return dotted(owner.func) not in ("type", "super")
    name = dotted(owner)
    first, _, rest = name.partition(".")
    if not name or name.rpartition(".")[2] == "__class__":
        return not (isinstance(owner, ast.Attribute) and owner.attr == "__class__")
    if name == "cls":
        return False
    imported = _only_imported(first, code)
    if imported and (not rest or _is_module(name, code)):
        return False  # a module's function, or what a module names
    given = call.args[0] if call.args else None
    if given is None or isinstance(given, ast.Constant) or code.name(getattr(given, "func", given)) == "torch.device":
        return True  # no class can be called with that
    made = code.once("made names", lambda: {bound for bound, node in code.bindings if isinstance(node, ast.Name)})
    return not _CLASS.fullmatch(name.rpartition(".")[2]) or (not rest and first in made)


def _only_imported(name: str, code: Code) -> bool:
    given = code.once(("given", name), lambda: [node for bound, node in code.bindings if bound == name])
    return bool(given) and all(isinstance(node, ast.alias) for node in given)


def _is_module(name: str, code: Code) -> bool:
    """``import a.b`` makes ``a.b`` a module."""
    plain = (
        node
        for bound, node in code.bindings
        if isinstance(node, ast.alias) and isinstance(code.parent(node), ast.Import)
    )
    return any(node.name == name for node in plain if isinstance(node, ast.alias))
