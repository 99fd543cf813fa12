"""The README and the pages under docs/ say what is true: commands parse, links lead somewhere, targets exist."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from patchforge.arguments.parser import Parser
from patchforge.cli import parser
from patchforge.errors import Exit, PatchforgeError
from patchforge.index import filled
from patchforge.project import load_project, release_index
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text("utf-8")

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_SEPARATORS = frozenset({"|", ">", ">>", ";", "&&", "||", "#"})

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def shell_lines(text: str) -> Iterator[str]:
    """Commands in shell fences, and in `…` within a line."""
    for language, body in _FENCE.findall(text):
        if language in {"sh", "bash", "bat", "console", ""}:
            yield from (line.strip().removeprefix("$ ") for line in body.splitlines())
    yield from re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))


def calls(text: str, program: str) -> Iterator[list[str]]:
    """The arguments of each call of a program."""
    for line in shell_lines(text):
        if program not in line:
            continue
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words[1:3] == ["-m", program]:
            words[:3] = [program]
        if words and re.split(r"[/\\]|Scripts", words[0])[-1] == program and len(words) > 1:
            end = next((index for index, word in enumerate(words) if word in _SEPARATORS), len(words))
            yield words[1:end]


def commands() -> dict[str, Parser]:
    """What is typed → parser of each command that help lists; a group stands beside its commands."""
    whole = parser()
    whole.fill_all()
    return dict(_below("", whole))


def _below(typed: str, command_parser: Parser) -> Iterator[tuple[str, Parser]]:
    for name, command in command_parser.commands.items():
        yield f"{typed}{name}", command
        yield from _below(f"{typed}{name} ", command)


def options(command_parser: Parser) -> set[str]:
    """The options that help shows."""
    return set(command_parser.options()) - {"-h", "--help"}


@each_page
def test_commands_parse(page: Path) -> None:
    wrong = [text for arguments in calls(page.read_text("utf-8"), "patchforge") if (text := complaint(arguments))]
    assert wrong == []


def complaint(arguments: list[str]) -> str:
    """What the parser has against a command line; "" when it takes it. A command's bare name is not a command line."""
    if " ".join(arguments) in commands():
        return ""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser().parse_args(arguments)
    except PatchforgeError as error:
        return str(error)
    except SystemExit:  # --help, --version
        return ""
    return ""


def test_a_wrong_command_line_would_be_found() -> None:
    text = (
        "```sh\npatchforge aply v0\nX=1 patchforge apply v0.32.0 --dry > log\n```\n`patchforge check` `patchforge nope`"
    )
    assert [bool(complaint(arguments)) for arguments in calls(text, "patchforge")] == [True, False, False, True]


def test_the_readme_shows_what_it_must() -> None:
    shown = [arguments[0] for arguments in calls((ROOT / "README.md").read_text("utf-8"), "patchforge")]
    assert {"apply", "check", "verify", "replay"} <= set(shown)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text("utf-8"))
    for link in _LINK.findall(text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), f"{page.name}: {link}"


def anchors(text: str) -> set[str]:
    """GitHub's names for the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for arguments in calls(page.read_text("utf-8"), "make"):
        named = {word for word in arguments if "=" not in word}
        assert named <= targets, f"{page.name}: make {' '.join(arguments)}"


def test_make_help_lists_every_target_of_the_readme() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for arguments in calls((ROOT / "README.md").read_text("utf-8"), "make"):
        assert f"make {arguments[0]} " in listed


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_is_described(name: str) -> None:
    section = re.search(rf"^##+ `patchforge {name}`\n(.*?)(?=^##|\Z)", COMMAND_LINE, re.MULTILINE | re.DOTALL)
    assert section, f"docs/command-line.md does not describe {name}"
    described = re.findall(r"^\| `(--[\w-]+)`", section[1], re.MULTILINE)
    assert len(described) == len(set(described))
    assert set(described) == options(commands()[name])


def test_no_command_is_described_that_is_not_there() -> None:
    assert set(re.findall(r"^##+ `patchforge ([\w -]+)`", COMMAND_LINE, re.MULTILINE)) == set(commands())


def test_the_index_has_every_command() -> None:
    assert filled(COMMAND_LINE) == COMMAND_LINE, "run make docs"
    assert set(re.findall(r"^\| \[`([\w -]+)`\]\(#", COMMAND_LINE, re.MULTILINE)) == set(commands())


@pytest.mark.parametrize("page", ["README.md", "docs/command-line.md"])
def test_exit_statuses_are_described(page: str) -> None:
    table = (ROOT / page).read_text("utf-8").partition("## Exit status")[2].partition("\n## ")[0]
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == {
        int(status) for status in Exit
    }


def test_the_number_of_releases_is_true() -> None:
    releases = release_index(load_project())
    stated = f"{len(releases)} releases, {releases[0].version} to {releases[-1].version}"
    assert stated in " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_the_walk_through_does_what_it_says(tmp_path: Path) -> None:
    """The transform that docs/developer.md builds is run on its own examples, in a process that forgets it."""
    (sample,) = [
        body
        for language, body in _FENCE.findall((ROOT / "docs" / "developer.md").read_text("utf-8"))
        if language == "python"
    ]
    check = """
        import textwrap
        from patchforge.engine.files import look_at
        from patchforge.engine.records import apply_segments
        one = SpareUnits()
        for example in one.examples:
            data = textwrap.dedent(example.before).encode()
            record = look_at(one.files[0], data, [one], {})
            assert [found.outcome for found in record.found] == [example.outcome], (example.name, record)
            for _, parts in record.stages:
                data = apply_segments(data, parts)
            assert data == textwrap.dedent(example.after or example.before).encode(), data.decode()
    """
    script = tmp_path / "walk_through.py"
    script.write_text(sample + textwrap.dedent(check), "utf-8")
    subprocess.run([sys.executable, str(script)], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True)
