"""What of a file is a kernel for a GPU, or builds one: the functions and statements, and the names that lead there.

A file is never set aside for it. Its other functions are looked at; only a test for CUDA that leads to a kernel stays.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from patchforge.effort import spend
from patchforge.engine.syntax import DEFINITIONS, FUNCTIONS, dotted, imported_names
from patchforge.nodes.code import Code

_BUILDS = re.compile("CUDAExtension|RawModule|RawKernel|load_inline|cpp_extension")
_COMPILERS = ("triton.jit", "cuda.jit")  #: decorators of a kernel
_COMMON = frozenset(("forward", "run", "load", "__init__", "__call__"))  #: methods that others have as well


@dataclass(frozen=True, slots=True)
class _Kernels:
    parts: frozenset[ast.AST]  #: functions; outside of them statements
    names: tuple[str, ...]  #: of the module
    attributes: re.Pattern[str] | None  #: methods, and what objects keep


def builds(node: ast.AST, code: Code) -> bool:
    """Whether a node stands in a function, or outside of functions in a statement, that is or builds a kernel."""
    parts = _of(code).parts
    return bool(parts) and (node in parts or any(parent in parts for parent, _ in code.above(node)))


def led_to(nodes: Sequence[ast.AST], code: Code) -> bool:
    """Whether ``nodes`` are, build or use a kernel of the file, be it through a function of the file that does."""
    known = _of(code)
    if not known.parts:
        return False
    spend(len(nodes) * (len(known.parts) + len(known.names)))
    by_name = any(code.named(name, node) for name in known.names for node in nodes)
    parts = any(code.holds(node, part) for part in known.parts for node in nodes)
    return by_name or parts or _has(nodes, known.attributes, code)


def _of(code: Code) -> _Kernels:
    return code.once("kernels", lambda: _found(code))


def _found(code: Code) -> _Kernels:
    if not code.mentions([code.tree], _BUILDS) and "jit" not in code.source.text:
        return _Kernels(frozenset(), (), None)
    uses = list(_uses(code))
    compiled = [node for node in code.nodes if isinstance(node, FUNCTIONS) and any(map(_compiles, node.decorator_list))]
    parts = frozenset((*compiled, *(_part(use, code) for use in uses)))
    given = [name for part in parts for name in _defined(part, code)]
    given += [name for use in uses for name in _kept(use, code)]
    attributes = _any_of({name for name, of_object in given if of_object} - _COMMON)
    names = {name for name, of_object in given if not of_object}
    tops = (node for node in code.tree.body if isinstance(node, DEFINITIONS))
    names |= {node.name for node in tops if _has([node], attributes, code)}
    return _Kernels(parts, _with_users(names, code), attributes)


def _with_users(names: set[str], code: Code) -> tuple[str, ...]:
    """Names, and those of the module's functions and classes that use one, or one that does."""
    todo = sorted(names)
    while todo:
        for use in code.named(todo.pop(), code.tree):
            user = next((child for parent, child in code.above(use) if parent is code.tree), None)
            if isinstance(user, DEFINITIONS) and user.name not in names:
                names.add(user.name)
                todo.append(user.name)
    return tuple(sorted(names))


def _has(nodes: Sequence[ast.AST], attributes: re.Pattern[str] | None, code: Code) -> bool:
    return attributes is not None and code.mentions(nodes, attributes)


def _any_of(names: set[str]) -> re.Pattern[str] | None:
    return re.compile(rf"^(?:{'|'.join(map(re.escape, sorted(names)))})$") if names else None


def _compiles(mark: ast.expr) -> bool:
    return dotted(mark.func if isinstance(mark, ast.Call) else mark).endswith(_COMPILERS)


def _uses(code: Code) -> Iterator[ast.AST]:
    """Every use of a compiler of torch's or CuPy's, and every import of one in a function."""
    known: dict[ast.AST, set[str]] = {}
    for found in code.nodes:
        if isinstance(found, (ast.Import, ast.ImportFrom)):
            named = {local for local, full in imported_names(found).items() if _BUILDS.search(full)}
            known.setdefault(code.scope(found), set()).update(named)
            modules = (*(alias.name for alias in found.names), getattr(found, "module", None) or "")
            if code.scope(found) is not code.tree and any(map(_BUILDS.search, modules)):
                yield found
    everywhere = known.get(code.tree, set())
    for node in code.nodes:
        if isinstance(node, ast.Attribute) and _BUILDS.search(node.attr):
            yield node
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            here = known.get(code.scope(node), set())
            if node.id in everywhere or node.id in here or _BUILDS.search(node.id):
                yield node


def _part(use: ast.AST, code: Code) -> ast.AST:
    """The function around a use; else the statement of the module or of a class."""
    scope = code.scope(use)
    if scope is not code.tree:
        return scope
    return next((child for parent, child in code.above(use) if isinstance(parent, (ast.Module, ast.ClassDef))), use)


def _defined(part: ast.AST, code: Code) -> Iterator[tuple[str, bool]]:
    if isinstance(part, DEFINITIONS):
        yield part.name, isinstance(code.parent(part), ast.ClassDef)


def _kept(use: ast.AST, code: Code) -> Iterator[tuple[str, bool]]:
    """The names that are given what is built, each with whether an object keeps it."""
    statement = next((parent for parent, _ in code.above(use) if isinstance(parent, ast.stmt)), None)
    for target in statement.targets if isinstance(statement, ast.Assign) else ():
        if isinstance(target, ast.Attribute):
            yield target.attr, True
        elif isinstance(target, ast.Name) and (code.scope(target) is code.tree or _is_global(target, code)):
            yield target.id, False


def _is_global(name: ast.Name, code: Code) -> bool:
    return name.id in code.once("globals", lambda: _globals(code))


def _globals(code: Code) -> frozenset[str]:
    return frozenset(name for node in code.nodes if isinstance(node, ast.Global) for name in node.names)
