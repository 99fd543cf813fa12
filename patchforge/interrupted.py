"""What a person who interrupts a command is told of what it writes: how that is left."""

from __future__ import annotations

import os
from pathlib import Path

_left: dict[Path, str] = {}  #: place → the sentence, of the command that runs


def leaves(place: Path, sentence: str) -> None:
    """From now to the end of the command, also when all is done and not yet said."""
    _left[place] = sentence


def told() -> list[str]:
    """The sentences of places that are there: what was taken back, or was only for the time being, is not."""
    return [sentence for place, sentence in _left.items() if os.path.lexists(place)]


def forget() -> None:
    """Before a command."""
    _left.clear()
