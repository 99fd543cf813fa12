"""One file of a pack: its syntax tree with parents, resolved names, and edits by character offsets.

Rules need whole files (guards, uses of a name, parents), so the tree is ``ast``'s and not libcst's: it is there already
(``Source``), ten times faster, and edits are splices of the text that keep every byte outside of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cached_property

from patchforge.engine.blocks import Source, UnreadableSource
from patchforge.engine.edits import Splice, Text


class Code:
    """A readable Python file. UnreadableSource for one that is not."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.source = path, Source(data)
        tree = self.source.tree
        if tree is None:
            raise _refused(self.source.text)
        self.tree = tree
        self.text = Text(self.source)
        self.parents: dict[ast.AST, ast.AST] = {}
        self.nodes: list[ast.AST] = []
        for node in ast.walk(tree):
            self.nodes.append(node)
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Local name → full name, for every import in the file."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found.update({alias.asname: alias.name for alias in node.names if alias.asname})
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        return found

    def name(self, node: ast.AST) -> str:
        """Dotted name with its first part resolved through the imports; "" for other expressions."""
        text = dotted(node)
        head, _, rest = text.partition(".")
        full = self.aliases.get(head, head)
        return f"{full}.{rest}" if rest else full

    def above(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """(ancestor, the child of it that holds ``node``), from the inside out."""
        child = node
        while (parent := self.parents.get(child)) is not None:
            yield parent, child
            child = parent

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node that ``node`` is a part of."""
        return self.parents.get(node)

    def function(self, node: ast.AST) -> str:
        """Dotted name of the functions and classes around a node, or ``<module>``."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        names = [parent.name for parent, _ in self.above(node) if isinstance(parent, kinds)]
        return ".".join(reversed(names)) or "<module>"

    def scope(self, node: ast.AST) -> ast.AST:
        """The innermost function around a node, or the module."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return next((parent for parent, child in self.above(node) if isinstance(parent, kinds)), self.tree)

    def statement(self, node: ast.AST) -> ast.stmt:
        """The innermost statement around an expression."""
        return next(parent for parent, _ in self.above(node) if isinstance(parent, ast.stmt))

    def start(self, node: ast.expr | ast.stmt) -> int:
        """Character offset of a node's first character."""
        return self.offset(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> int:
        """Character offset behind a node's last character."""
        return self.offset(node.end_lineno or node.lineno, node.end_col_offset or 0)

    def offset(self, line: int, column: int) -> int:
        """Character offset of ``ast``'s position (lines from 1, columns in UTF-8 bytes)."""
        text = self.text.lines[line - 1]
        if not text.isascii():
            column = len(text.encode()[:column].decode(errors="ignore"))
        return self.text.offset(line - 1, column)

    def code(self, node: ast.expr | ast.stmt) -> str:
        """The node's own text."""
        return self.source.text[self.start(node) : self.end(node)]

    def placed(self, node: ast.expr) -> bool:
        """Whether ``ast`` tells a node's place rightly; before Python 3.12 it does not always in f-strings."""
        if not any(isinstance(parent, ast.JoinedStr) for parent, _ in self.above(node)):
            return True
        try:
            return ast.dump(ast.parse(self.code(node), mode="eval").body) == ast.dump(node)
        except SyntaxError:
            return False

    def replace(self, node: ast.expr, text: str) -> Splice:
        """``text`` in place of an expression."""
        return self.splice(self.start(node), self.end(node), text)

    def splice(self, start: int, end: int, text: str) -> Splice:
        """``text`` in place of the characters ``start:end``."""
        return Splice(start, end, text, (3, start), self.path)

    def around(self, node: ast.expr, prefix: str, suffix: str) -> tuple[Splice, ...]:
        """Text on both sides of an expression; wraps of wraps nest."""
        start, end = self.start(node), self.end(node)
        before = (Splice(start, start, prefix, (2, -end), self.path),) if prefix else ()
        return (*before, Splice(end, end, suffix, (0, -start), self.path)) if suffix else before

    def arm(self, branch: ast.If, lines: Sequence[str]) -> Splice:
        """Whole lines behind the body of an ``if``, at its indentation."""
        last = branch.body[-1].end_lineno or branch.lineno
        at, text = self.text.beside(last, lines, branch.lineno - 1)
        return Splice(at, at, text, (-1, 0, -branch.col_offset), self.path)

    def before(self, statement: ast.stmt, lines: Sequence[str]) -> Splice:
        """Whole lines before a statement, at its indentation."""
        line = statement.lineno - 1
        at, text = self.text.beside(line, lines, line)
        return Splice(at, at, text, (-1, 1, 0), self.path)

    def own_lines(self, statement: ast.stmt) -> bool:
        """Whether nothing else stands on a statement's lines."""
        first = self.text.lines[statement.lineno - 1].encode()[: statement.col_offset]
        rest = self.source.text[self.end(statement) : self.text.starts[statement.end_lineno or 0]]
        return not first.strip() and not rest.split("#")[0].strip()

    def mentions(self, nodes: Sequence[ast.AST], pattern: re.Pattern[str], but: re.Pattern[str] | None = None) -> bool:
        """Whether a name, attribute or string in ``nodes`` matches; one that is all ``but`` does not count."""
        found = (word for top in nodes for node in ast.walk(top) for word in words(node) if pattern.search(word))
        return any(but is None or not but.fullmatch(word) for word in found)


def words(node: ast.AST) -> tuple[str, ...]:
    """The names and strings that a node holds itself."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        return (node.attr,)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return (node.value,)
    if isinstance(node, ast.alias):
        return (node.name,)
    if isinstance(node, ast.ImportFrom) and node.module:
        return (node.module,)
    return ()


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of names and attributes as written; "" for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def _refused(text: str) -> UnreadableSource:
    try:
        ast.parse(text.removeprefix("\ufeff"))
    except SyntaxError as error:
        line = error.text or ""
        old = (
            "; it looks like Python 2"
            if re.match(r"\s*(print\s+[^(=]|exec\s+|raise\s+\w+,|except\s+\w+,)", line)
            else ""
        )
        return UnreadableSource(f"no Python that this interpreter reads: {error.msg}{old}", error.lineno or 1)
    except ValueError as error:
        return UnreadableSource(str(error), 1)
    return UnreadableSource("no Python that this interpreter reads", 1)
