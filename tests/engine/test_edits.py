"""Edits of several transforms in one file: composed, ordered, or refused."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import libcst as cst
import pytest

from patchforge.engine.edits import EditConflict
from patchforge.engine.files import look_at
from patchforge.structure import code, dotted
from patchforge.transform import (
    At,
    Edit,
    Findings,
    Mismatch,
    Transform,
    add_arm,
    add_operand,
    insert_after,
    insert_before,
    replace,
    rewrite,
    wrap,
)
from patchforge.vocabulary import Outcome, Purpose
from tests.support import MemoryTree, converted, engine_of, release

PATH = "comfy/example.py"


@dataclass(frozen=True)
class Rule:
    """What an ad-hoc transform does: ``make`` gives edits for a node, or nothing."""

    id: str
    kind: type[cst.CSTNode]
    make: Callable[[cst.CSTNode, At], Sequence[Edit]]
    purpose: Purpose = Purpose.DEVICE
    hooks: tuple[str, ...] = ()
    needles: tuple[str, ...] = ("",)


def transform(rule: Rule) -> Transform:
    """An ad-hoc transform; the catalogue does not list it, as its module is not one of the catalogue's."""

    def visit(_: Transform, node: cst.CSTNode, at: At) -> Findings:
        if edits := rule.make(node, at):
            yield rewrite(node, *edits)

    facts = {
        "__doc__": "A transform of a test.",
        "__module__": __name__,
        "id": rule.id,
        "title": rule.id,
        "purpose": rule.purpose,
        "files": ("comfy/*",),
        "needles": rule.needles,
        "hooks": rule.hooks,
        "retires": "never",
        "examples": (),
        f"visit_{rule.kind.__name__}": visit,
    }
    kind: type[Transform] = type(rule.id, (Transform,), facts)
    return kind()


def on(kind: type[cst.CSTNode], text: str, make: Callable[[cst.CSTNode, At], Edit], name: str = "X1") -> Transform:
    """A transform that edits the nodes of a kind whose code is ``text``."""
    return transform(Rule(name, kind, lambda node, at: [make(node, at)] if code(node) == text else []))


def calling(text: str, hook: str, name: str) -> Transform:
    return on(cst.Call, text, lambda node, _: wrap(node, hook), name)


def edited(text: str, *transforms: Transform) -> str:
    return converted(PATH, text.encode(), transforms).decode().replace("from comfy import patchforge_xpu\n", "")


def test_two_wraps_of_one_expression_nest() -> None:
    assert edited("x = f(1)\n", calling("f(1)", "one", "X1"), calling("f(1)", "two", "X2")) == (
        "x = patchforge_xpu.two(patchforge_xpu.one(f(1)))\n"
    )


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_wraps_of_nested_expressions_nest_in_any_order(order: tuple[int, ...]) -> None:
    every = [
        calling("f(g(1))(2)", "a", "X1"),
        calling("f(g(1))", "b", "X2"),
        calling("g(1)", "c", "X3"),
        on(cst.Name, "f", lambda node, _: wrap(node, "d"), "X4"),
    ]
    assert edited("x = f(g(1))(2)\n", *(every[index] for index in order)) == (
        "x = patchforge_xpu.a(patchforge_xpu.b(patchforge_xpu.d(f)(patchforge_xpu.c(g(1))))(2))\n"
    )


def test_an_operand_and_a_wrap_of_one_test() -> None:
    asked = calling("f()", "asked", "X1")
    also = on(cst.Call, "f()", lambda node, _: add_operand(node, "and", "also()"), "X2")
    assert (
        edited("if f():\n    g()\n", asked, also)
        == "if patchforge_xpu.asked(f()) and patchforge_xpu.also():\n    g()\n"
    )


def test_wraps_over_several_lines_and_wide_characters() -> None:
    text = 'x = "ä€𝄞", f(\n    "ü",\n), f(2)\n'
    assert edited(
        text, on(cst.Call, 'f(\n    "ü",\n)', lambda node, _: wrap(node, "one"), "X1"), calling("f(2)", "two", "X2")
    ) == ('x = "ä€𝄞", patchforge_xpu.one(f(\n    "ü",\n)), patchforge_xpu.two(f(2))\n')


