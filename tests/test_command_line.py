"""The grammar of the command line: what each command takes, old spellings, mistyped words, and what help costs."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge import __version__
from patchforge.arguments.parser import Parser
from patchforge.cli import COMMANDS, main, parser
from tests.support import ROOT

NODE = "import torch\nNODE_CLASS_MAPPINGS = {}\n\ndef move(x):\n    return x.cuda()\n"


def leaves(
    command_parser: Parser | None = None, typed: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Parser]]:
    """What is typed, and the parser, of every command that help lists."""
    if command_parser is None:
        command_parser = parser()
        command_parser.fill_all()
    for name, command in command_parser.commands.items():
        if command.commands:
            yield from leaves(command, (*typed, name))
        else:
            yield (*typed, name), command


EVERY = [typed for typed, _ in leaves()]


def parsed(line: str) -> dict[str, object]:
    """The options of a command line, without which command it is."""
    values = vars(parser().parse_args(line.split()))
    return {name: value for name, value in values.items() if name not in {"command", "action", "run"}}


def refused(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The first line of what is said about a wrong command line."""
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()[0]


# --- What help costs --------------------------------------------------------------------------------------------------


def loaded_by(*lines: tuple[str, ...]) -> set[str]:
    """What some command lines import, one after another in one process."""
    script = (
        "import contextlib, sys\nfrom patchforge.cli import main\n"
        f"for words in {lines}:\n    with contextlib.suppress(SystemExit):\n        main(words)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


#: All of patchforge that help may need; none of it is slow to import.
LIGHT = re.compile(
    r"patchforge(\.(__main__|cli|extras|faults|interrupted|terminal|progress|errors|escape|arguments(\.\w+)?))?"
)
#: What costs more than a few milliseconds.
SLOW = {
    "asyncio",
    "cattrs",
    "dataclasses",
    "email",
    "git",
    "inspect",
    "jinja2",
    "libcst",
    "multiprocessing",
    "ssl",
    "sqlite3",
}


@pytest.mark.parametrize("typed", [("--help",), ("--version",), ("packs", "--help"), ("aply",)])
def test_help_imports_no_command(typed: tuple[str, ...]) -> None:
    check_light(loaded_by(typed))


def test_help_on_each_command_imports_no_command() -> None:
    check_light(loaded_by(*((*typed, "--help") for typed in EVERY)))


def check_light(loaded: set[str]) -> None:
    assert "patchforge.cli" in loaded
    assert [name for name in loaded if name.startswith("patchforge") and not LIGHT.fullmatch(name)] == []
    assert loaded & SLOW == set()


# --- The table --------------------------------------------------------------------------------------------------------


def test_every_command_is_one_file_of_its_name_and_one_function_of_arguments() -> None:
    commands = [*COMMANDS, *(member for group in COMMANDS for member in group.group)]
    assert all(bool(command.arguments) != bool(command.group) for command in commands)
    for command in commands:
        if command.arguments:
            module = importlib.import_module(f"patchforge.arguments.{command.arguments}")
            name = command.name.replace("-", "_")
            assert callable(getattr(module, name, None) or getattr(module, f"{name}_"))
    folder = ROOT / "patchforge" / "commands"
    runs = {
        path.relative_to(folder).with_suffix("").parts
        for path in folder.rglob("*.py")
        if "run" in {node.name for node in functions(path)}
    }
    assert runs == {tuple(word.replace("-", "_") for word in typed) for typed in EVERY}


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.FunctionDef))


def test_commands_ask_for_no_option_that_there_is_not() -> None:
    """``options.NAME`` of a namespace is checked by nobody else."""
    taken = {"command", "action"} | {action.dest for _, leaf in leaves() for action in leaf._actions}
    for path in (ROOT / "patchforge" / "commands").rglob("*.py"):
        asked = {
            node.attr
            for node in ast.walk(ast.parse(path.read_bytes()))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "options"
        }
        assert asked - {"run"} <= taken, path.name


