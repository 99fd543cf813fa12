"""What must hold of the patterns of node packs; their examples are tried in tests/test_examples.py."""

from __future__ import annotations

import argparse
import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchforge.commands import explain
from patchforge.commands.explain import reference
from patchforge.errors import PatchforgeError
from patchforge.nodes import requirements
from patchforge.nodes.known import DROPPED, NEEDLESS, TWINS
from patchforge.nodes.pack import Pack
from patchforge.pattern import Verdict
from patchforge.proof.packs.helpers import helpers
from patchforge.rules import patterns
from patchforge.vocabulary import Decision
from tests.examples import CASES, OfPack
from tests.support import ROOT


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
    assert [result["id"] for result in json.loads(capsys.readouterr().out)["results"]] == ["pack-own-question"]
    with pytest.raises(PatchforgeError, match="there is no rule T99"):
        explained("T99")


def _parameters(called: object) -> tuple[str, ...]:
    """What a function or class takes by name."""
    if isinstance(called, type):
        made = next(vars(kind) for kind in called.__mro__ if {"__init__", "__new__"} & vars(kind).keys())
        called = made.get("__init__") or made["__new__"].__func__
    named = inspect.signature(called).parameters.values()  # type: ignore[arg-type]
    return tuple(each.name for each in named if each.kind is not each.VAR_KEYWORD and each.name not in ("self", "cls"))


def test_torch_has_the_twins() -> None:
    torch = pytest.importorskip("torch")
    assert [name for name in sorted(TWINS) if not hasattr(torch.xpu, name)] == []
    for name, takes in TWINS.items():
        ours, theirs = (_parameters(getattr(module, name)) for module in (torch.xpu, torch.cuda))
        assert ours == takes, name
        assert theirs == takes + tuple(DROPPED.get(name, ())), name
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
    cases = [case for case in CASES if isinstance(case, OfPack)]
    before = {case.name: case.run(case.before.encode()) for case in cases}
    original = Verdict.__init__

    def reworded(self: Verdict, decision: Decision, sites: Any, reason: str = "", *rest: Any, **named: Any) -> None:
        original(self, decision, sites, "in other words" if reason else "", *rest, **named)

    monkeypatch.setattr(Verdict, "__init__", reworded)
    assert {case.name: case.run(case.before.encode()) for case in cases} == before


def test_rewording_what_to_do_about_a_package_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "\n".join(f"import {name}" for name in requirements.BLOCKERS).encode()
    pack = Pack("p", Path("p"), {"__init__.py": source})
    before = [(need.package, need.blocks) for need in requirements.needs(pack)]
    assert {blocks for _, blocks in before} == {True, False}
    other = {name: replace(package, advice="in other words") for name, package in requirements.BLOCKERS.items()}
    monkeypatch.setattr(requirements, "BLOCKERS", other)
    assert [(need.package, need.blocks) for need in requirements.needs(pack)] == before
