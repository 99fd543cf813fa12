"""The folder that a benchmark is written to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from patchforge.outputs import OutputKind, check_folder

KIND = OutputKind("a benchmark", re.compile(r"benchmark\.json|report\.(html|md|csv)"))


def check(folder: Path, inputs: Iterable[Path] = ()) -> None:
    """PatchforgeError before the work where the folder could not be written after it."""
    check_folder(folder, KIND, inputs)
