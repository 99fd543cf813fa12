"""Every rule against its own examples."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from patchforge.commands import explain
from patchforge.commands.explain import reference
from patchforge.errors import PatchforgeError
from patchforge.nodes import requirements
from patchforge.nodes.code import Code
from patchforge.nodes.convert import Calls, _calls, _own_cuda, convert_file, own_questions
from patchforge.nodes.pack import Pack
from patchforge.nodes.shapes import NEEDLESS, TWINS
from patchforge.pattern import PackExample, PackFacts, Pattern, Verdict
from patchforge.proof.outside import bytes_outside_edits_equal
from patchforge.proof.packs.helpers import helpers
from patchforge.proof.packs.pairing import prove
from patchforge.rules import patterns
from patchforge.vocabulary import Decision
from tests.support import ROOT

CASES = [(rule, example) for rule in patterns() for example in rule.examples]
named = pytest.mark.parametrize(
    ("rule", "example"), CASES, ids=[f"{rule.id}-{example.name}" for rule, example in CASES]
)


rewritten = pytest.mark.parametrize(
    "example",
    [example for _, example in CASES if example.after is not None],
    ids=[f"{rule.id}-{example.name}" for rule, example in CASES if example.after is not None],
)


def converted(data: bytes, example: PackExample) -> tuple[bytes, set[Decision]]:
    """A file after conversion, which is proved and leaves all bytes outside of its edits alone; and the decisions."""
    code = Code("nodes.py", data)
    calls: Calls = _calls(Pack("p", Path("p"), {"nodes.py": data}), {"nodes.py": code})
    around = PackFacts(example.options, (), _own_cuda([code]), own_questions([code]), calls)
    rows, change = convert_file(code, around)
    if change is None:
        return data, {row.decision for row in rows}
    prove("nodes.py", data, change.after)
    bytes_outside_edits_equal(change)
    compile(change.after, "nodes.py", "exec", dont_inherit=True)
    return change.after, {row.decision for row in rows}


def result(example: PackExample) -> tuple[str, set[Decision]]:
    """The example after conversion, without the functions that were added, and the decisions."""
    data, decisions = converted(dedent(example.before).encode(), example)
    text = data.decode()
    for helper in helpers().values():
        text = text.replace(f"\n{helper}\n\n", "")
    return text.removeprefix("import comfy.model_management\n"), decisions


@named
def test_an_example_comes_out_as_shown(rule: Pattern, example: PackExample) -> None:
    text, decisions = result(example)
    assert text == dedent(example.after or example.before)
    assert (Decision.CONVERTED in decisions) is (example.after is not None)
    if example.person:
        assert Decision.PERSON in decisions
    elif example.after is None:
        assert decisions <= {Decision.LEFT}


@rewritten
def test_a_second_run_edits_nothing(example: PackExample) -> None:
    once, _ = converted(dedent(example.before).encode(), example)
    again, decisions = converted(once, example)
    assert again == once
    assert Decision.CONVERTED not in decisions


@rewritten
def test_crlf_stays_crlf(example: PackExample) -> None:
    before = dedent(example.before).encode()
    wanted = converted(before, example)[0].replace(b"\n", b"\r\n")
    assert converted(before.replace(b"\n", b"\r\n"), example)[0] == wanted


@rewritten
def test_a_byte_order_mark_stays_first(example: PackExample) -> None:
    before = dedent(example.before).encode()
    assert converted(b"\xef\xbb\xbf" + before, example)[0] == b"\xef\xbb\xbf" + converted(before, example)[0]


@rewritten
def test_a_missing_final_newline_stays_missing(example: PackExample) -> None:
    before = dedent(example.before).encode()
    assert converted(before.removesuffix(b"\n"), example)[0] == converted(before, example)[0].removesuffix(b"\n")


def test_each_rule_shows_what_it_edits_and_what_it_leaves() -> None:
    edits = {rule.id for rule, example in CASES if example.after is not None}
    leaves = {rule.id for rule, example in CASES if example.after is None}
    assert edits == leaves == {rule.id for rule in patterns()}
    names = [(rule.id, example.name) for rule, example in CASES]
    assert len(set(names)) == len(names)


def test_the_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "nodes-rules.md").read_text("utf-8") == reference(patterns()), "run make docs"


def explained(name: str | None = None, *, as_json: bool = False) -> int:
    return explain.run(argparse.Namespace(markdown=False, json=as_json, name=name, nodes=True))


def test_rules_are_explained_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert explained() == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == sorted(rule.id for rule in patterns())
    assert explained("t8") == 0
    assert capsys.readouterr().out.startswith("## pack-device-comparison: tests of a device\n")
    assert explained("T21", as_json=True) == 0
    assert [one["id"] for one in json.loads(capsys.readouterr().out)["results"]] == ["pack-own-question"]
    with pytest.raises(PatchforgeError, match="there is no rule T99"):
        explained("T99")


def test_torch_has_the_twins() -> None:
    torch = pytest.importorskip("torch")
    assert [name for name in sorted(TWINS) if not hasattr(torch.xpu, name)] == []
    assert [name for name in sorted(NEEDLESS) if hasattr(torch.xpu, name.partition(".")[0])] == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("_patchforge_xpu", ()),
        ("_patchforge_gpu", ()),
        ("_patchforge_device", ()),
        ("_patchforge_device", (1,)),
        ("_patchforge_choice", ("cuda",)),
    ],
)
def test_compiled_models_can_call_what_is_added(name: str, arguments: tuple[object, ...]) -> None:
    """A pack's model that torch.compile takes as one graph is one graph after conversion."""
    torch = pytest.importorskip("torch")
    names: dict[str, object] = {}
    exec("\n\n".join(helpers().values()), names)
    function = names[name]
    assert callable(function)
    expected = function(*arguments)

    def model(x: Any) -> Any:
        ours = function(*arguments)
        return (x + 1 if x.is_cuda or getattr(x, "is_xpu", False) else x + 2), ours

    torch._dynamo.reset()
    result, ours = torch.compile(model, backend="eager", fullgraph=True)(torch.zeros(2))
    assert result.tolist() == [2, 2]
    assert ours == expected


def test_rewording_every_reason_changes_no_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {(rule.id, example.name): result(example) for rule, example in CASES}
    original = Verdict.__init__

    def reworded(self: Verdict, decision: Decision, sites: Any, reason: str = "", *rest: Any, **named: Any) -> None:
        original(self, decision, sites, "in other words" if reason else "", *rest, **named)

    monkeypatch.setattr(Verdict, "__init__", reworded)
    assert {(rule.id, example.name): result(example) for rule, example in CASES} == before


def test_rewording_what_to_do_about_a_package_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "\n".join(f"import {name}" for name in requirements.BLOCKERS).encode()
    pack = Pack("p", Path("p"), {"__init__.py": source})
    before = [(need.package, need.blocks) for need in requirements.needs(pack)]
    assert {blocks for _, blocks in before} == {True, False}
    monkeypatch.setattr(requirements, "BLOCKERS", dict.fromkeys(requirements.BLOCKERS, "in other words"))
    assert [(need.package, need.blocks) for need in requirements.needs(pack)] == before
