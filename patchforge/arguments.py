"""The parser of the command line: it fetches a command's arguments when that command is used, and says what was meant.

Also the arguments that several commands share. Nothing is imported here that is slow to import.
"""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from patchforge.errors import PatchforgeError

RELEASES = "generated/comfyui"
PINS = "upstream/pins"


class Parser(argparse.ArgumentParser):
    """A parser whose arguments are those that ``module``, one of ``patchforge.commands``, adds to it.

    The module is imported the first time that they are needed, so help on all commands costs none of them.
    """

    def __init__(self, *, module: str = "", **settings: Any) -> None:
        super().__init__(**settings)
        self._module = module
        self._below: Any = None  #: argparse's action that chooses a command
        self.commands: dict[str, Parser] = {}  #: those below this one that its help lists, by name

    def error(self, message: str) -> NoReturn:
        """What is wrong with a command line is an error like any other."""
        raise PatchforgeError(message, do=f"{self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse's, which says nothing when help cannot be printed."""
        print(message, end="", file=file, flush=True)

    def begin_commands(self, dest: str) -> None:
        """From here on the parser takes commands; the name of the chosen one becomes ``dest``."""
        self._below = self.add_subparsers(dest=dest, metavar=dest.upper(), required=True)

    def add_command(self, name: str, text: str, module: str = "", *, shown: bool = True) -> Parser:
        """The parser of one command; one that is not ``shown`` is taken all the same."""
        listed = {"help": text} if shown else {}
        made: Parser = self._below.add_parser(name, description=text, module=module, **listed)
        if shown:
            self.commands[name] = made
        return made

    def fill(self) -> None:
        """Adds the arguments, and ``run`` as a default of that name."""
        name, self._module = self._module, ""
        if name:
            command = importlib.import_module(f"patchforge.commands.{name}")
            command.add_arguments(self)
            self.set_defaults(run=command.run)

    def fill_all(self) -> None:
        """As ``fill``, for this command and all that stand below it."""
        self.fill()
        for command in self.commands.values():
            command.fill_all()

    def options(self) -> Iterator[str]:
        """The options that its help shows."""
        shown = (action for action in self._actions if action.help != argparse.SUPPRESS)
        return (text for action in shown for text in action.option_strings)

    def old_name(self, old: str, new: str) -> None:
        """Takes ``old`` for the option ``new``, and shows it nowhere."""
        self._option_string_actions[old] = self._option_string_actions[new]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but an argument that this command does not know is its own error, not its parent's."""
        self.fill()
        found, unknown = super().parse_known_args(args, namespace)
        if options := [text for text in unknown if text.startswith("-") and text != "-"]:
            name = options[0].partition("=")[0]
            self.error(f"there is no option {name}{_meant(name, self.options())}")
        if unknown:
            self.error(f"too many arguments: {' '.join(unknown)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action is self._below and value not in (action.choices or ()):
            meant = _meant(value, self.commands) or f"; {self.prog} --help lists them"
            self.error(f"there is no command {value!r}{meant}")
        super()._check_value(action, value)


def whole(least: int) -> Callable[[str], int]:
    """A number of things, ``least`` of them or more."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
        return int(text)

    return read


def seconds(text: str) -> float:
    """A time that passes: more than 0, and not for ever."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


def _meant(name: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - only a mistake needs it

    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def add_upstream(parser: argparse.ArgumentParser) -> None:
    """--upstream, --jobs and --no-cache, for commands that convert releases."""
    parser.add_argument(
        "--upstream",
        metavar="PATH|URL",
        help="clone or address of ComfyUI (default: PATCHFORGE_UPSTREAM, else GitHub)",
    )
    parser.add_argument("--jobs", type=whole(1), metavar="N", help="processes to use (default: one per core)")
    parser.add_argument("--no-cache", action="store_true", help="look at every file again")


def add_versions(parser: argparse.ArgumentParser) -> None:
    """VERSION …, and where to find all of them."""
    parser.add_argument("release", nargs="*", metavar="VERSION", help="default: every release under generated/")
    add_generated(parser)


def add_generated(parser: argparse.ArgumentParser, default: str = RELEASES, more: str = "") -> None:
    """--generated."""
    parser.add_argument("--generated", default=default, metavar="DIR", help=f"default: {default}{more}")


def add_pins(parser: argparse.ArgumentParser, more: str = "") -> None:
    """--pins."""
    parser.add_argument("--pins", default=PINS, metavar="DIR", help=f"default: {PINS}{more}")


def add_source(parser: argparse.ArgumentParser, text: str = "read the release from here instead of from git") -> None:
    """--from, as ``source``."""
    parser.add_argument("--from", dest="source", metavar="TARBALL|DIR", help=text)


def add_token(parser: argparse.ArgumentParser) -> None:
    """--token-file."""
    parser.add_argument("--token-file", metavar="FILE", help="GitHub token (default: GH_TOKEN, GITHUB_TOKEN)")


def add_dry_run(parser: argparse.ArgumentParser, text: str = "do everything but write") -> None:
    """--dry-run."""
    parser.add_argument("--dry-run", action="store_true", help=text)
