"""``patchforge completion``: a script for the shell, made from the parser; by shtab for the shells that it knows."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from patchforge.arguments.parser import Parser
from patchforge.errors import Exit


def run(options: argparse.Namespace) -> int:
    """Exit status 0."""
    from patchforge.cli import parser  # noqa: PLC0415 - it knows the commands, and no command knows it

    whole = parser()
    whole.fill_all()
    if options.shell == "fish":
        print("\n".join(_fish(whole)))
        return Exit.OK
    import shtab  # noqa: PLC0415 - this command alone needs it

    print(shtab.complete(whole, shell=options.shell))
    return Exit.OK


def _fish(command_parser: Parser, typed: tuple[str, ...] = ()) -> Iterator[str]:
    """A line for each command and option below ``typed``; files are offered where a command takes them."""
    seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in typed) or "__fish_use_subcommand"
    start = f"complete -c patchforge -n {_quoted(seen)}"
    if not typed:
        yield "complete -c patchforge -f"
    elif command_parser.commands:
        none = f"{seen}; and not __fish_seen_subcommand_from {' '.join(command_parser.commands)}"
        start = f"complete -c patchforge -n {_quoted(none)}"
    else:
        yield f"{start} -F"
    for name, command in command_parser.commands.items():
        yield f"{start} -a {name} -d {_quoted(command.description or '')}"
    for action in command_parser.listed():
        names = [f"-l {text[2:]}" if text.startswith("--") else f"-s {text[1:]}" for text in action.option_strings]
        value = "" if action.nargs == 0 else " -r -F"
        if names:
            yield f"{start} {' '.join(names)}{value} -d {_quoted(action.help or '')}"
    for name, command in command_parser.commands.items():
        yield from _fish(command, (*typed, name))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
