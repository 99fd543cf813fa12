"""What a transform is made of: its facts, its examples, what it finds and how it edits.

A transform is one file with one class. Its typed visitor methods (``visit_If``, ``visit_Call``, …) look at one libcst
node each and yield findings; they never change anything themselves. The engine turns findings into edits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar

import libcst as cst

from patchforge.devices import XPU_TESTS
from patchforge.rules import Rule
from patchforge.structure import children, descend, dotted
from patchforge.vocabulary import EditKind, Outcome, Purpose, Version

if TYPE_CHECKING:
    from patchforge.engine.blocks import SourceFile

HOOKS = "patchforge_xpu"  #: the runtime module that hooks live in


_STRINGS = (cst.SimpleString, cst.ConcatenatedString)
#: Inside a call these need parentheses, and their own stay outside of what is put around them.
_NO_ARGUMENTS = (cst.Tuple, cst.GeneratorExp, cst.Yield)
#: These would take an operand that is put after them into their last part.
_LOOSE = (cst.IfExp, cst.Lambda, cst.NamedExpr, cst.Yield)


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """One change, said relative to a node; the engine knows the bytes.

    ``place`` is one of: ``before`` and ``after`` (whole lines beside a statement, at its indentation), ``arm`` (whole
    lines after the body of an ``if``, at the indentation of that ``if``), ``around`` (text on both sides of an
    expression), ``instead`` (text in place of an expression).
    """

    kind: EditKind
    node: cst.CSTNode
    place: str
    lines: tuple[str, ...] = ()
    prefix: str = ""
    suffix: str = ""


def insert_before(statement: cst.CSTNode, *lines: str) -> Edit:
    """Whole lines of ours before a statement; they may be indented further with four spaces."""
    return Edit(EditKind.INSERT, statement, "before", lines)


def insert_after(statement: cst.CSTNode, *lines: str) -> Edit:
    """Whole lines of ours after a statement."""
    return Edit(EditKind.INSERT, statement, "after", lines)


def add_arm(branch: cst.If, test: str, *body: str) -> Edit:
    """A further ``elif`` after the body of ``branch``, before whatever arms follow."""
    return Edit(EditKind.INSERT, branch, "arm", (f"elif {test}:", *(f"    {line}" for line in body)))


def wrap(expression: cst.CSTNode, hook: str, *more: str) -> Edit:
    """``E`` becomes ``patchforge_xpu.hook(E, more…)``; the hook returns ``E`` unless an XPU is in use."""
    tail = "".join(f", {argument}" for argument in more)
    left, right = ("(", ")") if isinstance(expression, _NO_ARGUMENTS) else ("", "")
    return Edit(EditKind.WRAP, expression, "around", prefix=f"{HOOKS}.{hook}({left}", suffix=f"{right}{tail})")


def add_operand(expression: cst.CSTNode, operator: str, operand: str) -> Edit:
    """``E`` becomes ``E and operand`` (or ``E or operand``); the operand is a hook."""
    loose = isinstance(expression, _LOOSE) or (
        isinstance(expression, cst.BooleanOperation) and isinstance(expression.operator, cst.Or) and operator == "and"
    )
    left, right = ("(", ")") if loose else ("", "")
    return Edit(EditKind.WRAP, expression, "around", prefix=left, suffix=f"{right} {operator} {HOOKS}.{operand}")


def replace(expression: cst.CSTNode, text: str) -> Edit:
    """Upstream's expression gives way to ``text``. Only inside an XPU arm; counted in the manifest."""
    return Edit(EditKind.REPLACE, expression, "instead", prefix=text)


@dataclass(frozen=True, slots=True, eq=False)
class Rewrite:
    """The gap is here, and these edits close it."""

    node: cst.CSTNode
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Already:
    """The release does this here already; ``how`` proposes the transform's retirement."""

    node: cst.CSTNode
    how: str


@dataclass(frozen=True, slots=True, eq=False)
class Mismatch:
    """The target is here and not as the transform knows it: a person must look."""

    node: cst.CSTNode
    expected: str


Finding = Rewrite | Already | Mismatch
Findings = Iterator[Finding]


def rewrite(node: cst.CSTNode, *edits: Edit) -> Rewrite:
    """The finding of a gap at ``node``, closed by ``edits``."""
    return Rewrite(node, edits)


@dataclass(frozen=True, slots=True)
class Example:
    """A miniature in our own words. ``after`` is None where the outcome is not ``applied`` (nothing is edited)."""

    name: str
    before: str
    after: str | None = None
    outcome: Outcome = Outcome.APPLIED
    version: str = "v0.33.0"
    path: str = ""  #: defaults to the transform's first file


@dataclass(frozen=True, slots=True)
class Span:
    """Releases from ``first`` to ``last`` (inclusive; open where empty)."""

    first: str = ""
    last: str = ""

    def __contains__(self, version: Version) -> bool:
        return (not self.first or Version.parse(self.first) <= version) and (
            not self.last or version <= Version.parse(self.last)
        )

    def __str__(self) -> str:
        return f"{self.first or 'the first release'} to {self.last or 'the newest'}"


