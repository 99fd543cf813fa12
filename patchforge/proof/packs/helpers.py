"""The functions of ours that a converted file gets a copy of."""

from __future__ import annotations

import ast
import builtins
import re
from functools import cache

from patchforge import resources

_MOST_NODES = 200  #: ours have fewer


@cache
def helpers() -> dict[str, str]:
    """Name → text of every function that edits may call, in the order in which they need one another."""
    text = resources.path("nodes/runtime/patchforge_pack.py").read_text("utf-8")
    functions: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            lines = text.split("\n")[node.lineno - 1 : node.end_lineno]
            functions[node.name] = "\n".join(re.sub(r"\s+# noqa.*$", "", line) for line in lines)
    return functions


@cache
def helper_builtins() -> dict[str, frozenset[str]]:
    """Name of each function of ours → the builtins that it reads."""
    read = {
        name: {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        for name, text in helpers().items()
    }
    return {name: frozenset(names & set(dir(builtins))) for name, names in read.items()}


def is_ours(node: ast.AST) -> bool:
    """Whether a statement is one of our functions, to the letter; a name alone is anybody's."""
    if not isinstance(node, ast.FunctionDef) or node.name not in helpers():
        return False
    return len(list(ast.walk(node))) <= _MOST_NODES and ast.dump(node) == _dumps()[node.name]


@cache
def _dumps() -> dict[str, str]:
    return {name: ast.dump(ast.parse(text).body[0]) for name, text in helpers().items()}