@pytest.mark.parametrize("typed", EVERY, ids=" ".join)
def test_every_command_has_help(typed: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*typed, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: patchforge {' '.join(typed)} ")


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([option])
    assert capsys.readouterr().out == f"patchforge {__version__}\n"


# --- Old spellings ----------------------------------------------------------------------------------------------------

OLD = [
    ("nodes check a b --figures", "packs check a b --by-rule"),
    ("nodes apply a --in-place --json", "packs apply a --in-place --json"),
    ("nodes revert a --dry-run", "packs revert a --dry-run"),
    ("test v1 --as-it-is --lean --again", "test v1 --no-venv --skip-frontend --rerun"),
    ("bot --most-open=2", "bot --max-open=2"),
    ("bot --most-open 2", "bot --max-open 2"),
]


@pytest.mark.parametrize(("old", "new"), OLD)
def test_an_old_spelling_says_the_same(old: str, new: str) -> None:
    assert parsed(old) == parsed(new)


#: those whose parsers differ, so that the old one may have options more
MOVED = [
    ("bot --nodes one two --base next", "packs bot one two --base next"),
    ("bot --nodes", "packs bot"),
    ("test v1 --nodes a b --without c --page p", "packs test a b --release v1 --skip-requirement c --page p"),
    ("track --nodes --json", "packs track --json"),
    ("explain --nodes T8 --markdown", "packs explain T8 --markdown"),
]


@pytest.mark.parametrize(("old", "new"), MOVED)
def test_an_old_option_says_what_the_new_command_does(old: str, new: str) -> None:
    more = {"jobs", "no_cache", "pairs", "nodes", "upstream", "generated", "token_file"}
    shared = parsed(new).items()
    assert {name: value for name, value in shared if name not in more}.items() <= parsed(old).items()


@pytest.mark.parametrize("words", [["explain", "--nodes", "T8"], ["packs", "explain", "T8"]])
def test_rules_are_explained_either_way(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("## pack-device-comparison: ")


@pytest.mark.parametrize("asked", [["--idiom", "comfy"], ["--comfy-devices"], ["--idiom=strict"], []], ids=" ".join)
def test_how_devices_are_named(asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pack").mkdir()
    text = "import torch\nimport comfy\nNODE_CLASS_MAPPINGS = {}\n\ndef move(x):\n    return x.to('cuda')\n"
    (tmp_path / "pack" / "__init__.py").write_text(text)
    assert main(["packs", "apply", str(tmp_path / "pack"), "--in-place", *asked]) == 0
    made = (tmp_path / "pack" / "__init__.py").read_text()
    assert ("get_torch_device()" in made) is ("comfy" in " ".join(asked))
    capsys.readouterr()


def test_old_spellings_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    hidden = {"--nodes", "--as-it-is", "--lean", "--again", "--without", "--idiom", "--figures", "--revert"}
    for _, leaf in leaves():
        words = set(leaf.format_help().replace("[", " ").replace("]", " ").split())
        assert not words & hidden
    for shell in ("bash", "zsh", "tcsh"):
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert "skip-frontend" in script
        assert "as-it-is" not in script
        assert "nodes_check" not in script


# --- Mistyped ---------------------------------------------------------------------------------------------------------

TYPOS = [
    ("aply v0.32.0", "there is no command 'aply'; did you mean apply?"),
    ("APPLY v0.32.0", "there is no command 'APPLY'; did you mean apply?"),
    ("pack check x", "there is no command 'pack'; did you mean packs?"),
    ("node check x", "there is no command 'node'; did you mean models?"),
    ("locktorch", "there is no command 'locktorch'; did you mean lock-torch?"),
    ("reverse x", "there is no command 'reverse'; did you mean"),
    ("packs chekc x", "there is no command 'chekc'; did you mean check?"),
    ("nodes aply x", "there is no command 'aply'; did you mean apply?"),
    ("packs frobnicate", "there is no command 'frobnicate'; patchforge packs --help lists them"),
    ("apply v0.32.0 --dryrun", "there is no option --dryrun; did you mean --dry-run?"),
    ("apply v0.32.0 --inplace=x", "there is no option --inplace; did you mean --in-place?"),
    ("apply --dryrun v0.32.0", "there is no option --dryrun; did you mean --dry-run?"),
    ("test --skip-front-end", "there is no option --skip-front-end; did you mean --skip-frontend?"),
    ("packs apply x --comfy-device-s", "there is no option --comfy-device-s; did you mean --comfy-devices?"),
    ("packs bot --maxopen 3", "there is no option --maxopen; did you mean --max-open?"),
    ("--jsn status", "there is no option --jsn"),
    ("--versoin status", "there is no option --versoin; did you mean --version?"),
    ("status --zzz", "there is no option --zzz"),
    ("status a b", "nothing is done with b: it is one argument too many"),
    ("revert", "no DIR is named"),
    ("packs", "no command is named"),
]


@pytest.mark.parametrize(("line", "said"), TYPOS)
def test_a_mistake_is_answered_with_what_was_meant(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(line, capsys)


@pytest.mark.parametrize("typed", EVERY, ids=" ".join)
def test_each_option_is_found_again_with_a_letter_too_many(
    typed: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The command's own parser says it, so its usage is what is shown."""
    leaf = dict(leaves())[typed]
    for option in sorted(set(leaf.options()) - {"-h", "--help"}):
        wrong = f"{option}x"
        needed = [str(action.metavar) for action in leaf._actions if not action.option_strings and action.required]
        needed = ["bash"] if typed == ("completion",) else needed
        assert refused(" ".join([*typed, *needed, wrong]), capsys).endswith(f"did you mean {option}?"), wrong


def test_what_was_mistyped_reaches_no_terminal_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["\x1b[31mapply"], ["status", "--\x1b[31mjson"], ["status", "a", "\x1b[2J"]):
        assert main(words) == 2
        assert "\x1b" not in capsys.readouterr().err


# --- revert -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["revert"], ["packs", "revert"], ["nodes", "revert"], ["apply", "--revert"]])
def test_each_way_to_revert_a_pack(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "__init__.py").write_text(NODE)
    assert main(["packs", "apply", str(pack), "--in-place"]) == 0
    patched = (pack / "__init__.py").read_text()
    assert patched != NODE
    assert main([*words, str(pack), "--dry-run"]) == 0
    assert (pack / "__init__.py").read_text() == patched
    assert main([*words, str(pack)]) == 0
    assert [path.name for path in pack.iterdir()] == ["__init__.py"]
    assert (pack / "__init__.py").read_text() == NODE
    assert main([*words, str(pack)]) == 2
    assert "is not patched" in capsys.readouterr().err


def test_a_hidden_option_is_no_choice_of_two(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("apply --revert a --in-place b", "packs apply a --idiom comfy --comfy-devices"):
        assert "not allowed with" in refused(line, capsys)


def test_the_shared_parser_has_no_state() -> None:
    """Two commands in one process, as tests and the bot run them."""
    first = parser().parse_args(["test", "v1", "--session", "a"])
    second = parser().parse_args(["test", "v1"])
    assert isinstance(first, argparse.Namespace)
    assert (first.session, second.session, second.packs) == (["a"], [], [])


# --- Completion -------------------------------------------------------------------------------------------------------


def test_fish_is_offered_every_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("complete -c patchforge ") for line in lines)
    apply = [line for line in lines if "__fish_seen_subcommand_from apply'" in line and "packs" not in line]
    assert {"-l in-place", "-l from", "-l json", "-l verbose"} <= {
        name for line in apply for name in ("-l in-place", "-l from", "-l json", "-l verbose") if name in line
    }
    assert any("-a packs -d " in line for line in lines)
    assert any("from packs; and not __fish_seen_subcommand_from check apply" in line for line in lines)
    if shell := shutil.which("fish"):
        command = [shell, "--no-execute", "-c", "\n".join(lines)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