def line_of(text: str, place: Callable[..., Edit], *lines: str, name: str = "X1") -> Transform:
    return on(cst.SimpleStatementLine, text, lambda node, _: place(node, *lines), name)


@pytest.mark.parametrize("place", [insert_before, insert_after])
def test_insertions_at_one_place_keep_the_order_of_the_transforms(place: Callable[..., Edit]) -> None:
    first, second = line_of("a()", place, "one()", name="X1"), line_of("a()", place, "two()", name="X2")
    ours = edited("a()\n", first, second).replace("a()\n", "")
    assert ours == "one()\ntwo()\n"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_after_an_inner_statement_comes_before_the_next_outer_one(order: tuple[int, int]) -> None:
    every = [line_of("a()", insert_after, "inner()", name="X1"), line_of("b()", insert_before, "outer()", name="X2")]
    text = "if x:\n    a()\nb()\n"
    assert edited(text, *(every[index] for index in order)) == "if x:\n    a()\n    inner()\nouter()\nb()\n"


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_an_arm_stands_between_its_body_and_what_follows_the_chain(order: tuple[int, ...]) -> None:
    every = [
        line_of("a()", insert_after, "inner()", name="X1"),
        transform(
            Rule("X2", cst.If, lambda node, _: [add_arm(node, "y", "arm()")] if isinstance(node, cst.If) else [])
        ),
        transform(Rule("X3", cst.If, lambda node, _: [insert_after(node, "behind()")])),
    ]
    assert edited("if x:\n    a()\nb()\n", *(every[index] for index in order)) == (
        "if x:\n    a()\n    inner()\nelif y:\n    arm()\nbehind()\nb()\n"
    )


def test_an_arm_comes_before_else() -> None:
    arm = transform(
        Rule("X1", cst.If, lambda node, _: [add_arm(node, "y()", "arm()")] if isinstance(node, cst.If) else [])
    )
    text = "def f():\n    if x:\n        a()\n    # why\n    else:\n        b()\n"
    ast.parse(edited(text, arm))
    assert (
        edited(text, arm)
        == "def f():\n    if x:\n        a()\n    elif y():\n        arm()\n    # why\n    else:\n        b()\n"
    )


def replacing(text: str, by: str, name: str) -> Transform:
    return on(cst.Call, text, lambda node, _: replace(node, by), name)


def test_what_is_inside_a_replacement_conflicts_and_both_are_named() -> None:
    with pytest.raises(EditConflict) as caught:
        edited("x = f(g(1))\n", replacing("f(g(1))", "h()", "X1"), calling("g(1)", "one", "X2"))
    assert "X1" in str(caught.value)
    assert "X2" in str(caught.value)
    assert PATH in str(caught.value)


def test_two_replacements_of_one_expression_conflict() -> None:
    with pytest.raises(EditConflict, match="X1 and X2"):
        edited("x = f(1)\n", replacing("f(1)", "g()", "X1"), replacing("f(1)", "h()", "X2"))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_wrap_goes_around_a_replacement(order: tuple[int, int]) -> None:
    every = [replacing("f(1)", "g()", "X1"), calling("f(1)", "one", "X2")]
    assert edited("x = f(1)\n", *(every[index] for index in order)) == "x = patchforge_xpu.one(g())\n"


def test_the_import_is_added_once_and_only_with_a_hook() -> None:
    wrapped = calling("f(1)", "one", "X1")
    assert converted(PATH, b'"""Doc."""\nimport os\nx = f(1), f(1)\n', (wrapped,)) == (
        b'"""Doc."""\nimport os\nfrom comfy import patchforge_xpu\nx = patchforge_xpu.one(f(1)), patchforge_xpu.one(f(1))\n'  # noqa: E501
    )
    assert b"import" not in converted(PATH, b"f(1)\n", (line_of("f(1)", insert_after, "g(1)"),))
    assert converted(PATH, b"from comfy import patchforge_xpu\nf(1)\n", (wrapped,)).count(b"import") == 1


