"""Changes of several files of a checkout: all of them, or none.

What needs room on the disk is written first, into the journal's folder. Then each file and what was prepared for it
change places, by renames alone, which a full disk does not hinder. Where one of them fails, those that were done change
places again. A run that is killed leaves both in place: what a file holds now, and what it held or was to hold.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from patchforge.errors import PatchforgeError, SystemFault
from patchforge.inside import Inside

ORIGINAL = "original"  #: folder of what files hold without patchforge
_SPARE = re.compile(r"[0-9a-f]{16}\.new(?:\.was)?")


class Unfinished(SystemFault):
    """A change failed, and files that had been changed before it could not be put back."""


@dataclass(frozen=True, slots=True)
class Write:
    """One change: what a file holds, and what it shall hold; None for nothing."""

    path: str
    now: bytes | None
    new: bytes | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A change, and the file of ours that changes places with the one at its path."""

    kept: str
    write: Write


def spare(folder: str, path: str) -> str:
    """Where in a journal's folder the other content of a file is prepared."""
    return f"{folder}/{hashlib.sha256(path.encode()).hexdigest()[:16]}.new"


def is_spare(name: str) -> bool:
    """Whether a file in a journal's folder has such a name."""
    return bool(_SPARE.fullmatch(name))


def spares(inside: Inside, folder: str) -> Iterator[str]:
    """What is prepared in a journal's folder, or was left there by a killed run."""
    return (f"{folder}/{name}" for name in inside.names(folder) if is_spare(name))


def clear(inside: Inside, folder: str, keep: Collection[str] = ()) -> None:
    """Removes what is prepared in a journal's folder, but for what is to be kept."""
    for path in [prepared for prepared in spares(inside, folder) if prepared not in keep]:
        inside.remove(path)


def prepare(
    inside: Inside, folder: str, writes: Sequence[Write], ready: Mapping[str, Sequence[str]] | None = None
) -> tuple[Prepared, ...]:
    """Has everything at hand that the changes need; then nothing of it needs room or a right that is missing.

    ``ready`` names files of ours that may hold what a path shall hold; they change places with it as they are.
    """
    for path in (folder, *(write.path for write in writes)):
        inside.check_rights(path)
    return tuple(_prepared(inside, folder, write, (ready or {}).get(write.path, ())) for write in writes)


def _prepared(inside: Inside, folder: str, write: Write, ready: Sequence[str]) -> Prepared:
    own = spare(folder, write.path)
    if write.new is None:
        inside.remove(own)
        return Prepared(own, write)
    inside.make_folder(_above(write.path))
    for kept in (own, *ready):
        if inside.read(kept) == write.new:
            inside.liken(kept, write.path)
            return Prepared(kept, write)
    inside.remove(own)
    inside.add(own, write.new, like=write.path)
    return Prepared(own, write)


def carry_out(inside: Inside, changes: Sequence[Prepared]) -> None:
    """Makes the changes. An error means that every file is as it was, but for Unfinished."""
    begun: list[Prepared] = []
    try:
        for change in changes:
            begun.append(change)
            inside.trade(change.kept, change.write.path, was=change.write.now)
        inside.flush(sorted({_above(path) for change in changes for path in (change.kept, change.write.path)}))
    except (Exception, KeyboardInterrupt) as error:
        if left := [
            change.write.path for change in reversed(begun) if not _undone(inside, change, last=change is begun[-1])
        ]:
            raise _unfinished(error, left) from error
        raise


def _undone(inside: Inside, change: Prepared, *, last: bool) -> bool:
    """Puts a file back. What somebody saved there in the meantime is no fault in the file that was to be the next."""
    with suppress(PatchforgeError):
        if inside.read(change.write.path) == change.write.new:
            inside.trade(change.kept, change.write.path, was=change.write.new)
        return last or inside.read(change.write.path) == change.write.now
    return False


def _unfinished(error: BaseException, left: Sequence[str]) -> Unfinished:
    problem = error.problem if isinstance(error, PatchforgeError) else f"interrupted ({type(error).__name__})"
    found = error.found if isinstance(error, PatchforgeError) else ""
    return Unfinished(
        f"{problem}; what was changed before could not be put back: {', '.join(left)}",
        found=found,
        do="run patchforge status on the folder, which names what to do",
    )


def _above(path: str) -> str:
    return path.rpartition("/")[0]
