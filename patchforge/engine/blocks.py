"""A source file as a list of its top-level statements, so that only those with a device in them are parsed.

libcst parses about 20,000 lines a second and the tokenizer-free ``ast`` ten times that. ``ast`` finds where top-level
statements begin and end; libcst parses the few that matter. A file that this Python's ``ast`` refuses (newer syntax)
is one block, and libcst has the last word on it.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from patchforge.engine.records import apply_segments
from patchforge.vocabulary import Segment, split_lines


class UnreadableSource(Exception):
    """The file is not Python that can be read: undecodable bytes or a syntax error."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


@dataclass(frozen=True, slots=True)
class Block:
    """Top-level statement(s) on lines ``start:end`` (0-based, end exclusive)."""

    start: int
    end: int
    defines: tuple[str, ...]  #: names it binds at the top level
    is_import: bool
    is_docstring: bool


class Source:
    """One Python file: bytes, lines and top-level statements."""

    def __init__(self, data: bytes) -> None:
        """Raises UnreadableSource for bytes that are no text or text that is no Python."""
        self.data = data
        self.lines = split_lines(data)
        self.encoding = _encoding(data)
        try:
            self.text = data.decode(self.encoding)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise UnreadableSource(f"not {self.encoding}: {error.reason}", line) from None
        except (UnicodeError, LookupError) as error:  # a codec that is none for text
            raise UnreadableSource(f"not {self.encoding}: {error}", 1) from None
        if b"\r" in data.replace(b"\r\n", b""):
            raise UnreadableSource("lines end with a carriage return alone", 1)
        self.newline = "\r\n" if b"\r\n" in data[:4096] else "\n"

    @cached_property
    def tree(self) -> ast.Module | None:
        """The file's ``ast``, or None where this Python's grammar refuses it.

        Raises UnreadableSource for what is nested too deeply: libcst's parser would end the process.
        """
        try:
            return ast.parse(self.text.removeprefix("\ufeff"))
        except (RecursionError, MemoryError):
            raise UnreadableSource("nested too deeply to be parsed", 1) from None
        except SyntaxError as error:
            if "too many" in error.msg:  # nested parentheses, levels of indentation
                raise UnreadableSource(error.msg, error.lineno or 1) from None
            return None
        except ValueError:
            return None

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The top-level statements in order; those that share a line are one block."""
        if self.tree is None:
            return (Block(0, len(self.lines), (), is_import=False, is_docstring=False),)
        blocks: list[Block] = []
        for index, node in enumerate(self.tree.body):
            block = _block(node, first=index == 0)
            if blocks and block.start < blocks[-1].end:
                last = blocks.pop()
                block = Block(
                    last.start,
                    block.end,
                    last.defines + block.defines,
                    last.is_import and block.is_import,
                    last.is_docstring,
                )
            blocks.append(block)
        return tuple(blocks)

    def block_bytes(self, block: Block) -> bytes:
        """The bytes of a block's lines."""
        return b"".join(self.lines[block.start : block.end])

    def after(self, parts: Sequence[Segment]) -> Source:
        """The source after some segments; its top-level statements are derived, not parsed again."""
        changed = Source(apply_segments(self.data, parts))
        if self.tree is None:
            return changed
        changed.aliases = self.aliases
        blocks: list[Block] = []
        pending, shift = list(parts), 0
        for block in self.blocks:
            while pending and _outside(pending[0], block.start):
                part = pending.pop(0)
                blocks.append(_inserted(part, shift))
                shift += len(part.lines)
            start = block.start + shift
            while pending and pending[0].start < block.end:
                part = pending.pop(0)
                shift += len(part.lines) - (part.end - part.start)
            blocks.append(replace(block, start=start, end=block.end + shift))
        for part in pending:
            blocks.append(_inserted(part, shift))
            shift += len(part.lines)
        changed.blocks = tuple(blocks)
        return changed

    @cached_property
    def names(self) -> frozenset[str]:
        """Names that top-level statements bind."""
        return frozenset(name for block in self.blocks for name in block.defines)

    @cached_property
    def import_line(self) -> int:
        """The 0-based line before which an import of ours belongs: after the first run of imports."""
        blocks = self.blocks
        position = 1 if blocks and blocks[0].is_docstring else 0
        last = position
        while last < len(blocks) and blocks[last].is_import:
            last += 1
        if last > position:
            return blocks[last - 1].end
        return blocks[position].start if position < len(blocks) else len(self.lines)

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Local name → full name for imports at the top level, also those under a top-level ``try`` or ``if``."""
        found: dict[str, str] = {}
        stack: list[ast.AST] = list(self.tree.body) if self.tree else []
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Import):
                found.update({alias.asname: alias.name for alias in node.names if alias.asname})
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
            elif isinstance(node, (ast.Try, ast.If)):
                stack.extend([*node.body, *node.orelse, *getattr(node, "finalbody", ())])
                stack.extend(child for handler in getattr(node, "handlers", ()) for child in handler.body)
        return found


def _outside(part: Segment, start: int) -> bool:
    return part.start == part.end and part.start <= start


def _inserted(part: Segment, shift: int) -> Block:
    text = b"".join(part.lines).decode(errors="replace")
    imports = text.startswith(("import ", "from "))
    defines = (text.split()[-1],) if imports else ()
    return Block(part.start + shift, part.start + shift + len(part.lines), defines, imports, is_docstring=False)


def _encoding(data: bytes) -> str:
    try:
        return tokenize.detect_encoding(io.BytesIO(data).readline)[0]
    except SyntaxError as error:
        raise UnreadableSource(str(error), 1) from None


def _block(node: ast.stmt, *, first: bool) -> Block:
    start = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
    docstring = (
        first
        and isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    assert node.end_lineno is not None  # noqa: S101 - ast.parse always sets it
    return Block(start - 1, node.end_lineno, _defines(node), isinstance(node, (ast.Import, ast.ImportFrom)), docstring)


def _defines(node: ast.stmt) -> tuple[str, ...]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return (node.name,)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return tuple((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    if isinstance(node, ast.Assign):
        return tuple(target.id for target in node.targets if isinstance(target, ast.Name))
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return (node.target.id,)
    return ()
