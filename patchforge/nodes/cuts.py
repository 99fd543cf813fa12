"""Names of devices that are cut, or measured, by the length of CUDA's: "0" is what ``"cuda:0"[5:]`` says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from patchforge.effort import spend, walk
from patchforge.engine.syntax import by_position, called_by, dotted, last_name, parameters
from patchforge.nodes.code import Code

_LENGTHS = range(3, 8)  #: of "cuda", "cuda:" and "cuda:0", and one more at either end
_PARTS = frozenset(
    (
        *("replace", "removeprefix", "strip", "lstrip", "rstrip", "split", "rsplit", "partition", "rpartition"),
        *("find", "index", "rfind", "rindex"),
    )
)
_SEARCHES = re.compile(r"(re|regex)\.(match|fullmatch|search|sub|split|findall)$")
_AS_IT_IS = frozenset(("str", "lower", "strip", "casefold"))
_DEVICE = re.compile(r"device|^dev$|gpu|cuda", re.IGNORECASE)


def cut(node: ast.AST, code: Code) -> ast.expr | None:
    """What an expression cuts, or measures, by the length of CUDA's name; None for another."""
    if isinstance(node, ast.Subscript):
        bounds = [node.slice.lower, node.slice.upper] if isinstance(node.slice, ast.Slice) else [node.slice]
        return node.value if any(_is_length(bound) for bound in bounds) else None
    if isinstance(node, ast.Compare):
        measured = node.left
        plain = isinstance(measured, ast.Call) and dotted(measured.func) == "len" and len(measured.args) == 1
        return (
            measured.args[0] if plain and isinstance(measured, ast.Call) and _is_length(node.comparators[0]) else None
        )
    if not isinstance(node, ast.Call) or not node.args or not _says_cuda(node.args[0]):
        return None
    if isinstance(node.func, ast.Attribute) and node.func.attr in _PARTS:
        return node.func.value
    return node.args[-1] if _SEARCHES.match(code.name(node.func)) and len(node.args) > 1 else None


def _is_length(bound: ast.AST | None) -> bool:
    return isinstance(bound, ast.Constant) and type(bound.value) is int and bound.value in _LENGTHS