def test_a_statement_that_shares_its_line_is_a_mismatch_and_nothing_is_written() -> None:
    def make(_: cst.CSTNode, at: At) -> Sequence[Edit]:
        return [insert_before(at.statement, "one()")]

    rule = transform(Rule("X1", cst.Return, make))
    text = b"def f():\n    if x: return 1\n"
    record = look_at(PATH, text, (rule,), {})
    assert [(place.outcome, place.line, place.note) for place in record.found] == [
        (Outcome.DRIFTED, 2, "a statement on a line of its own")
    ]
    assert record.stages == ()


def test_a_later_patch_sees_what_an_earlier_one_wrote() -> None:
    first = line_of("a()", insert_after, "mark()", name="X1")
    second = transform(
        Rule(
            "X2",
            cst.SimpleStatementLine,
            lambda node, _: [insert_after(node, "seen()")] if code(node) == "mark()" else [],
            Purpose.MEMORY,
        )
    )
    assert edited("a()\nb()\n", first, second) == "a()\nmark()\nseen()\nb()\n"
    assert edited("a()\nb()\n", second, first) == "a()\nmark()\nseen()\nb()\n"
    assert edited("a()\nb()\n", second) == "a()\nb()\n"
    early = transform(
        Rule(
            "X3",
            cst.SimpleStatementLine,
            lambda node, _: [insert_after(node, "seen()")] if code(node) == "mark()" else [],
        )
    )
    assert edited("a()\nb()\n", first, early) == "a()\nmark()\nb()\n"


def test_each_patch_is_a_change_of_its_own() -> None:
    first = line_of("a()", insert_after, "mark()", name="X1")
    second = transform(
        Rule(
            "X2",
            cst.SimpleStatementLine,
            lambda node, _: [insert_after(node, "seen()")] if code(node) == "mark()" else [],
            Purpose.MODEL,
        )
    )
    changes = engine_of((first, second)).convert(release("v9.0.0"), MemoryTree({PATH: b"a()\n"})).changes
    assert list(changes) == [Purpose.DEVICE, Purpose.MODEL]
    [device], [model] = changes[Purpose.DEVICE], changes[Purpose.MODEL]
    assert (device.before, device.after, model.before, model.after) == (
        b"a()\n",
        b"a()\nmark()\n",
        b"a()\nmark()\n",
        b"a()\nmark()\nseen()\n",
    )


def test_lines_are_upstreams_in_later_patches_too() -> None:
    def find(node: cst.CSTNode, at: At) -> Sequence[Edit]:
        return (
            [insert_after(at.statement, "ours()")]
            if dotted(node.func if isinstance(node, cst.Call) else node) == "b"
            else []
        )

    first = line_of("a()", insert_after, "one()", "two()", "three()", name="X1")
    second = transform(Rule("X2", cst.Call, find, Purpose.CUDA_ONLY))
    record = look_at(PATH, b"a()\n\nb()\na()\nb()\n", (first, second), {})
    assert [(place.transform, place.line, place.last_line) for place in record.found] == [
        ("X1", 1, 1),
        ("X1", 4, 4),
        ("X2", 3, 3),
        ("X2", 5, 5),
    ]


def test_one_mismatch_stops_the_release_and_shows_both_fragments() -> None:
    class Picky(Transform):
        """A transform of a test."""

        id = "X9"
        title = "picky"
        purpose = Purpose.DEVICE
        files = (PATH,)
        needles = ("f(",)
        retires = "never"
        examples = ()

        def visit_Call(self, node: cst.Call, at: At) -> Findings:
            assert at.path == PATH
            yield Mismatch(node, "g(1)")

    [report] = engine_of((Picky(),)).convert(release("v9.0.0"), MemoryTree({PATH: b"x = f(1)\n"})).reports
    assert report.outcome is Outcome.DRIFTED
    assert [(drift.path, drift.line, drift.expected, drift.found) for drift in report.drifts] == [
        (PATH, 1, "g(1)", "f(1)")
    ]