class Transform(Rule):
    """Base of all transforms."""

    purpose: ClassVar[Purpose]
    issues: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[tuple[str, ...]]  #: paths or globs
    needles: ClassVar[tuple[str, ...]]  #: a top-level statement without any of these is not parsed
    facts: ClassVar[tuple[str, ...]] = ()  #: texts whose presence elsewhere in the file the visitor asks about
    hooks: ClassVar[tuple[str, ...]] = ()  #: names of the runtime's functions that the edits call
    absent: ClassVar[tuple[Span, ...]] = ()  #: releases that have no target
    upstream: ClassVar[tuple[Span, ...]] = ()  #: releases that need no edit
    retires: ClassVar[str]  #: when the transform can go; the visitor recognises it and answers ``upstream``
    declares: ClassVar[tuple[str, ...]] = ()  #: answers and calls that may differ on an XPU (dynamic proof)
    opt_in: ClassVar[str] = ""  #: name of the switch, where the effect is off by default
    examples: ClassVar[tuple[Example, ...]]

    def expected(self, version: Version) -> Outcome:
        """The outcome that the facts give for a release."""
        if any(version in span for span in self.absent):
            return Outcome.ABSENT
        if any(version in span for span in self.upstream):
            return Outcome.UPSTREAM
        return Outcome.APPLIED

    def wants(self, path: str) -> bool:
        """Whether ``path`` is one of the transform's files."""
        return any(path == pattern or fnmatchcase(path, pattern) for pattern in self.files)

    @classmethod
    def visitors(cls) -> Mapping[type[cst.CSTNode], str]:
        """Libcst node type → name of the method that looks at it."""
        names = [name for name in dir(cls) if name.startswith("visit_")]
        return {getattr(cst, name.removeprefix("visit_")): name for name in names}


def imported_names(node: cst.Import | cst.ImportFrom) -> Iterator[tuple[str, str]]:
    """(local name, full dotted name) of an import statement."""
    if isinstance(node.names, cst.ImportStar):
        return
    base = ""
    if isinstance(node, cst.ImportFrom):
        base = dotted(node.module) + "." if node.module else ""
    for alias in node.names:
        full = base + dotted(alias.name)
        if alias.asname:
            yield dotted(alias.asname.name), full
        elif base:
            yield dotted(alias.name), full


class NotOnItsOwnLine(Exception):
    """A statement shares its line, so that whole lines cannot be put beside it; the engine reports a mismatch."""


@dataclass
class At:
    """Where the walk stands: what a transform may ask about the surroundings of a node."""

    path: str
    aliases: dict[str, str]  #: local name → full dotted name
    source: SourceFile  #: the whole file
    ancestors: list[cst.CSTNode] = field(default_factory=list)  #: outermost first, the node itself not included
    bound: dict[cst.CSTNode, frozenset[str]] = field(default_factory=dict)  #: node → names that are known there

    def file_has(self, fact: str) -> bool:
        """Whether the file's code says ``fact``, which the transform must list in ``facts``. Comments do not count."""
        return self.source.says(fact)

    @property
    def function(self) -> str:
        """Dotted name of the innermost function or class around the node, or ``<module>``."""
        names = [node.name.value for node in self.ancestors if isinstance(node, (cst.FunctionDef, cst.ClassDef))]
        return ".".join(names) or "<module>"

    def name(self, node: cst.CSTNode) -> str:
        """Dotted name with the first part resolved through the file's imports; "" for other expressions."""
        text = dotted(node)
        head, _, rest = text.partition(".")
        full = self.aliases.get(head, head)
        return f"{full}.{rest}" if rest else full

    def calls(self, node: cst.CSTNode, name: str) -> bool:
        """Whether ``node`` is a call of ``name`` (its last part, however it was imported)."""
        return isinstance(node, cst.Call) and self.name(node.func).rpartition(".")[2] == name

    def mentions(self, node: cst.CSTNode, name: str) -> bool:
        """Whether a name or attribute ``name`` occurs anywhere in ``node``."""
        return any(isinstance(child, cst.Name) and child.value == name for child in descend(node))

    def strings(self, node: cst.CSTNode) -> list[str]:
        """What the plain strings in ``node`` say, in source order; docstrings and the like are remarks."""
        stack, texts = [node], list[str]()
        while stack:
            child = stack.pop()
            if isinstance(child, _STRINGS) and isinstance(child.evaluated_value, str):
                texts.append(child.evaluated_value)
            elif not (isinstance(child, cst.Expr) and isinstance(child.value, _STRINGS)):
                stack.extend(reversed(list(children(child))))
        return texts

    @property
    def statement(self) -> cst.SimpleStatementLine:
        """The statement around the node; NotOnItsOwnLine where it shares a line with another or with an ``if``."""
        for node in reversed(self.ancestors):
            if isinstance(node, cst.SimpleStatementLine) and len(node.body) == 1:
                return node
            if isinstance(node, (cst.SimpleStatementLine, cst.SimpleStatementSuite)):
                break
        raise NotOnItsOwnLine

    def first_statement(self, function: cst.FunctionDef) -> cst.BaseStatement:
        """The first statement of a function's body after its docstring."""
        body = function.body
        if not isinstance(body, cst.IndentedBlock):
            raise NotOnItsOwnLine
        return body.body[1 if function.get_docstring() is not None and len(body.body) > 1 else 0]

    def arm(self, test: Callable[[cst.BaseExpression], bool]) -> cst.If | None:
        """The innermost ``if`` or ``elif`` whose test satisfies ``test`` and whose body the node is in."""
        inner: cst.CSTNode | None = None
        for node in reversed(self.ancestors):
            if isinstance(node, cst.If) and inner is node.body and test(node.test):
                return node
            inner = node
        return None

    def xpu_arm(self) -> cst.If | None:
        """The innermost ``if`` that tests for an Intel XPU and whose body the node is in."""
        return self.arm(self.asks_for_xpu)

    def asks_for_xpu(self, test: cst.BaseExpression) -> bool:
        """Whether ``test`` asks for an Intel XPU; ``not is_intel_xpu()`` asks for another device."""
        stack: list[cst.CSTNode] = [test]
        while stack:
            node = stack.pop()
            if isinstance(node, cst.Name) and node.value in XPU_TESTS:
                return True
            if not (isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Not)):
                stack.extend(children(node))
        return False
