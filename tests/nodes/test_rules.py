"""Every rule against its own examples."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from patchforge.nodes.code import Code
from patchforge.nodes.driver import Calls, _calls, _own_cuda, convert_file, helpers
from patchforge.nodes.forms import NEEDLESS, TWINS
from patchforge.nodes.pack import Pack
from patchforge.nodes.proof import prove
from patchforge.nodes.rules import rules
from patchforge.nodes.words import Decision, Example, Rule, Surroundings

CASES = [(rule, example) for rule in rules() for example in rule.examples]
named = pytest.mark.parametrize(
    ("rule", "example"), CASES, ids=[f"{rule.id}-{example.name}" for rule, example in CASES]
)


def result(example: Example) -> tuple[str, set[Decision]]:
    """The example after conversion, without the functions that were added, and the decisions."""
    data = dedent(example.before).encode()
    code = Code("nodes.py", data)
    calls: Calls = _calls(Pack("p", Path("p"), {"nodes.py": data}), {"nodes.py": code})
    rows, change = convert_file(code, Surroundings(example.options, (), _own_cuda([code]), calls))
    if change:
        prove(code, Code("nodes.py", change.after))
    text = (change.after if change else data).decode()
    for helper in helpers().values():
        text = text.replace(f"\n{helper}\n\n", "")
    return text.removeprefix("import comfy.model_management\n"), {row.decision for row in rows}


@named
def test_an_example_comes_out_as_shown(rule: Rule, example: Example) -> None:
    text, decisions = result(example)
    assert text == dedent(example.after or example.before)
    assert (Decision.CONVERTED in decisions) is (example.after is not None)
    if example.person:
        assert Decision.PERSON in decisions
    elif example.after is None:
        assert decisions <= {Decision.LEFT}


def test_torch_has_the_twins() -> None:
    torch = pytest.importorskip("torch")
    assert [name for name in sorted(TWINS) if not hasattr(torch.xpu, name)] == []
    assert [name for name in sorted(NEEDLESS) if hasattr(torch.xpu, name.partition(".")[0])] == []
