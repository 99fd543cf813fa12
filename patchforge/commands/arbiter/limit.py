"""``patchforge arbiter limit``: how much of the card's memory a service may hold, by the kernel."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from patchforge.arbiter.card import set_limit
from patchforge.commands.common import show_json
from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import line
from patchforge.paths import need_folder

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 69 where the kernel has no such limit."""
    size = _bytes(options.size)
    need_folder(Path(options.root), "the root of a file system, for --root")
    file, text = set_limit(Path(options.root), options.unit, size, options.memory or "", dry=options.dry_run)
    if options.json:
        show_json("arbiter-limit", {"file": file, "limit": text, "written": not options.dry_run})
    else:
        print(f"{'would write' if options.dry_run else 'wrote'} {line(text)} to {line(file)}")
    return Exit.OK


def _bytes(text: str) -> int:
    known = re.fullmatch(r"(\d{1,15})(?:\.(\d{1,3}))?([kmg]i?)?b?", text.strip().lower())
    if not known:
        raise PatchforgeError(f"{text!r} is not a size", expected="such as 8GiB or 8000000000", do="correct it")
    number = float(f"{known[1]}.{known[2] or 0}")
    return int(number * _UNITS[known[3] or ""])
