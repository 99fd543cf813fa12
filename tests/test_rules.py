"""What holds of every rule, of a release's and of a pack's: names, order, and that one file adds one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from patchforge.cli import main
from patchforge.errors import Damaged
from patchforge.pattern import Pattern
from patchforge.rules import Discovered, Rule, current, discover, in_order, named, patterns, transforms
from patchforge.transform import Transform

EVERY: tuple[Rule, ...] = (*transforms(), *patterns())


def test_a_name_is_that_of_its_file_and_of_one_rule_only() -> None:
    for rule in EVERY:
        prefix = "pack-" if isinstance(rule, Pattern) else ""
        file = type(rule).__module__.rpartition(".")[2]
        assert rule.id == prefix + file.replace("_", "-")
        assert type(rule).__name__ == "".join(map(str.capitalize, file.split("_")))
    assert len({rule.id for rule in EVERY}) == len(EVERY)


def test_what_a_rule_comes_after_is_there() -> None:
    known = {rule.id for rule in EVERY}
    assert [rule.id for rule in EVERY if not {*rule.after} - {"*"} <= known] == []


@pytest.mark.parametrize("rules", [transforms(), patterns()], ids=["transforms", "patterns"])
def test_rules_are_known_by_what_they_were_called(rules: tuple[Rule, ...]) -> None:
    aliases = [alias for rule in rules for alias in rule.aliases]
    assert len(set(aliases)) == len(aliases)
    for rule in rules:
        for name in (rule.id, rule.id.upper(), *rule.aliases, *map(str.lower, rule.aliases)):
            assert named(name, rules) is rule
            assert current(name, rules) == rule.id
    assert named("T99", rules) is None
    assert current("T99", rules) == "T99"


class First(Rule):
    """A rule of the tests."""

    id = "z-first"


class Second(Rule):
    """A rule that comes after it."""

    id = "a-second"
    after = ("z-first",)


class Third(Rule):
    """One that nobody waits for."""

    id = "b-third"


def test_order_is_what_a_rule_comes_after_and_then_its_name() -> None:
    assert [rule.id for rule in in_order([Second(), First(), Third()])] == ["b-third", "z-first", "a-second"]


def test_a_rule_for_all_the_rest_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(First, "after", ("*",))
    monkeypatch.setattr(Second, "after", ())
    assert [rule.id for rule in in_order([Second(), First(), Third()])] == ["a-second", "b-third", "z-first"]


def test_a_circle_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(First, "after", ("a-second",))
    with pytest.raises(ValueError, match="cycle"):
        in_order([First(), Second()])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty folder of rules."""
    package = ModuleType(f"rules_of_{tmp_path.name}")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    return package


TRANSFORM = '''
from patchforge.transform import Transform, insert_after, rewrite
from patchforge.vocabulary import Purpose

class SpareUnits(Transform):
    """Why."""

    id = "spare-units"
    title = "spare units"
    purpose = Purpose.MEMORY
    files = ("comfy/spare.py",)
    needles = ("units",)
    hooks = ("free_memory",)

    def visit_Assign(self, node, at):
        yield rewrite(node, insert_after(at.statement, "units = patchforge_xpu.free_memory(units)"))
'''
PATTERN = '''
from patchforge.pattern import Pattern, converted

class SpareUnits(Pattern):
    """Why."""

    id = "pack-spare-units"
    title = "spare units"

    def verdict(self, site, code, pack):
        if site.text == "torch.cuda.spare_units":
            return converted([site], code.replace(site.node, "_patchforge_gpu().spare_units"))
'''


def test_one_file_adds_a_transform(package: ModuleType, tmp_path: Path) -> None:
    from tests.support import converted

    (tmp_path / "spare_units.py").write_text(TRANSFORM, "utf-8")
    (rule,) = discover(package, Transform).whole()
    result = converted("comfy/spare.py", b"units = 0\n", (rule,)).decode()
    assert result.endswith("units = 0\nunits = patchforge_xpu.free_memory(units)\n")


WRONG = {
    "a name that is not imported": (PATTERN.replace("import Pattern,", "import"), 4, "NameError"),
    "a name that is not there": (PATTERN.replace("converted\n", "convert\n", 1), 2, "ImportError"),
    "no Python": (PATTERN.replace("title =", "title is ="), 8, "SyntaxError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_rule_that_cannot_be_loaded_is_told_by_its_place(package: ModuleType, tmp_path: Path, name: str) -> None:
    text, line, kind = WRONG[name]
    (tmp_path / "spare_units.py").write_text(text, "utf-8")
    (tmp_path / "other_units.py").write_text(PATTERN.replace("Spare", "Other").replace("spare", "other"), "utf-8")
    found = discover(package, Pattern)
    assert [rule.id for rule in found.rules] == ["pack-other-units"]
    with pytest.raises(Damaged, match=r"this rule cannot be loaded") as caught:
        found.whole()
    assert caught.value.problem.startswith(f"{tmp_path / 'spare_units.py'}:{line}: ")
    assert caught.value.found.startswith(kind)


def test_other_rules_are_explained_beside_one_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Discovered(patterns(), (Damaged("transforms/nodes/spare_units.py:3: this rule cannot be loaded"),))
    monkeypatch.setattr("patchforge.commands.explain.all_patterns", lambda: broken)
    assert main(["explain", "free-memory"]) == 0
    assert main(["packs", "explain", "pack-autocast"]) == 0
    assert "spare_units" not in capsys.readouterr().err
    for words in (["packs", "explain", "pack-spare-units"], ["packs", "explain"], ["packs", "explain", "--markdown"]):
        assert main(words) == 65
        assert "transforms/nodes/spare_units.py:3" in capsys.readouterr().err


def test_one_file_adds_a_pattern(package: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchforge.nodes import decide
    from patchforge.nodes.code import Code
    from patchforge.nodes.convert import convert_file
    from patchforge.pattern import PackFacts

    (tmp_path / "spare_units.py").write_text(PATTERN, "utf-8")
    (rule,) = discover(package, Pattern).whole()
    monkeypatch.setattr(decide, "patterns", lambda: in_order([*patterns(), rule]))
    rows, change = convert_file(Code("nodes.py", b"import torch\nn = torch.cuda.spare_units()\n"), PackFacts())
    assert [row.rule for row in rows] == ["pack-spare-units"]
    assert change
    assert b"n = _patchforge_gpu().spare_units()\n" in change.after
