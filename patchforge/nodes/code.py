"""One file of a pack: its syntax tree with parents, resolved names, and edits by character offsets.

Rules need whole files (guards, uses of a name, parents), so the tree is ``ast``'s and not libcst's: it is there already
(``Source``), ten times faster, and edits are splices of the text that keep every byte outside of them.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeVar, cast

from patchforge.effort import SHARED, spend
from patchforge.engine.blocks import SourceFile, UnreadableSource
from patchforge.engine.edits import Splice, Text
from patchforge.engine.syntax import DEFINITIONS, FUNCTIONS, dotted, imported_names, resolved
from patchforge.nodes import layout

_PER_NODE = 8  #: steps for all that every node is asked
_FORMATTED = re.compile(r"[fF][rR]?(\"\"\"|'''|\"|')|[rR][fF](\"\"\"|'''|\"|')")
_PYTHON_2 = re.compile(r"\s*(print\s+[^(=]|exec\s+|raise\s+\w+,|except\s+\w+,)")
_LONGEST_PLAIN = 200  #: characters of a word that is looked at whole

T = TypeVar("T")


class Code:
    """A readable Python file. UnreadableSource for one that is not.

    Nodes are numbered from the outside in, so that what is in a node is a range of numbers: whether one node holds
    another, or a word, is a matter of comparing numbers, however deep the tree is.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.source = path, SourceFile(data)
        tree = self.source.tree
        if tree is None:
            raise _refused(self.source)
        self.tree = tree
        self.text = Text(self.source)
        self.parents: dict[ast.AST, ast.AST] = {}
        self.nodes: list[ast.AST] = []
        self._once: dict[object, Any] = {}
        parents = self.parents
        level: list[ast.AST] = [tree]
        while level:
            spend(_PER_NODE * len(level))
            self.nodes += level
            below: list[ast.AST] = []
            for node in level:
                for field in node._fields:
                    value = getattr(node, field, None)
                    for child in value if isinstance(value, list) else (value,):
                        if isinstance(child, ast.AST) and not isinstance(child, SHARED):
                            parents[child] = node
                            below.append(child)
            level = below

    @cached_property
    def _numbers(self) -> dict[ast.AST, tuple[int, int]]:
        return _numbered(self.nodes, self.parents)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What ``make`` gives, made once for each ``key``."""
        if key not in self._once:
            self._once[key] = make()
        return cast("T", self._once[key])

    def knows(self, key: object) -> bool:
        """Whether ``once`` was asked for a key before."""
        return key in self._once

    def span(self, node: ast.AST) -> tuple[int, int]:
        """The numbers of a node and of the last one in it."""
        return self._numbers[node]

    def holds(self, outer: ast.AST, inner: ast.AST) -> bool:
        """Whether ``inner`` is ``outer`` or a part of it."""
        first, last = self._numbers[outer]
        return first <= self._numbers[inner][0] <= last

    def field(self, node: ast.AST) -> str:
        """The name of its parent's field that a node stands in."""
        return self._place(node)[0]

    def index(self, node: ast.AST) -> int:
        """The place of a node in its parent's field."""
        return self._place(node)[1]

    def _place(self, node: ast.AST) -> tuple[str, int]:
        parent = self.parents.get(node)
        return self.once(("places", parent), lambda: _places(parent))[node] if parent else ("", 0)

    @cached_property
    def functions(self) -> dict[str, list[ast.FunctionDef]]:
        """The functions of the file by their name."""
        by_name: dict[str, list[ast.FunctionDef]] = {}
        for node in self.nodes:
            if isinstance(node, ast.FunctionDef):
                by_name.setdefault(node.name, []).append(node)
        return by_name

    def definitions(self, name: str) -> list[ast.FunctionDef]:
        """What a call of a name may run: the file's functions of that name, and the constructors of its classes."""
        methods = ((method, self.parent(method)) for method in self.functions.get("__init__", []))
        made = (method for method, owner in methods if isinstance(owner, ast.ClassDef) and owner.name == name)
        return [*self.functions.get(name, []), *made]

    def parameter(self, default: ast.AST) -> str:
        """The parameter that has a default; "" for what is none."""
        arguments, (field, at) = self.parent(default), self._place(default)
        if not isinstance(arguments, ast.arguments) or field not in ("defaults", "kw_defaults"):
            return ""
        named = [*arguments.posonlyargs, *arguments.args] if field == "defaults" else arguments.kwonlyargs
        first = len(named) - len(arguments.defaults) if field == "defaults" else 0
        return named[first + at].arg

    @cached_property
    def _attributes(self) -> dict[str, list[ast.Attribute]]:
        by_name: dict[str, list[ast.Attribute]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Attribute):
                by_name.setdefault(node.attr, []).append(node)
        return by_name

    def attributes(self, name: str) -> list[ast.Attribute]:
        """Every ``x.name`` of the file."""
        found = self._attributes.get(name, [])
        spend(1 + len(found))
        return found

    @cached_property
    def _named(self) -> dict[str, tuple[list[int], list[tuple[int, ast.Name]]]]:
        by_name: dict[str, list[tuple[int, int, ast.Name]]] = {}
        for order, node in enumerate(self.nodes):
            if isinstance(node, ast.Name):
                by_name.setdefault(node.id, []).append((self._numbers[node][0], order, node))
        result: dict[str, tuple[list[int], list[tuple[int, ast.Name]]]] = {}
        for name, places in by_name.items():
            places.sort(key=lambda place: place[0])
            result[name] = [place[0] for place in places], [place[1:] for place in places]
        return result

    def named(self, name: str, top: ast.AST) -> list[ast.Name]:
        """Every use of a name in ``top``, in the order of ``ast.walk``."""
        numbers, uses = self._named.get(name, ([], []))
        first, last = self._numbers[top]
        inside = sorted(uses[bisect_left(numbers, first) : bisect_right(numbers, last)], key=lambda use: use[0])
        spend(len(inside))
        return [node for _, node in inside]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Local name → full name, for every import in the file."""
        names: dict[str, str] = {}
        for node in self._imports:
            if isinstance(node, ast.Import) or not node.level:
                names |= imported_names(node)
        return names

    @cached_property
    def _imports(self) -> list[ast.Import | ast.ImportFrom]:
        return [node for node in self.nodes if isinstance(node, (ast.Import, ast.ImportFrom))]

    @cached_property
    def torchs(self) -> frozenset[str]:
        """The names that lead to torch, or to torchvision, or to something in them."""
        ours = ("torch", "torchvision")
        return frozenset((*ours, *(name for name, full in self.aliases.items() if full.partition(".")[0] in ours)))

    @cached_property
    def imported(self) -> frozenset[str]:
        """The first parts of the modules that the file imports by their own names."""
        plain = (alias.name for node in self._imports if isinstance(node, ast.Import) for alias in node.names)
        return frozenset(name.partition(".")[0] for name in plain)

    def torch_in(self, node: ast.expr) -> str:
        """The name by which an expression reads torch, and which is bound there; "" where it reads a part of torch."""
        while isinstance(node, (ast.Attribute, ast.Call)):
            node = node.func if isinstance(node, ast.Call) else node.value
        return node.id if isinstance(node, ast.Name) and self.name(node) == "torch" else ""

    @cached_property
    def bindings(self) -> tuple[tuple[str, ast.AST], ...]:
        """Every name that the file gives to something, with the node that does."""
        spend(len(self.nodes))
        return tuple((name, node) for node in self.nodes for name in _bound_by(node))

    def binds(self, name: str) -> bool:
        """Whether the file gives a name, such as a builtin's, to something of its own."""
        return name in self.once("bound names", lambda: frozenset(name for name, _ in self.bindings))

    def name(self, node: ast.AST) -> str:
        """Dotted name with its first part resolved through the imports; "" for other expressions."""
        text = dotted(node)
        return resolved(text, self.aliases) if text else ""

    def above(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """(ancestor, the child of it that holds ``node``), from the inside out."""
        child = node
        while (parent := self.parents.get(child)) is not None:
            spend(2)
            yield parent, child
            child = parent

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node that ``node`` is a part of."""
        return self.parents.get(node)

    def function(self, node: ast.AST) -> str:
        """Dotted name of the functions and classes around a node, or ``<module>``."""
        around = next((parent for parent, _ in self.above(node) if isinstance(parent, DEFINITIONS)), None)
        if around is None:
            return "<module>"
        return self.once(("function", around), lambda: self._definitions(around))

    def _definitions(self, around: ast.AST) -> str:
        parents = (parent for parent, _ in self.above(around))
        return ".".join(reversed([owner.name for owner in (around, *parents) if isinstance(owner, DEFINITIONS)]))

    def block(self, part: ast.AST) -> list[ast.stmt]:
        """The statements that one stands among; nothing for what is no statement."""
        block = getattr(self.parent(part), self.field(part), None)
        return block if isinstance(block, list) else []

    def scope(self, node: ast.AST) -> ast.AST:
        """The innermost function around a node, or the module."""
        return next((parent for parent, _ in self.above(node) if isinstance(parent, FUNCTIONS)), self.tree)

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
            column = bisect_right(self.once(("line", line), lambda: _starts(text)), column) - 1
        return self.text.offset(line - 1, column)

    def code(self, node: ast.expr | ast.stmt) -> str:
        """The node's own text."""
        start, end = self.start(node), self.end(node)
        spend(1 + (end - start) // 64)
        return self.source.text[start:end]

    def line(self, node: ast.expr) -> str | None:
        """An expression's own text on one line; None where a string in it spans several."""
        return layout.on_one_line(self.code(node), expression=True)

    def said(self, node: ast.expr) -> str:
        """What an expression says, however it is laid out: for looking at, never for an edit."""
        first, last = self.span(node)
        spend(1 + last - first)
        return self.once(("said", node), lambda: ast.unparse(node))

    def placed(self, node: ast.expr) -> bool:
        """Whether ``ast`` tells a node's place rightly; before Python 3.12 it does not always in f-strings."""
        if not any(isinstance(parent, ast.JoinedStr) for parent, _ in self.above(node)):
            return True
        try:
            return ast.dump(ast.parse(self.code(node), mode="eval").body) == ast.dump(node)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False

    @cached_property
    def _formatted(self) -> list[tuple[int, int, str]]:
        """(start, end, quote) of each f-string that stands in no other, by their places."""
        strings: list[tuple[int, int, str]] = []
        for node in self.nodes:
            if isinstance(node, ast.JoinedStr) and not self.in_string(node):
                match = _FORMATTED.search(self.source.text, self.start(node))
                strings.append((self.start(node), self.end(node), (match[1] or match[2]) if match else '"'))
        return sorted(strings)

    def quotes(self, start: int, end: int) -> tuple[str, bool]:
        """What ends the f-string around characters, and whether another one is in it; "" outside of one."""
        at = bisect_right(self._formatted, (start, 0, "")) - 1
        first, last, quote = self._formatted[at] if at >= 0 else (0, 0, "")
        spend(1 + (last - first) // 64)
        if not first < start <= end < last:
            return "", False
        return quote, _FORMATTED.search(self.source.text, first + 2, last) is not None

    def quoted(self, edit: Splice) -> bool:
        """Whether an edit is in an f-string."""
        return bool(self.quotes(edit.start, edit.end)[0])

    def in_string(self, node: ast.expr) -> bool:
        """Whether an expression stands in an f-string."""
        return any(isinstance(parent, ast.JoinedStr) for parent, _ in self.above(node))

    def replace(self, node: ast.expr, text: str) -> Splice:
        """``text`` in place of an expression."""
        return self.splice(self.start(node), self.end(node), text)

    def splice(self, start: int, end: int, text: str) -> Splice:
        """``text`` in place of the characters ``start:end``."""
        return self.text.instead((start, end), text, self.path)

    def precede(self, node: ast.expr, text: str) -> Splice:
        """``text`` before an expression and the parentheses that are its own."""
        start, _ = self.enclosed(node)
        return self.splice(start, start, text)

    def follow(self, node: ast.expr, text: str) -> Splice:
        """``text`` behind an expression and the parentheses that are its own."""
        _, end = self.enclosed(node)
        return self.splice(end, end, text)

    def enclosed(self, node: ast.expr) -> tuple[int, int]:
        """The span of a part of an expression, with the redundant parentheses around it."""
        whole = self.parent(node)
        if not isinstance(whole, ast.expr):
            return self.start(node), self.end(node)
        base = self.start(whole)
        start, end = layout.enclosed(self.code(whole), self.start(node) - base, self.end(node) - base)
        return base + start, base + end

    def around(self, node: ast.expr, prefix: str, suffix: str) -> tuple[Splice, ...]:
        """Text on both sides of an expression; wraps of wraps nest."""
        return self.text.around((self.start(node), self.end(node)), prefix, suffix, self.path)

    def arm(self, branch: ast.If, lines: Sequence[str]) -> Splice:
        """Whole lines behind the body of an ``if``, at its indentation."""
        last = branch.body[-1].end_lineno or branch.lineno
        return self.text.behind(branch.lineno - 1, last - 1, lines, self.path, arm=True)

    def before(self, statement: ast.stmt, lines: Sequence[str]) -> Splice:
        """Whole lines before a statement, at its indentation."""
        return self.text.before(statement.lineno - 1, lines, self.path)

    def unless(self, statement: ast.stmt, test: str) -> Splice:
        """``if not test:`` before a call, or ``None if test else`` where the call shares its lines with others."""
        start, line = self.start(statement), self.text.lines[statement.lineno - 1]
        if not self.own_lines(statement):
            return self.splice(start, start, f"None if {test} else ")
        indent = self.text.indent(statement.lineno - 1)
        end, deeper = "\r\n" if line.endswith("\r") else "\n", "\t" if indent.endswith("\t") else "    "
        return self.splice(start, start, f"if not {test}:{end}{indent}{deeper}")

    def own_lines(self, statement: ast.stmt) -> bool:
        """Whether nothing else stands on a statement's lines."""
        first = self.text.lines[statement.lineno - 1].encode()[: statement.col_offset]
        rest = self.source.text[self.end(statement) : self.text.starts[statement.end_lineno or 0]]
        return not first.strip() and not rest.split("#")[0].strip(" \t\r\n;")

    def mentions(self, nodes: Sequence[ast.AST], pattern: re.Pattern[str], but: re.Pattern[str] | None = None) -> bool:
        """Whether a name, attribute or string in ``nodes`` matches; one that is all ``but`` does not count."""
        places = self.once((pattern, but), lambda: self._mentions(pattern, but))
        spend(len(nodes))
        return any(between(places, *self._numbers[node]) for node in nodes)

    def _mentions(self, pattern: re.Pattern[str], but: re.Pattern[str] | None) -> list[int]:
        known: dict[str, bool] = {}
        for _, word in self._words:
            if word not in known:
                spend(1 + len(word) // 16)
                plain = but is not None and len(word) <= _LONGEST_PLAIN and but.fullmatch(word)
                known[word] = bool(pattern.search(word)) and not plain
        return sorted(self._numbers[node][0] for node, word in self._words if known[word])

    @cached_property
    def _words(self) -> list[tuple[ast.AST, str]]:
        """Every name and string, and the node that holds it."""
        holding = ((node, field) for node in self.nodes if (field := _WORDS.get(type(node))))
        words = ((node, getattr(node, field)) for node, field in holding)
        return [(node, word) for node, word in words if isinstance(word, str)]

    @cached_property
    def vocabulary(self) -> str:
        """Every name and string of the file, in lines."""
        return "\n".join(sorted({word for _, word in self._words}))


def _bound_by(node: ast.AST) -> list[str]:
    """The names that a node itself binds, or unbinds."""
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, ast.alias):
        return [(node.asname or node.name).partition(".")[0]]
    names = (getattr(node, field, None) for field in ("arg", "name", "rest") if not isinstance(node, ast.keyword))
    return [name for name in names if isinstance(name, str)]  # arguments, definitions, exceptions, patterns


def between(numbers: Sequence[int], first: int, last: int) -> bool:
    """Whether one of sorted numbers is in a range."""
    at = bisect_left(numbers, first)
    return at < len(numbers) and numbers[at] <= last


def _numbered(nodes: Sequence[ast.AST], parents: Mapping[ast.AST, ast.AST]) -> dict[ast.AST, tuple[int, int]]:
    """(its own number, the last one's in it) of each node, depth first. ``nodes``: parents before children."""
    sizes = dict.fromkeys(nodes, 1)
    for node in reversed(nodes[1:]):
        sizes[parents[node]] += sizes[node]
    numbers = {nodes[0]: (0, sizes[nodes[0]] - 1)}
    following = {nodes[0]: 1}
    for node in nodes[1:]:
        parent = parents[node]
        first = following[parent]
        following[parent], following[node] = first + sizes[node], first + 1
        numbers[node] = first, first + sizes[node] - 1
    return numbers


def _starts(text: str) -> list[int]:
    """Where each character begins in the text's UTF-8 bytes, and where the last one ends."""
    widths = (1 if char < "\x80" else 2 if char < "\u0800" else 3 if char < "\U00010000" else 4 for char in text)
    return [0, *accumulate(widths)]


def _places(parent: ast.AST) -> dict[ast.AST, tuple[str, int]]:
    """Field and index of each part of a node."""
    fields = ((field, getattr(parent, field, None)) for field in parent._fields)
    lists = ((field, value if isinstance(value, list) else [value]) for field, value in fields)
    return {part: (field, index) for field, parts in lists for index, part in enumerate(parts)}


#: Where a node holds a name or a string of its own.
_WORDS = {ast.Name: "id", ast.Attribute: "attr", ast.Constant: "value", ast.alias: "name", ast.ImportFrom: "module"}


def _refused(source: SourceFile) -> UnreadableSource:
    error = source.refusal
    if not isinstance(error, SyntaxError):
        return UnreadableSource(f"no Python that this interpreter reads: {error}", 1)
    old = "; it looks like Python 2" if _PYTHON_2.match((error.text or "")[:200]) else ""
    return UnreadableSource(f"no Python that this interpreter reads: {error.msg}{old}", error.lineno or 1)