@pytest.mark.parametrize(
    ("line", "drifts"),
    [
        ("hook(a, b.c, 'd', e=a)", False),
        ("hook(inner, outer, torch, len, at_top)", False),
        ("hook(d)", True),
        ("d = hook(a)", False),
        ("if not hook(True, d):", True),
    ],
)
def test_an_edit_uses_only_names_that_are_bound_there(line: str, drifts: bool) -> None:
    text = b"import torch\nat_top = 1\ndef f(a, b):\n    outer = a.d\n    def g():\n        for inner in b:\n            use()\n"  # noqa: E501
    edit = transform(Rule("X1", cst.Call, lambda _, at: [insert_before(at.statement, line)]))
    outcomes = {place.outcome for place in look_at(PATH, text, (edit,), {}).found}
    assert outcomes == {Outcome.DRIFTED if drifts else Outcome.APPLIED}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("def f():\n    g()  # why\n", "def f():\n    ours()\n    g()  # why\n"),
        ("def f():  # why\n\n    # and how\n    g()\n", "def f():  # why\n\n    # and how\n    ours()\n    g()\n"),
        (
            "def f():\n  @a  # why\n\n  @b\n  def g(): pass\n",
            "def f():\n  ours()\n  @a  # why\n\n  @b\n  def g(): pass\n",
        ),
        (
            "def f():\n  @(  # why\n  a)\n  # how\n  class G: pass\n",
            "def f():\n  ours()\n  @(  # why\n  a)\n  # how\n  class G: pass\n",
        ),
        (
            "def f():\n  'what'  # why\n  # how\n  if g: pass\n",
            "def f():\n  'what'  # why\n  # how\n  ours()\n  if g: pass\n",
        ),
        ("def f():\n\tg(); h()\n", "def f():\n\tours()\n\tg(); h()\n"),
    ],
)
def test_lines_before_the_first_statement(text: str, wanted: str) -> None:
    def make(node: cst.CSTNode, at: At) -> Sequence[Edit]:
        function = cst.ensure_type(node, cst.FunctionDef)
        return [insert_before(at.first_statement(function), "ours()")] if function.name.value == "f" else []

    assert edited(text, transform(Rule("X1", cst.FunctionDef, make))) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("f()  # why\n", "f()  # why\nours()\n"),
        ("f();\n", "f();\nours()\n"),
        ("f() ; # why\n# and how\n", "f() ; # why\nours()\n# and how\n"),
        ("(  # why\n f()  # and how\n)  # at last\n", "(  # why\n f()  # and how\n)  # at last\nours()\n"),
        ("x = \\\n  f()\n", "x = \\\n  f()\nours()\n"),
        ("f(\n)", "f(\n)\nours()"),
        ("if x:\n\tf()\n\t# why\nelse:\n\tpass\n", "if x:\n\tf()\n\tours()\n\t# why\nelse:\n\tpass\n"),
        ("g(); f()\n", ""),
        ("f(); g()\n", ""),
        ("if x: f()\n", ""),
        ("class C: x = f()\n", ""),
    ],
)
def test_lines_after_a_statement_stand_on_their_own_or_not_at_all(text: str, wanted: str) -> None:
    def make(node: cst.CSTNode, at: At) -> Sequence[Edit]:
        return [insert_after(at.statement, "ours()")] if dotted(cst.ensure_type(node, cst.Call).func) == "f" else []

    after = transform(Rule("X1", cst.Call, make))
    record = look_at(PATH, text.encode(), [after], {})
    assert [place.outcome for place in record.found] == [Outcome.APPLIED if wanted else Outcome.DRIFTED]
    assert edited(text, after) == (wanted or text)


