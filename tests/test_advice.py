"""Advice is typed as it stands: what a stranger named is one quoted word of it, and no command of its own."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge.cli import COMMANDS
from patchforge.doctor.upstream import Clone, findings
from patchforge.errors import CheckFailed
from patchforge.project import load_project
from patchforge.proof.records import packages
from tests.checkout import places
from tests.checkout.places import fill
from tests.checkout.test_real_life import git
from tests.support import ROOT

EVIL = "x; touch $(echo ran) `id` 'a' \"b\" & #"
#: What begins a command line in a text; what follows in the same text belongs to it.
_OURS = "|".join(command.name for command in COMMANDS)
_COMMAND = re.compile(rf"\bgit -C |-m pip |\bpip3? install|\bpatchforge (?:{_OURS}) |\bsudo |\bdocker run|\bchmod ")
_END = re.compile(r"[;,]|\bor\b|\band\b")
_QUOTES = {"quoted", "_quoted", "command", "packages", "program"}
#: Of these no shell makes more than a word: numbers, versions, names from our own tables and files.
_PLAIN = {"version", "kind", "name", "one", "extra", "group", "names", "reason", "where", "owner", "python"}


def texts(path: Path) -> Iterator[ast.JoinedStr]:
    yield from (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.JoinedStr))


def unquoted(text: ast.JoinedStr) -> list[str]:
    """The values in a text's command lines that are neither quoted nor known to be plain."""
    values, said = [], ""
    for part in text.values:
        if isinstance(part, ast.Constant):
            said += str(part.value)
            continue
        command = list(_COMMAND.finditer(said))
        if command and not _END.search(said[command[-1].end() :]) and isinstance(part, ast.FormattedValue):
            calls = [call for call in ast.walk(part.value) if isinstance(call, ast.Call)]
            called = {getattr(function, "id", "") for call in calls for function in (call.func, *call.args)}
            plain = isinstance(part.value, ast.Name) and part.value.id in _PLAIN
            plain = plain or isinstance(part.value, ast.IfExp | ast.Constant)
            if not plain and called.isdisjoint(_QUOTES):
                values.append(ast.unparse(part.value))
    return values


def test_values_in_command_lines_are_quoted() -> None:
    by_file = {
        f"{path.relative_to(ROOT)}: {value}"
        for path in sorted((ROOT / "patchforge").rglob("*.py"))
        for text in texts(path)
        for value in unquoted(text)
    }
    assert not by_file


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ('f"git -C {clone.path} fetch"', ["clone.path"]),
        ('f"git -C {quoted(clone.path)} checkout HEAD -- {path}"', ["path"]),
        ('f"run {x} -m pip install {y}"', ["y"]),
        ('f"git -C {quoted(a)} fetch; look at {b}"', []),
        ('f"{a} is not there"', []),
    ],
)
def test_the_search_finds_them(text: str, bad: list[str]) -> None:
    (node,) = (part for part in ast.walk(ast.parse(text)) if isinstance(part, ast.JoinedStr))
    assert unquoted(node) == bad


def test_a_remote_in_a_strangers_configuration(tmp_path: Path) -> None:
    clone = Clone(str(tmp_path / EVIL), cached=False, former=(EVIL,), lacking=("v1",))
    advice = [finding.do for finding in findings(load_project(), None, clone) if finding.do.startswith("git -C")]
    assert len(advice) > 1
    for line in advice:
        assert shlex.split(line)[2] == clone.path
    assert shlex.split(next(line for line in advice if "set-url" in line))[5] == EVIL


def test_a_folder_of_a_pack(tmp_path: Path) -> None:
    pack, subject, name = fill(tmp_path / f"pack {EVIL}", places.PACK), places.pack(), "more.py"
    git(pack, "init", "--quiet")
    git(pack, "add", "--all")
    git(pack, "commit", "--quiet", "--message", "x")
    places.apply(pack, subject)
    place = pack / name
    hook = next(line for line in place.read_bytes().splitlines() if b"_patchforge_gpu()." in line)
    place.write_bytes(place.read_bytes().replace(hook, hook + b"  # mine"))
    with pytest.raises(CheckFailed) as caught:
        places.revert(pack, subject)
    command = caught.value.do.partition("run ")[2].rpartition(", and run")[0]
    assert shlex.split(command) == ["git", "-C", str(pack), "checkout", "HEAD", "--", name]
    git(pack, *shlex.split(command)[3:])
    places.revert(pack, subject)


def test_names_of_packages_that_a_release_asks_for() -> None:
    assert shlex.split(packages(["yaml", EVIL]))[-1] == EVIL
