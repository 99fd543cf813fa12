"""What symlinks lead to: what may not be removed, since somebody names it by another way."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from patchforge import faults
from patchforge.errors import NotChecked
from patchforge.paths import quoted

MOST = 100_000
_ROOTS_OWN = "lost+found"  #: of a file system; nobody puts links there


def targets(tops: Iterable[Path], most: int = MOST) -> set[tuple[int, int]]:
    """Device and inode of every file and folder that a symlink below these folders leads to.

    NotChecked where that cannot be told whole: a folder that cannot be read, or more than ``most`` links.
    """
    identities: set[tuple[int, int]] = set()
    count = 0
    for top in tops:
        for folder, folders, names in os.walk(top, onerror=_unread):
            for name in (*folders, *names):
                path = os.path.join(folder, name)  # noqa: PTH118 - of many
                if not os.path.islink(path):  # noqa: PTH114
                    continue
                if (count := count + 1) > most:
                    raise NotChecked(
                        f"there are too many links below {top} to tell what they lead to",
                        expected=f"at most {most} links",
                        do="remove what is not needed there by hand",
                    )
                try:
                    status = os.stat(path)  # noqa: PTH116
                except OSError:  # it leads to nothing
                    continue
                identities.add((status.st_dev, status.st_ino))
    return identities


def _unread(error: OSError) -> None:
    place = Path(os.fsdecode(error.filename or ""))
    if place.name == _ROOTS_OWN or isinstance(error, FileNotFoundError):
        return
    raise NotChecked(
        f"what links in {place} lead to cannot be told",
        expected="a folder that can be read",
        found=faults.reason(error).lower(),
        do=f"run this as somebody who may read {quoted(place)}, or move it elsewhere",
    )
