"""How this patchforge was started, for texts that say what to type."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from patchforge import processes
from patchforge.paths import quoted


def program() -> str:
    """What starts patchforge: its name, or Python where no such command is on PATH.

    ``-P`` keeps the current folder's modules out, which may be a stranger's; a patchforge that is there needs them.
    """
    if Path(sys.argv[0]).parts[-2:] == ("patchforge", "__main__.py") and not processes.program("patchforge"):
        apart = "" if Path(sys.argv[0]).resolve().parents[1] == Path.cwd() else " -P"
        return f"{quoted(sys.executable)}{apart} -m patchforge"
    return "patchforge"


def typed(text: str, commands: Iterable[str]) -> str:
    """``text``, whose command lines begin with what starts patchforge here."""
    start = program()
    names = "|".join(commands)
    named = re.compile(rf"(?<![\w./\\-])patchforge(?= (?:(?:{names})\b|--help))")
    return text if start == "patchforge" else named.sub(lambda _: start, text)
