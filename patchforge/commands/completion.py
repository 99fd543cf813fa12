"""``patchforge completion``: a script for the shell, made by shtab from the parser."""

from __future__ import annotations

import argparse

from patchforge.errors import Exit


def run(options: argparse.Namespace) -> int:
    """Exit status 0."""
    import shtab  # noqa: PLC0415 - this command alone needs it

    from patchforge.cli import parser  # noqa: PLC0415 - it knows the commands, and no command knows it

    whole = parser()
    whole.fill_all()
    print(shtab.complete(whole, shell=options.shell))
    return Exit.OK
