"""Where the nodes of a parsed text stand.

LibCST's ``PositionProvider`` makes an object at either end of every node, and a generator for most; here both ends are
numbers, and the few nodes that somebody asks for get positions, the same ones. Measured: a third of the time.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import AbstractContextManager
from itertools import accumulate

import libcst as cst
from libcst._nodes.internal import CodegenState
from libcst.metadata import CodePosition, CodeRange


class Positions:
    """The place of each node of ``module``, which was parsed from ``text``: lines from 1, columns in characters."""

    def __init__(self, module: cst.Module, text: str) -> None:
        self._module = module  # while it lives, no other tree's node has the ``id`` of one of its nodes
        self._recorder = _Recorder(module)
        self._starts = list(accumulate((len(line) + 1 for line in text.split("\n")), initial=0))

    def __getitem__(self, node: cst.CSTNode) -> CodeRange:
        """Without the white space around the node. KeyError for a node of another tree."""
        start, end = self._recorder.spans[id(node)]
        return CodeRange(self._position(start), self._position(end))

    def _position(self, offset: int) -> CodePosition:
        line = bisect_right(self._starts, offset)
        return CodePosition(line, offset - self._starts[line - 1])


class _Recorder(CodegenState):
    """Counts the characters of the tokens that a tree is written as."""

    def __init__(self, module: cst.Module) -> None:
        super().__init__(module.default_indent, module.default_newline)
        self.offset = 0
        self.spans: dict[int, tuple[int, int]] = {}  #: by the node's ``id``
        self._begun: list[int] = []
        module._codegen(self)  # noqa: SLF001 - as LibCST's own providers do

    def add_indent_tokens(self) -> None:
        self.offset += sum(map(len, self.indent_tokens))

    def add_token(self, value: str) -> None:
        self.offset += len(value)

    def pop_trailing_newline(self) -> None:
        """No token is kept."""

    def before_codegen(self, node: cst.CSTNode) -> None:  # noqa: ARG002
        self._begun.append(self.offset)

    def after_codegen(self, node: cst.CSTNode) -> None:
        begun = self._begun.pop()
        self.spans.setdefault(id(node), (begun, self.offset))

    def record_syntactic_position(  # type: ignore[override]  # a generator costs
        self, node: cst.CSTNode, *, start_node: cst.CSTNode | None = None, end_node: cst.CSTNode | None = None
    ) -> AbstractContextManager[None]:
        return _Span(self, node, start_node, end_node)


class _Span(AbstractContextManager[None]):
    """A node that is being written; ``first`` and ``last`` are parts of it that it begins and ends with."""

    __slots__ = ("_begun", "_first", "_last", "_node", "_recorder")

    def __init__(
        self, recorder: _Recorder, node: cst.CSTNode, first: cst.CSTNode | None, last: cst.CSTNode | None
    ) -> None:
        self._recorder, self._node, self._first, self._last = recorder, node, first, last
        self._begun = recorder.offset

    def __exit__(self, *error: object) -> None:
        spans = self._recorder.spans
        start = self._begun if self._first is None else spans[id(self._first)][0]
        end = self._recorder.offset if self._last is None else spans[id(self._last)][1]
        spans[id(self._node)] = start, end
