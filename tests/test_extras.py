"""Which command needs which extra packages: the table, what is installed for it, and what is said without it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence

import pytest

from patchforge import extras, faults
from patchforge.cli import COMMANDS, Command
from tests.support import ROOT

#: Module → distribution, where they are not called alike.
_DISTRIBUTIONS = {
    "github": "pygithub",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "flip_evaluator": "flip-evaluator",
    "prometheus_client": "prometheus-client",
}
_WITHOUT = """
import importlib, sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
"""
_IMPORT = "for name in sys.argv[2:]:\n    importlib.import_module(name)\n"
_RUN = "from patchforge import cli\nraise SystemExit(cli.main(sys.argv[2:]))\n"


def without(modules: Iterable[str], code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a Python that lacks some modules."""
    command = [sys.executable, "-c", _WITHOUT + code, ",".join(modules), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def names(commands: Sequence[Command] = COMMANDS, before: str = "") -> Iterator[str]:
    for command in commands:
        yield from names(command.group, f"{command.name} ") if command.group else [f"{before}{command.name}"]


def module(name: str) -> str:
    return f"patchforge.commands.{name.replace(' ', '.').replace('-', '_')}"


def test_modules_are_in_the_extras_of_pyproject() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for name, of in extras.MODULES.items():
        wanted = _DISTRIBUTIONS.get(name, name)
        for extra in {extra for needed in extras.NEEDED for extra in needed.extras}:
            has = any(requirement.lower().startswith(wanted) for requirement in listed[extra])
            assert has == (extra in of), (name, extra)


def test_commands_of_the_table_exist() -> None:
    known = {*names(), *(command.name for command in COMMANDS)}
    assert {name for needed in extras.NEEDED for name in needed.commands} <= known


def test_whoever_has_the_extras_of_a_command_can_start_it() -> None:
    """And whoever has none, each of the other commands."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names():
        groups.setdefault(extras.of(name.split()), []).append(module(name))
    assert len(groups) > len({needed.extras for needed in extras.NEEDED})
    for has, modules in groups.items():
        lacks = [name for name, of in extras.MODULES.items() if not set(of) & set(has)]
        done = without(lacks, _IMPORT, *modules)
        assert done.returncode == 0, (has, done.stderr[-500:])


@pytest.mark.parametrize(
    "words",
    [
        ["exporter", "--once"],
        ["health", "http://127.0.0.1:9"],
        ["--traceback", "validate", "http://127.0.0.1:9"],
        ["bench", "v0.33.0", "--device", "cpu"],
        ["bench", "report", "x"],
        ["test", "v0.33.0"],
        ["packs", "test", "x"],
        ["nodes", "test", "x"],
        ["arbiter"],
    ],
)
def test_without_them_it_names_all_that_the_command_needs(words: list[str]) -> None:
    done = without(extras.MODULES, _RUN, *words)
    assert done.returncode == 69, done.stderr[-800:]
    assert extras.install(extras.of(words)) in done.stderr
    assert "is not installed" in done.stderr


def test_what_no_command_of_the_table_lacks_is_told_by_its_module() -> None:
    error = ModuleNotFoundError("no", name="websockets")
    assert extras.install(["test"]) in str(faults.told(error))
    assert extras.install(["test"]) in str(faults.told(error, ["apply", "v0.33.0"]))
    assert "install patchforge again" in str(faults.told(ModuleNotFoundError("no", name="libcst"), ["bench"]))


def test_the_readme_and_the_pages_say_it() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "\n".join(extras.table()) in readme, "make docs"
    for needed in extras.NEEDED:
        page = (ROOT / "docs" / needed.page).read_text("utf-8")
        first = page.index(f"patchforge {needed.commands[0]}")
        assert extras.install(needed.extras) in page[: first + 1500], needed.page
