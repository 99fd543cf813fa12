"""Whether the names that an edit uses are there: a parameter that upstream renamed must not become a NameError."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterator, Sequence

import libcst as cst

from patchforge.structure import descend
from patchforge.transform import HOOKS, At, Rewrite

_STRING = re.compile(r"""'[^'\n]*'|"[^"\n]*\"""")
_VARIABLE = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?!\w|\s*\(|\s*=[^=])")
_ALWAYS = frozenset({HOOKS, *keyword.kwlist, *dir(builtins)})


def unbound(finding: Rewrite, node: cst.CSTNode, at: At) -> list[str]:
    """Variables of the edits that neither the functions around ``node`` nor its own code bind, sorted.

    The module's top level must bind them. Only edits inside a function are looked at, and only variables: what is
    called is not.
    """
    functions = [function for function in (*at.ancestors, node) if isinstance(function, cst.FunctionDef)]
    if not functions:
        return []
    used = {
        name for edit in finding.edits for text in (*edit.lines, edit.prefix, edit.suffix) for name in _variables(text)
    }
    used -= _ALWAYS | at.aliases.keys()
    around = [*functions[:1], *(scope for scope in (node, finding.node) if scope not in functions)]
    for scope in around:
        if scope not in at.bound:
            at.bound[scope] = frozenset(_bound([scope]))
    return sorted(used.difference(*(at.bound[scope] for scope in around)))


def _variables(text: str) -> list[str]:
    return _VARIABLE.findall(_STRING.sub("''", text))


def _bound(nodes: Sequence[cst.CSTNode]) -> Iterator[str]:
    """What a function binds; of another node, every name in it counts as known to upstream."""
    for top in nodes:
        inside = isinstance(top, cst.FunctionDef)
        for node in descend(top):
            if not inside:
                yield from _names(node)
            elif isinstance(node, cst.Param):
                yield node.name.value
            elif isinstance(node, (cst.AssignTarget, cst.For, cst.CompFor, cst.AnnAssign, cst.NamedExpr)):
                yield from (name for child in descend(node.target) for name in _names(child))
            elif isinstance(node, cst.AsName):
                yield from (name for child in descend(node.name) for name in _names(child))


def _names(node: cst.CSTNode) -> Iterator[str]:
    if isinstance(node, cst.Name):
        yield node.value
