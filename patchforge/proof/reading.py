"""Python files as the proofs read them, apart from the engine: text, syntax tree, and trees compared."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from functools import cached_property

from patchforge.effort import spend
from patchforge.errors import CheckFailed


class PythonFile:
    """One file of a proof. CheckFailed for one that is not Python."""

    def __init__(self, path: str, source: str | bytes) -> None:
        self.path = path
        try:
            text = source if isinstance(source, str) else _decoded(source)
            self.text = text.removeprefix("\ufeff")
            with warnings.catch_warnings():  # Python's remarks on a stranger's code are not ours to pass on
                warnings.simplefilter("ignore")
                self.tree = ast.parse(self.text)
        except SyntaxError as error:
            line, text = error.lineno or 1, (error.text or "").strip()
            raise failure(path, line, f"not Python: {error.msg}", found=text) from None
        except (UnicodeDecodeError, ValueError, RecursionError, MemoryError) as error:
            raise failure(path, 1, f"cannot be read as Python: {error}") from None

    @cached_property
    def lines(self) -> list[str]:
        """The lines as ``ast`` counts them, without their ends."""
        return self.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    def text_lines(self, node: ast.stmt) -> list[str]:
        """All lines that the statement is on."""
        return self.lines[first_line(node) - 1 : node.end_lineno]

    def fragment(self, node: ast.AST) -> str:
        """The node's first line, as written."""
        line, end = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
        if not line:
            return type(node).__name__
        raw = self.lines[line - 1].encode()
        stop = node.end_col_offset if end == line else None  # type: ignore[attr-defined]
        return raw[node.col_offset : stop].decode(errors="replace").strip() + (" …" if end != line else "")  # type: ignore[attr-defined]


def failure(path: str, line: int, problem: str, expected: str = "", found: str = "") -> CheckFailed:
    """What a proof says of a place in a file."""
    return CheckFailed(f"{path}:{line}: {problem}", expected=expected, found=found)


def first_line(node: ast.stmt) -> int:
    """The first line of a statement; decorators are a part of it."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(item.lineno for item in decorators)])


def same_text(before: PythonFile, old: ast.AST, after: PythonFile, new: ast.AST) -> bool:
    """Whether two nodes are statements of the same lines at the same columns, and so the same tree."""
    return (
        isinstance(old, ast.stmt)
        and isinstance(new, ast.stmt)
        and type(old) is type(new)
        and (old.col_offset, old.end_col_offset) == (new.col_offset, new.end_col_offset)
        and before.text_lines(old) == after.text_lines(new)
    )


def same(node: ast.AST, other: ast.AST) -> bool:
    """Whether two nodes are alike but for their places; reading and writing a name are."""
    stack: list[tuple[object, object]] = [(node, other)]
    while stack:
        a, b = stack.pop()
        spend()
        if type(a) is not type(b):
            return False
        if isinstance(a, ast.AST):
            stack += [(getattr(a, name, None), getattr(b, name, None)) for name in a._fields if name != "ctx"]
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            stack += zip(a, b, strict=True)
        elif not _same_value(a, b):
            return False
    return True


def _same_value(value: object, other: object) -> bool:
    """Equal constants that Python also computes alike: 0.0 is not -0.0."""
    return repr(value) == repr(other) if isinstance(value, (float, complex)) else value == other


def _decoded(source: bytes) -> str:
    return source.decode(tokenize.detect_encoding(io.BytesIO(source).readline)[0])
