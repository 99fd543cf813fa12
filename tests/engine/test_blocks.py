"""A file as its top-level statements."""

from __future__ import annotations

import ast

import pytest

from patchforge.engine.blocks import SourceFile, UnreadableSource
from patchforge.engine.files import look_at
from patchforge.engine.records import apply_segments
from patchforge.rules import transforms
from patchforge.vocabulary import Segment
from tests.support import ERAS, miniature


def spans(text: str) -> list[tuple[int, int]]:
    return [(block.start, block.end) for block in SourceFile(text.encode()).blocks]


def test_statements_are_blocks_and_what_lies_between_is_none() -> None:
    assert spans("# first\nimport os\n\n\nx = [\n    1,\n]  # tail\n# last\n") == [(1, 2), (4, 7)]


def test_decorators_belong_to_their_function() -> None:
    assert spans("x = 1\n\n@one\n@two(\n    3)\ndef f():\n    pass\n") == [(0, 1), (2, 7)]


def test_statements_on_one_line_are_one_block() -> None:
    source = SourceFile(b"import os; x = 1; y = 2\nz = 3\n")
    assert [(block.start, block.end, block.defines, block.is_import) for block in source.blocks] == [
        (0, 1, ("os", "x", "y"), False),
        (1, 2, ("z",), False),
    ]


def test_an_opened_string_joins_the_lines_of_two_statements() -> None:
    assert spans('x = """\n"""; y = 1\nz = 2\n') == [(0, 2), (2, 3)]


def test_names_bound_at_the_top() -> None:
    text = b"import a.b, c as d\nfrom e import f as g, h\nclass I: pass\nj = k = 1\nl: int = 2\nasync def m(): pass\n"
    assert SourceFile(text).names == {"a", "d", "g", "h", "I", "j", "k", "l", "m"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import a\nimport b\nx = 1\n", 2),
        ('"""Doc."""\nimport a\n\nfrom b import c\nx = 1\nimport d\n', 4),
        ('"""Doc."""\nx = 1\nimport a\n', 1),
        ("# c\n@d\ndef f(): pass\n", 1),
        ("import a; x = 1\n", 0),
        ("from __future__ import annotations\nx = 1\n", 1),
        ("# only a comment\n", 1),
    ],
)
def test_where_an_import_of_ours_belongs(text: str, line: int) -> None:
    assert SourceFile(text.encode()).import_line == line


def test_aliases_also_below_try_and_if() -> None:
    text = b"import torch as t\ntry:\n    import a.b as c\nexcept E:\n    from d import e as f\nif x:\n    pass\nelse:\n    from g import h\n"  # noqa: E501
    assert SourceFile(text).aliases == {"t": "torch", "c": "a.b", "f": "d.e", "h": "g.h"}


def test_byte_order_mark_encoding_and_line_ends_are_seen() -> None:
    plain, marked = SourceFile(b"x = 1\n"), SourceFile(b"\xef\xbb\xbfx = 1\r\n")
    assert (plain.encoding, plain.newline, plain.text) == ("utf-8", "\n", "x = 1\n")
    assert (marked.encoding, marked.newline, marked.text) == ("utf-8-sig", "\r\n", "x = 1\r\n")
    assert len(marked.blocks) == 1


def test_a_declared_encoding_is_used() -> None:
    assert SourceFile("# coding: latin-1\nx = 'é'\n".encode("latin-1")).text == "# coding: latin-1\nx = 'é'\n"


def test_a_missing_final_newline_is_no_matter() -> None:
    source = SourceFile(b"x = 1\ny = 2")
    assert [source.block_bytes(block) for block in source.blocks] == [b"x = 1\n", b"y = 2"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"x = 1\ry = 2\n", "carriage return alone"),
        (b"x = 1\r\r\n", "carriage return alone"),
        (b"x = '\xff'\n", "invalid or missing encoding"),
        (b"x = 1\ny = 2\nz = '\xff'\n", "not utf-8"),
        (b"# coding: no-such-thing\n", "unknown encoding"),
        (b"# coding: rot13\nk = 1\n", "rot13"),
        (b"# coding: undefined\nk = 1\n", "undefined"),
    ],
)
def test_what_is_no_text_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableSource, match=reason):
        SourceFile(data)


def test_the_line_of_an_undecodable_byte() -> None:
    with pytest.raises(UnreadableSource) as caught:
        SourceFile(b"a = 1\nb = 2\nc = '\xff'\n")
    assert caught.value.line == 3


def test_what_python_refuses_is_one_block() -> None:
    source = SourceFile(b"def f(:\n    pass\n")
    assert source.tree is None
    assert [(block.start, block.end) for block in source.blocks] == [(0, 2)]


@pytest.mark.parametrize("era", ERAS)
def test_blocks_after_edits_are_where_a_new_parse_puts_them(era: str) -> None:
    for path, data in miniature(era).items():
        if not path.endswith(".py"):
            continue
        source = SourceFile(data)
        for _, parts in look_at(path, data, transforms(), {}).stages:
            source = source.after(parts)
            fresh = SourceFile(source.data)
            derived = [line for block in source.blocks for line in range(block.start, block.end)]
            assert {block.start for block in source.blocks} <= {block.start for block in fresh.blocks}
            assert {block.end for block in source.blocks} <= {block.end for block in fresh.blocks}
            assert derived == [line for block in fresh.blocks for line in range(block.start, block.end)]
            assert source.names == fresh.names
            assert source.import_line == fresh.import_line
            ast.parse(source.data)


def test_segments_make_the_file() -> None:
    data = b"a\nb\r\nc\nd"
    parts = (Segment(0, 0, (b"0\n",)), Segment(1, 3, (b"B\n",)), Segment(4, 4, ()))
    assert apply_segments(data, parts) == b"0\na\nB\nd"
