"""A source file as a list of its top-level statements, so that only those with a device in them are parsed.

libcst parses about 20,000 lines a second and the tokenizer-free ``ast`` ten times that. ``ast`` finds where top-level
statements begin and end; libcst parses the few that matter. A file that this Python's ``ast`` refuses (newer syntax)
is one block, and libcst has the last word on it.
"""

from __future__ import annotations

import ast
import codecs
import io
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from patchforge.effort import TooIntricate
from patchforge.engine.prefilter import may_say, says
from patchforge.engine.records import apply_segments
from patchforge.engine.syntax import DEFINITIONS, FUNCTIONS, imported_names
from patchforge.vocabulary import Segment, split_lines


class UnreadableSource(Exception):
    """The file is not Python that can be read: undecodable bytes or a syntax error."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


#: What a stranger's file may end the work on it with.
REFUSED = (UnreadableSource, TooIntricate, RecursionError, MemoryError)


def why_refused(error: BaseException) -> tuple[int, str]:
    """The line, and why a file is not looked at; ``error``: one of ``REFUSED``."""
    if isinstance(error, UnreadableSource):
        return error.line, error.reason
    return 1, f"{error}; somebody must look" if isinstance(error, TooIntricate) else "nested too deeply to be looked at"


@dataclass(frozen=True, slots=True)
class Block:
    """Top-level statement(s) on lines ``start:end`` (0-based, end exclusive), or a function inside of one."""

    start: int
    end: int
    defines: tuple[str, ...] = ()  #: names it binds at the top level
    is_import: bool = False
    is_docstring: bool = False
    header: str = ""  #: for a function inside of one: the lines that make it one, such as ``class NAME:``
    functions: tuple[Block, ...] = ()  #: of a class, and of a long function

    def after(self, parts: Sequence[Segment]) -> Block:
        """The block where it stands after some segments."""
        moved = tuple(function.after(parts) for function in self.functions)
        start, end = self.start + _shift(parts, self.start, before=True), self.end + _shift(parts, self.end)
        return replace(self, start=start, end=end, functions=moved)


def parsed(text: str | bytes) -> ast.Module:
    """The ``ast`` of a stranger's file; Python's remarks on it go nowhere.

    UnreadableSource for what is nested too deeply, which libcst's parser would end the process for; SyntaxError and
    ValueError as ``ast.parse``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (RecursionError, MemoryError):
        raise UnreadableSource("nested too deeply to be parsed", 1) from None
    except SyntaxError as error:
        if "too many" in error.msg:  # nested parentheses, levels of indentation
            raise UnreadableSource(error.msg, error.lineno or 1) from None
        raise