@pytest.mark.parametrize("make", [insert_before, insert_after])
@pytest.mark.parametrize("text", ["if x: f()\n", "if x: g(); f()\n", "for x in y: f()\n"])
def test_a_statement_behind_a_colon_has_no_lines_beside_it(make: Callable[..., Edit], text: str) -> None:
    beside = transform(Rule("X1", cst.Expr, lambda node, _: [make(node, "ours()")] if code(node) == "f()" else []))
    record = look_at(PATH, text.encode(), [beside], {})
    assert [place.outcome for place in record.found] == [Outcome.DRIFTED]
    assert record.stages == ()


def test_nothing_stands_before_an_elif() -> None:
    before = transform(Rule("X1", cst.If, lambda node, _: [insert_before(node, "ours()")]))
    record = look_at(PATH, b"if x:\n    pass\nelif y:\n    pass\n", [before], {})
    assert [place.outcome for place in record.found] == [Outcome.APPLIED, Outcome.DRIFTED]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("if x:\n    f()  # why\n    # and how\n", "if x:\n    f()  # why\nelif y:\n    ours()\n    # and how\n"),
        ("if x:  # why\n  f()\n# how\nelse: g()\n", "if x:  # why\n  f()\nelif y:\n    ours()\n# how\nelse: g()\n"),
        ("if x: f()  # why\n", "if x: f()  # why\nelif y:\n    ours()\n"),
        ("if x: f(); g();\n", "if x: f(); g();\nelif y:\n    ours()\n"),
        ("if x:\n  for a in b:\n    f(\n    )\n", "if x:\n  for a in b:\n    f(\n    )\nelif y:\n    ours()\n"),
    ],
)
def test_an_arm_comes_after_the_body(text: str, wanted: str) -> None:
    arm = transform(Rule("X1", cst.If, lambda node, _: [add_arm(cst.ensure_type(node, cst.If), "y", "ours()")]))
    assert edited(text, arm) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("(a, b)", "(patchforge_xpu.hook((a, b), x))"),
        ("(  # why\na, b,)", "(  # why\npatchforge_xpu.hook((a, b,), x))"),
        ("(a for a in b)", "(patchforge_xpu.hook((a for a in b), x))"),
        ("(a)", "(patchforge_xpu.hook(a, x))"),
        ("((a))", "((patchforge_xpu.hook(a, x)))"),
    ],
)
def test_what_is_wrapped_is_one_argument(text: str, wanted: str) -> None:
    made = transform(
        Rule("X1", cst.Assign, lambda node, _: [wrap(cst.ensure_type(node, cst.Assign).value, "hook", "x")])
    )
    assert edited(f"v = {text}\n", made) == f"v = {wanted}\n"


@pytest.mark.parametrize(
    ("test", "operator", "wanted"),
    [
        ("a", "and", "a and patchforge_xpu.more()"),
        ("(a)", "and", "(a and patchforge_xpu.more())"),
        ("a and b", "and", "a and b and patchforge_xpu.more()"),
        ("a or b", "or", "a or b or patchforge_xpu.more()"),
        ("a and b", "or", "a and b or patchforge_xpu.more()"),
        ("a or b", "and", "(a or b) and patchforge_xpu.more()"),
        ("not a", "and", "not a and patchforge_xpu.more()"),
        ("a if b else c", "and", "(a if b else c) and patchforge_xpu.more()"),
        ("lambda: a", "or", "(lambda: a) or patchforge_xpu.more()"),
        ("(a := b)", "and", "((a := b) and patchforge_xpu.more())"),
    ],
)
def test_an_operand_takes_the_whole_test(test: str, operator: str, wanted: str) -> None:
    made = transform(
        Rule("X1", cst.If, lambda node, _: [add_operand(cst.ensure_type(node, cst.If).test, operator, "more()")])
    )
    assert edited(f"if {test}:\n    pass\n", made) == f"if {wanted}:\n    pass\n"


def test_what_libcst_fails_over_is_not_readable() -> None:
    text = b"async def f():\n    x = [a async\n         for a in b]\n"
    assert "libcst" in look_at(PATH, text, [calling("g()", "hook", "X1")], {}).unreadable