def _says_cuda(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and "cuda" in node.value


def name_of(node: ast.expr) -> str:
    """The last name by which a device is kept: ``device`` of ``str(self.device)`` and of ``options["device"]``."""
    while isinstance(node, ast.Call) and last_name(node) in _AS_IT_IS:
        inner = node.func.value if isinstance(node.func, ast.Attribute) else next(iter(node.args), None)
        if inner is None:
            return ""
        node = inner
    if isinstance(node, ast.Subscript):
        key = node.slice
        return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else ""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def cut_in(nodes: Iterable[ast.AST], code: Code) -> Iterator[str]:
    """The names of what is cut in some nodes."""
    parts = (cut(part, code) for node in nodes for part in walk(node))
    return (name_of(part) for part in parts if part is not None)


def cut_names(code: Code) -> dict[str, int]:
    """Name of a device that the file cuts → a line that does."""
    return code.once("cut names", lambda: _cut_names(code))


def _cut_names(code: Code) -> dict[str, int]:
    spend(len(code.nodes))
    lines: dict[str, int] = {}
    for node in code.nodes:
        part = cut(node, code) if isinstance(node, (ast.Subscript, ast.Compare, ast.Call)) else None
        if part is not None and isinstance(node, ast.expr) and (name := name_of(part)):
            lines.setdefault(name, node.lineno)
    if lines:
        _lead_back(lines, code)
    return {name: line for name, line in lines.items() if _DEVICE.search(name)}


def _lead_back(lines: dict[str, int], code: Code) -> None:
    """Adds the names whose values come to be called by those that are cut."""
    sources: dict[str, set[str]] = {}
    for value, name in _handed_on(code):
        for part in [value, *walk(value)] if isinstance(value, (ast.IfExp, ast.BoolOp)) else [value]:
            sources.setdefault(name, set()).add(name_of(part) if isinstance(part, ast.expr) else "")
    todo = sorted(lines)
    while todo:
        name = todo.pop()
        for source in sorted(sources.get(name, set()) - lines.keys() - {""}):
            lines[source] = lines[name]
            todo.append(source)


def _handed_on(code: Code) -> Iterator[tuple[ast.expr, str]]:
    """Values, and the names that they are given: by assignments, by loops, and by calls of the file's functions."""
    spend(2 * len(code.nodes))
    for node in code.nodes:
        if isinstance(node, ast.Assign):
            yield from ((node.value, name_of(target)) for target in node.targets)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            yield node.value, name_of(node.target)
        elif isinstance(node, (ast.For, ast.comprehension)):
            yield node.iter, name_of(node.target)
        elif isinstance(node, ast.Call):
            yield from ((argument, name) for argument in node.args for name in _given_to(node, argument, code))
            yield from ((keyword.value, keyword.arg) for keyword in node.keywords if keyword.arg)
            yield from _mapped(node)


def _mapped(call: ast.Call) -> Iterator[tuple[ast.expr, str]]:
    """``sorted(devices, key=lambda d: …)``, ``map(lambda d: …, devices)``."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    for function in given:
        if isinstance(function, ast.Lambda) and function.args.args:
            yield from ((value, function.args.args[0].arg) for value in given if value is not function)


def cut_parameters(code: Code) -> Iterator[tuple[str, frozenset[int | str]]]:
    """Functions of a file, or classes by their constructors → their parameters that are cut, by place and by name."""
    names = cut_names(code)
    for function in (each for several in code.functions.values() for each in several) if names else ():
        taken = by_position(function)
        cut_ones = names.keys() & {*taken, *parameters(function)}
        if cut_ones:
            places = [place for place, name in enumerate(taken) if name in cut_ones]
            yield called_by(function, code.parent(function)), frozenset((*places, *cut_ones))


def given_to(node: ast.expr, code: Code) -> tuple[str, frozenset[int | str]]:
    """The function that a device is given to, and its parameter: by place or by name."""
    for parent, child in code.above(node):
        if isinstance(parent, ast.keyword):
            call = code.parent(parent)
            return (
                (last_name(call), frozenset((parent.arg or "",))) if isinstance(call, ast.Call) else ("", frozenset())
            )
        if isinstance(parent, ast.Call) and code.name(parent.func) != "torch.device":
            return last_name(parent), frozenset((parent.args.index(child),) if child in parent.args else ())
        if isinstance(parent, ast.stmt):
            break
    return "", frozenset()


def kept_as(node: ast.expr, code: Code) -> set[str]:
    """The names under which a device that is written out is kept: variables, attributes, parameters, keys."""
    for parent, child in code.above(node):
        if isinstance(parent, ast.keyword):
            return {parent.arg or ""}
        if isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            return {name_of(target) for target in targets}
        if isinstance(parent, ast.Dict):
            key = parent.keys[code.index(child)] if code.field(child) == "values" else None
            return {key.value} if isinstance(key, ast.Constant) and isinstance(key.value, str) else set()
        if isinstance(parent, ast.arguments):
            return {code.parameter(child)}
        if isinstance(parent, ast.Call) and code.name(parent.func) != "torch.device":
            return _given_to(parent, child, code)
        if isinstance(parent, ast.Return):
            return _answers(code.function(node).rpartition(".")[2], code)
        if isinstance(parent, ast.stmt):
            return set()
    return set()


def _given_to(call: ast.Call, argument: ast.AST, code: Code) -> set[str]:
    """The parameters of the file's functions that are given an argument by its place."""
    if argument not in call.args:
        return set()
    at = call.args.index(argument)
    return {name for function in code.definitions(last_name(call)) for name in by_position(function)[at : at + 1]}


def _answers(function: str, code: Code) -> set[str]:
    """The names that are given what a function of the file returns."""
    assigns = code.once("assigned calls", lambda: _assigned_calls(code))
    return {name for called, name in assigns if called == function}


def _assigned_calls(code: Code) -> list[tuple[str, str]]:
    """(what is called, the name that its answer is given) for every assignment of a call."""
    return [
        (last_name(node.value), name_of(target))
        for node in code.nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
    ]
