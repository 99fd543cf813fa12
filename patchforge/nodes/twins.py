"""What torch.xpu has for a function of torch.cuda: whether it takes the same arguments, and gives the same fields."""

from __future__ import annotations

import ast

from patchforge.effort import walk
from patchforge.nodes.code import Code
from patchforge.nodes.known import DROPPED, KEYS, LACKING, TWINS


def misfit(name: str, call: ast.Call | None, code: Code) -> str:
    """Why the XPU's twin of a function cannot take its place in a call; "" where it can. ``name``: one of TWINS."""
    if call is not None and not takes(name, call):
        return f"torch.xpu.{name} takes ({', '.join(TWINS[name])}) alone: find another way on an XPU"
    if lacking := LACKING.get(name):
        if name == "get_device_properties" and read_of(call, code) & lacking:
            return "an XPU's properties have no such field: decide without it"
        if call is not None and read_of(call, code) & lacking:
            return f"an XPU's {name} has no such field: find another way on an XPU"
    if call is not None and any(not key.startswith(KEYS[name]) for key in _keys(call, code) if name in KEYS):
        return f"torch.xpu.{name} has no such figure: ask for it with get"
    return ""


def takes(name: str, call: ast.Call) -> bool:
    """Whether the XPU's function has a parameter for each argument."""
    known, given = TWINS[name], [keyword.arg for keyword in call.keywords]
    if name in DROPPED and (None in given or any(isinstance(argument, ast.Starred) for argument in call.args)):
        return False
    return len(call.args) <= len(known) and all(key is None or key in known for key in given)


def without_dropped(name: str, call: ast.Call, code: Code) -> str | None:
    """The call's arguments without those that mean nothing to an XPU; None where others are too many."""
    known, dropped = TWINS[name], DROPPED.get(name, {})
    extras = list(dropped)
    over = dict(zip(extras, call.args[len(known) :], strict=False))
    if len(call.args) > len(known) + len(extras) or any(isinstance(argument, ast.Starred) for argument in call.args):
        return None
    kept = [code.line(argument) for argument in call.args[: len(known)]]
    for keyword in call.keywords:
        if keyword.arg in known:
            text = code.line(keyword.value)
            kept.append(None if text is None else f"{keyword.arg}={text}")
        else:
            over[keyword.arg or ""] = keyword.value
    plain = all(
        isinstance(value, ast.Constant) and any(value.value is fine for fine in dropped.get(key, ()))
        for key, value in over.items()
    )
    return ", ".join(filter(None, kept)) if plain and None not in kept else None


def read_of(call: ast.Call | None, code: Code) -> set[str]:
    """The fields that are read of a call's result; all of its function where the result goes elsewhere."""
    holder = code.parent(call) if call is not None else None
    if isinstance(holder, ast.Attribute):
        return {holder.attr}
    names = (
        {target.id for target in holder.targets if isinstance(target, ast.Name)}
        if isinstance(holder, ast.Assign)
        else set()
    )
    named = isinstance(holder, ast.Assign) and len(names) == len(holder.targets)
    scope = code.scope(call) if call is not None else code.tree
    reads = code.once(("fields", scope), lambda: _read_in(scope))
    return {field for name in names for field in reads.get(name, ())} if named else reads[""]


def _read_in(scope: ast.AST) -> dict[str, set[str]]:
    """Name → the fields that are read of it; under "" those of everything."""
    reads: dict[str, set[str]] = {"": set()}
    for node in walk(scope):
        if isinstance(node, ast.Attribute):
            reads[""].add(node.attr)
            if isinstance(node.value, ast.Name):
                reads.setdefault(node.value.id, set()).add(node.attr)
    return reads


def _keys(call: ast.Call, code: Code) -> list[str]:
    """The keys that are looked up in a call's result: there, or by the name that it is given."""
    holder = code.parent(call)
    target = holder.targets[0] if isinstance(holder, ast.Assign) else None
    uses: list[ast.expr] = code.named(target.id, code.scope(call)) if isinstance(target, ast.Name) else [call]  # type: ignore[assignment]
    places = (code.parent(use) for use in uses)
    keys = (place.slice for place in places if isinstance(place, ast.Subscript) and place.value in uses)
    return [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