class SourceFile:
    """One Python file: bytes, lines and top-level statements."""

    refusal: Exception | None = None  #: why this Python's grammar refuses the file

    def __init__(self, data: bytes) -> None:
        """Raises UnreadableSource for bytes that are not text or text that is not Python."""
        self.data = data
        self.lines = split_lines(data)
        self.encoding = _encoding(data)
        try:
            self.text = data.decode(self.encoding)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise UnreadableSource(f"not {self.encoding}: {error.reason}", line) from None
        except (UnicodeError, LookupError) as error:  # a codec that is not for text
            raise UnreadableSource(f"not {self.encoding}: {error}", 1) from None
        if not _comes_back(self.text, self.encoding, data):
            raise UnreadableSource(f"not {self.encoding}: it does not come back as the same bytes", 1)
        if b"\r" in data.replace(b"\r\n", b""):
            raise UnreadableSource("lines end with a carriage return alone", 1)
        self.newline = "\r\n" if b"\r\n" in data[:4096] else "\n"

    @cached_property
    def tree(self) -> ast.Module | None:
        """The file's ``ast``, or None where this Python's grammar refuses it.

        Raises UnreadableSource for what is nested too deeply: libcst's parser would end the process.
        """
        try:
            return parsed(self.text.removeprefix("\ufeff"))
        except (SyntaxError, ValueError) as error:
            self.refusal = error
            return None

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The top-level statements in order; those that share a line are one block."""
        if self.tree is None:
            return (Block(0, len(self.lines)),)
        blocks: list[Block] = []
        for index, node in enumerate(self.tree.body):
            block = _block(node, self.lines, self.encoding, first=index == 0)
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

    def says(self, piece: str) -> bool:
        """Whether ``piece`` occurs in the code, or as a string; in a comment it does not count."""
        return may_say(self.data, [piece]) and says(self.text, piece)

    def after(self, parts: Sequence[Segment]) -> SourceFile:
        """The source after some segments; its top-level statements are derived, not parsed again."""
        changed = SourceFile(apply_segments(self.data, parts))
        if self.tree is None:
            return changed
        changed.tree, changed.aliases = self.tree, self.aliases
        outside = [part for part in parts if not any(_inside(part, block) for block in self.blocks)]
        blocks = [*(block.after(parts) for block in self.blocks), *(_inserted(part, parts) for part in outside)]
        changed.blocks = tuple(sorted(blocks, key=lambda block: block.start))
        return changed

    def rest(self, block: Block) -> bytes:
        """The bytes of a block outside the functions in it."""
        lines, position = list[bytes](), block.start
        for function in block.functions:
            lines += self.lines[position : function.start]
            position = function.end
        return b"".join([*lines, *self.lines[position : block.end]])

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
        names: dict[str, str] = {}
        stack: list[ast.AST] = list(self.tree.body) if self.tree else []
        while stack:
            node = stack.pop()
            names |= imported_names(node)
            if isinstance(node, (ast.Try, ast.If)):
                stack.extend([*node.body, *node.orelse, *getattr(node, "finalbody", ())])
                stack.extend(child for handler in getattr(node, "handlers", ()) for child in handler.body)
        return names


def _inside(part: Segment, block: Block) -> bool:
    return block.start < part.start < block.end or (part.start < part.end and part.start == block.start)


def _shift(parts: Sequence[Segment], line: int, *, before: bool = False) -> int:
    """By how much a line moves; ``before``: what is inserted at the line itself counts too."""
    return sum(
        len(part.lines) - (part.end - part.start)
        for part in parts
        if part.start < line or (before and part.start == part.end == line)
    )


def _inserted(part: Segment, parts: Sequence[Segment]) -> Block:
    start = part.start + _shift(parts, part.start)
    text = b"".join(part.lines).decode(errors="replace")
    imports = text.startswith(("import ", "from "))
    defines = (text.split()[-1],) if imports else ()
    return Block(start, start + len(part.lines), defines, is_import=imports)


#: Codecs that take the square of a text's length.
_SLOW_CODECS = frozenset({"punycode", "idna"})


def _encoding(data: bytes) -> str:
    try:
        name = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        if codecs.lookup(name).name in _SLOW_CODECS:
            raise UnreadableSource(f"{name} is not an encoding of source files", 1)
    except (SyntaxError, LookupError, ValueError) as error:
        raise UnreadableSource(str(error), 1) from None
    return name


def _comes_back(text: str, encoding: str, data: bytes) -> bool:
    """Whether what stays untouched keeps its bytes when the text is encoded again."""
    try:
        return text.encode(encoding) == data
    except UnicodeError:
        return False


def _block(node: ast.stmt, lines: Sequence[bytes], encoding: str, *, first: bool) -> Block:
    docstring = (
        first
        and isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    imports = isinstance(node, (ast.Import, ast.ImportFrom))
    functions = _functions(node, lines, encoding)
    return Block(*_lines(node, lines), _defines(node), imports, docstring, functions=functions)


def _lines(node: ast.stmt, lines: Sequence[bytes]) -> tuple[int, int]:
    """The lines of a statement with its decorators: 0-based, end exclusive."""
    first = node.lineno - 1
    if decorators := getattr(node, "decorator_list", ()):
        first = decorators[0].lineno - 1
        while first and not lines[first].lstrip().startswith(b"@"):  # ast leaves the sign itself out
            first -= 1
    return first, node.end_lineno or node.lineno


_LONG = 100  #: lines of a function from which on the functions in it are blocks of their own


def _functions(node: ast.stmt, lines: Sequence[bytes], encoding: str, above: str = "") -> tuple[Block, ...]:
    """The methods of a class, and the functions in a long function, where each has its lines for itself."""
    if not isinstance(node, DEFINITIONS):
        return ()
    begin = _lines(node.body[0], lines)[0]
    if isinstance(node, ast.ClassDef):
        header = f"{above}class {node.name}:\n"
    elif (node.end_lineno or 0) - node.lineno >= _LONG:
        header = above + b"".join(lines[node.lineno - 1 : begin]).decode(encoding)
    else:
        return ()
    inner = [function for function in node.body if isinstance(function, FUNCTIONS)]
    blocks = tuple(
        Block(*_lines(function, lines), header=header, functions=_functions(function, lines, encoding, header))
        for function in inner
    )
    apart = all(block.end <= other.start for block, other in pairwise(blocks)) and begin > node.lineno - 1
    return blocks if apart else ()


def _defines(node: ast.stmt) -> tuple[str, ...]:
    if isinstance(node, DEFINITIONS):
        return (node.name,)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return tuple((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    if isinstance(node, ast.Assign):
        return tuple(target.id for target in node.targets if isinstance(target, ast.Name))
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return (node.target.id,)
    return ()
