"""Comparison by structure, and the quick look before it."""

from __future__ import annotations

from textwrap import dedent

import libcst as cst
import pytest

from patchforge.engine.blocks import SourceFile
from patchforge.engine.prefilter import may_say, says
from patchforge.structure import same, statements
from tests.trivia import mutants

PATTERNS = (
    "args.cpu",
    "f(dev)",
    "int(version[0]) >= 2",
    "torch.xpu.get_device_properties(dev).total_memory - mem_reserved",
    'aimdo_device = device.index if getattr(device, "type", None) == "cuda" else None',
    "return x.to(dtype=dtype)",
    "x = [1, *a, {2: 'b', **c}, (d,), e[1:2, ::3]]",
    "self.real_model = weakref.ref(real_model)",
    "lambda a, *b, c=1, **d: not a and (yield)",
    "x = [a for b in c if d for e in f]",
)


def line(text: str) -> cst.CSTNode:
    return cst.parse_module(text).body[0]


def body(text: str) -> cst.BaseSuite:
    return cst.ensure_type(line(f"async def f():\n    {text}\n"), cst.FunctionDef).body


@pytest.mark.parametrize("pattern", PATTERNS)
def test_trivia_make_no_difference(pattern: str) -> None:
    source = f"def f():\n    {pattern}\n"
    for mutant in mutants(source):
        function = cst.ensure_type(line(mutant.text), cst.FunctionDef)
        assert same(function.body, pattern), mutant.text
    assert len(mutants(source)) > 40


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_pattern_is_not_another(pattern: str) -> None:
    assert [other for other in PATTERNS if same(line(pattern), other)] == [pattern]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("f(dev, x)", "f(dev)"),
        ("f(dev=dev)", "f(dev)"),
        ("f(*dev)", "f(dev)"),
        ("f(**dev)", "f(*dev)"),
        ("(a,)", "a"),
        ("a,", "a"),
        ("[a]", "[a, a]"),
        ("a < b", "a <= b"),
        ("a or b", "a and b"),
        ("not a", "a"),
        ("-1", "1"),
        ("1.0", "1"),
        ("b'a'", "'a'"),
        ("'a '", "'a'"),
        ("f'a'", "'a'"),
        ("x[1:]", "x[:1]"),
        ("x[0,]", "x[0]"),
        ("x = y", "x == y"),
        ("x: int = y", "x = y"),
        ("x = z = y", "x = y"),
        ("x += y", "x -= y"),
        ("return", "return None"),
        ("a = 1; b = 2", "a = 1"),
        ("a.b", "b"),
        ("await a", "a"),
        ("a if b else c", "a if c else b"),
    ],
)
def test_what_differs_is_seen(text: str, pattern: str) -> None:
    assert not same(body(text), pattern)
    assert not same(body(pattern), text)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("0x10", "16"), ("1_000", "1000"), ("1e3", "1000.0"), ("'a' \"b\"", "'ab'"), ("r'a'", "'a'"), ("u'a'", "'a'")],
)
def test_a_literal_is_what_it_says(text: str, pattern: str) -> None:
    assert same(line(text), pattern)
    assert same(line(pattern), text)


def test_nothing_is_not_a_pattern() -> None:
    assert not same(None, "None")
    assert same(line("b"), "a", "b")


def test_a_block_is_its_statements() -> None:
    block = cst.ensure_type(line("if x:\n    a; b\n    if c: d\n    e\n"), cst.If).body
    assert [type(statement) for statement in statements(block)] == [cst.Expr, cst.Expr, cst.If, cst.Expr]
    suite = cst.ensure_type(line("if x: a; b\n"), cst.If).body
    assert [same(statement, "a", "b") for statement in statements(suite)] == [True, True]


@pytest.mark.parametrize(
    "piece", ["def get_memory", "torch.cuda.empty_cache", "version[0]", "registry.disable(", "--flag"]
)
def test_a_piece_is_found_however_it_is_laid_out(piece: str) -> None:
    source = dedent(
        """\
        import torch
        def get_memory():
            torch.cuda.empty_cache(version[0])
            ck.registry.disable("triton")
            parser.add_argument("--flag")
        """
    )
    for mutant in mutants(source):
        assert may_say(mutant.text.encode(), [piece]), mutant.text
        assert says(mutant.text, piece), mutant.text


@pytest.mark.parametrize(
    "text",
    [
        "# def get_memory\n",
        "def other(): # get_memory\n    pass\n",
        '"""A def get_memory of old."""\n',
        "def get_memory_2(): pass\n",
        "defget_memory\n",
        "def(get_memory2)\n",
        "get_memory()\n",
    ],
)
def test_what_only_looks_like_a_piece_is_not_said(text: str) -> None:
    assert not says(text, "def get_memory")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("os.environ['ZE_MASK'] = '0'\n", True),
        ("ZE_MASK = 1\n", True),
        ("f(b'ZE_MASK')\n", False),
        ("x = 'sets ZE_MASK'\n", False),
        ("# ZE_MASK\n", False),
        ("x = f'{ZE_MASK}'\n", False),
    ],
)
def test_a_word_is_a_name_or_a_whole_string(text: str, said: bool) -> None:
    assert says(text, "ZE_MASK") is said
    assert SourceFile(b"\xef\xbb\xbf" + text.encode()).says("ZE_MASK") is said
    assert SourceFile(text.encode()).says("ZE_MASK") is said


def test_the_quick_look_takes_no_time_over_hostile_remarks() -> None:
    text = b"def " + b"# ((((((((((((((((((((((((((((((((((((\n" * 5000 + b"other()\n"
    assert not may_say(text + b"get_memory", ["get_memory def", "def . get_memory"])
    assert may_say(b"def " + b"# ((((((((\n" * 5000 + b"get_memory", ["def get_memory"])
