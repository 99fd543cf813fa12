"""One file of a pack as its proof reads it: names resolved through the imports, and flags that say if CUDA is there."""

from __future__ import annotations

import ast
from functools import cached_property

from patchforge import effort
from patchforge.proof.packs.scopes import Scopes
from patchforge.proof.reading import PythonFile

_LONGEST_NAME = 32  #: parts; nothing that the proof knows is longer


class PackFile(PythonFile):
    """One version of a file."""

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the file."""
        return list(effort.walk(self.tree))

    @cached_property
    def statements(self) -> list[ast.AST]:
        """All statements of the file, and what else holds statements."""
        nodes: list[ast.AST] = [self.tree]
        for node in nodes:
            effort.spend()
            for field in ("body", "handlers", "orelse", "finalbody", "cases"):
                block = getattr(node, field, None)
                nodes += block if isinstance(block, list) else ()
        return nodes

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Local name → full name, for every import in the file."""
        names: dict[str, str] = {}
        for node in self.statements:
            if isinstance(node, ast.Import):
                names.update({alias.asname: alias.name for alias in node.names if alias.asname})
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        return names

    @cached_property
    def imported(self) -> frozenset[str]:
        """The full names of what the file imports; by their local names what it imports from its own package."""
        names: set[str] = set()
        for node in self.statements:
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                local = {alias.asname or alias.name for alias in node.names}
                names.update(self.aliases.get(name, name) for name in local)
        return frozenset(names - {self.aliases.get(name, name) for name in self.assigned})

    @cached_property
    def assigned(self) -> frozenset[str]:
        """Names that the file gives a value."""
        stored = (node for node in self.nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        return frozenset(node.id for node in stored)

    @cached_property
    def scopes(self) -> Scopes:
        """What names mean at the file's places."""
        return Scopes(self.tree)

    @cached_property
    def cuda_flags(self) -> frozenset[str]:
        """Names that hold nothing but the answer of ``torch.cuda.is_available()``."""
        if "is_available" not in self.text:
            return frozenset()
        stored: dict[str, set[bool]] = {}
        others: set[str] = set()
        asking = {target for node in self.statements if isinstance(node, ast.Assign) for target in self._asking(node)}
        if not asking:
            return frozenset()
        for node in self.nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                stored.setdefault(node.id, set()).add(node in asking)
            elif name := _bound(node):
                others.add(name)
        return frozenset(name for name, answers in stored.items() if answers == {True}) - others

    def _asking(self, node: ast.Assign) -> list[ast.expr]:
        """The targets of an assignment of CUDA's answer."""
        asks = isinstance(node.value, ast.Call) and self.name(node.value.func) == "torch.cuda.is_available"
        return node.targets if asks else []

    def name(self, node: ast.AST) -> str:
        """Dotted name with its first part resolved through the imports; "" for other expressions."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute) and len(parts) < _LONGEST_NAME:
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self.aliases.get(node.id, node.id), *reversed(parts)])


def _bound(node: ast.AST) -> str:
    """The name that a node gives to something, as an argument, a definition or an import."""
    if isinstance(node, ast.alias):
        return (node.asname or node.name).partition(".")[0]
    return str(getattr(node, "arg" if isinstance(node, ast.arg) else "name", None) or "")
