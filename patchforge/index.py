"""The index of ``docs/command-line.md``, of the table of commands; ``make docs`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from patchforge import bounded, resources
from patchforge.cli import COMMANDS, Command

BEGIN, END = "<!-- begin: index -->", "<!-- end: index -->"


def index() -> Iterator[str]:
    """Every command in the order of the help, those of a group below it."""
    yield "| command | what it does |"
    yield "|---|---|"
    for command in COMMANDS:
        yield _row(command.name, command)
        yield from (_row(f"{command.name} {below.name}", below) for below in command.group)


def _row(typed: str, command: Command) -> str:
    return f"| [`{typed}`](#patchforge-{typed.replace(' ', '-')}) | {command.help} |"


def filled(page: str) -> str:
    """The page with its index written anew, between the marks."""
    before, _, rest = page.partition(BEGIN)
    return "\n".join([f"{before}{BEGIN}", "", *index(), "", f"{END}{rest.partition(END)[2]}"])


def main() -> None:
    """``make docs``: writes the index of this checkout's page."""
    page = (resources.repository() or Path()) / "docs" / "command-line.md"
    page.write_text(filled(bounded.file(page).decode()), "utf-8")


if __name__ == "__main__":
    main()
