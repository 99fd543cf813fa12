"""The parser of the command line: a command gets its arguments when it is used, and a wrong word gets an advice."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from patchforge.errors import PatchforgeError

_LACKING = "the following arguments are required: "  #: argparse's words
_DIGITS = 9  #: of the largest whole number that an option takes
Arguments = Callable[["Parser"], None]


class Parser(argparse.ArgumentParser):
    """A parser that is made, with its ``arguments``, when it is first used: help on all commands costs none of them."""

    def __init__(self, *, arguments: Arguments | None = None, **settings: Any) -> None:
        self._arguments, self._settings = arguments, settings
        self._below: Any = None  #: argparse's action that chooses a command
        self._usual = ""  #: the command that is meant where none is named
        self.commands: dict[str, Parser] = {}  #: those below this one that its help lists, by name
        if arguments is None:
            super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        """What is wrong with a command line is an error like any other."""
        do = f"{self.prog} --help"
        if lacking := message.partition(_LACKING)[2]:
            commands = self._below is not None and lacking == self._below.metavar
            message = f"no {'command' if commands else lacking} is named"
            if commands and self.prog == "patchforge":
                do = f"patchforge apply DIR --in-place patches the ComfyUI in DIR; {do} lists everything"
            elif commands:
                do = f"name one of {', '.join(self.commands)}; {do} says what each does"
        raise PatchforgeError(message, do=do)

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse's, which says nothing when help cannot be printed."""
        print(message, end="", file=file, flush=True)

    def begin_commands(self, dest: str, usual: str = "") -> None:
        """From here on the parser takes commands; the name of the chosen one becomes ``dest``.

        ``usual`` is the one that is meant where the first word is none of them, nor like one.
        """
        self._usual = usual
        self._below = self.add_subparsers(dest=dest, metavar=dest.upper(), required=True)

    def add_command(self, name: str, text: str, arguments: Arguments, *, shown: bool = True) -> None:
        """Adds the parser of one command; one that is not ``shown`` is taken all the same."""
        listed = {"help": text} if shown else {}
        made = self._below.add_parser(name, description=text, arguments=arguments, **listed)
        if shown:
            self.commands[name] = made

    def fill(self) -> None:
        """Makes the parser, once; argparse takes a quarter of a millisecond for each."""
        arguments, self._arguments = self._arguments, None
        if arguments:
            super().__init__(**self._settings)
            arguments(self)

    def fill_all(self) -> None:
        """As ``fill``, for this command and all that stand below it."""
        self.fill()
        for command in self.commands.values():
            command.fill_all()

    def listed(self) -> Iterator[argparse.Action]:
        """What its help shows."""
        return (action for action in self._actions if action.help != argparse.SUPPRESS)

    def options(self) -> Iterator[str]:
        """The options that its help shows."""
        return (text for action in self.listed() for text in action.option_strings)

    def old_name(self, old: str, new: str) -> None:
        """Takes ``old`` for the option ``new``, and shows it nowhere."""
        self._option_string_actions[old] = self._option_string_actions[new]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but an argument that this command does not know is its own error, not its parent's."""
        self.fill()
        if self._usual and args is not None and not _names(args[0] if args else "", self.commands):
            args = [self._usual, *args]
        parsed, unknown = super().parse_known_args(args, namespace)
        if options := [text for text in unknown if text.startswith("-") and text != "-"]:
            name = options[0].partition("=")[0]
            self.error(f"there is no option {name}{_meant(name, self.options())}")
        if unknown:
            self.error(f"nothing is done with {' '.join(unknown)}: it is one argument too many")
        return parsed, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action is self._below and value not in (action.choices or ()):
            meant = _meant(value, self.commands) or f"; {self.prog} --help lists them"
            self.error(f"there is no command {value!r}{meant}")
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or str(action.metavar or action.dest).upper()
            known = [str(choice) for choice in action.choices]
            self.error(f"{name} is one of {', '.join(known)}, not {value!r}{_meant(str(value), known)}")


def whole(least: int) -> Callable[[str], int]:
    """A number of things, ``least`` of them or more."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or (len(text) <= _DIGITS and int(text) < least):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number, {least} or more")
        if len(text) > _DIGITS:
            raise argparse.ArgumentTypeError(f"{text[:40]} is too large a number; expected {'9' * _DIGITS} or less")
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


def _names(word: str, commands: Iterable[str]) -> bool:
    """Whether a word names a command, asks for help on all, or is one mistyped: no option, and no path."""
    if word in commands or word in {"-h", "--help"}:
        return True
    return word.isalpha() and bool(_meant(word, commands))


def _meant(name: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - only a mistake needs it

    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
