"""What a server prints, in a file. It may print without end, so only the last of it is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from patchforge import bounded
from patchforge.escape import uncoloured

MOST = 4 << 20  #: bytes that are read at a time


@dataclass(frozen=True, slots=True)
class ServerLog:
    """A log. ``end()`` now is where ``lines()`` can begin later."""

    path: Path

    def end(self) -> int:
        """How many bytes it has; 0 before there is one."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def lines(self, since: int = 0) -> tuple[str, ...]:
        """The last lines, without colours, of what was printed after the byte ``since``."""
        if not self.path.is_file():
            return ()
        text = uncoloured(bounded.tail(self.path, MOST, since))
        return tuple(re.split(r"[\r\n]+", text.rstrip()) if text.strip() else ())
