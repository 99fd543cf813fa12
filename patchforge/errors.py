"""What can go wrong, and with which exit status the command line says so."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of every command (documented in docs/command-line.md)."""

    OK = 0
    FAILED = 1  #: a check, a proof or a comparison did not hold
    USAGE = 2  #: the command line, or what it names, cannot be used
    DRIFTED = 3  #: upstream moved under a transform: a person must look
    DATA = 65  #: what was read is damaged, or not what it should be: an archive, a journal, an answer (EX_DATAERR)
    UNCHECKED = 69  #: a check could not be made, which says nothing of what it would have found (EX_UNAVAILABLE)
    BUG = 70  #: a mistake in patchforge itself (EX_SOFTWARE)
    SYSTEM = 74  #: the disk, a permission or the system was in the way (EX_IOERR)
    AGAIN = 75  #: nothing is wrong here: the network, a rate limit or another run was in the way (EX_TEMPFAIL)
    INTERRUPTED = 130
    CUT_SHORT = 141  #: whoever read the output closed it before its end, as ``head`` does; what a signal would give


#: Of several statuses the first of these is the command's: what must hold and does not, before what was not seen.
_ORDER = (
    Exit.INTERRUPTED,
    Exit.CUT_SHORT,
    Exit.BUG,
    Exit.DRIFTED,
    Exit.FAILED,
    Exit.DATA,
    Exit.SYSTEM,
    Exit.USAGE,
    Exit.UNCHECKED,
    Exit.AGAIN,
    Exit.OK,
)


def worst(statuses: Iterable[int]) -> Exit:
    """The status of a command that did several things; 0 for none."""
    return min((Exit(status) for status in statuses), key=_ORDER.index, default=Exit.OK)


class PatchforgeError(Exception):
    """An error a person can act on: what was expected, what was found, what to do.

    ``str()`` gives all of it; nothing has been written when it is raised.
    """

    status: Exit = Exit.USAGE

    def __init__(self, problem: str, *, expected: str = "", found: str = "", do: str = "") -> None:
        self.problem, self.expected, self.found, self.do = problem, expected, found, do
        details = (("expected", expected), ("found", found), ("to do", do))
        super().__init__("\n".join([problem, *(f"  {name}: {text}" for name, text in details if text)]))

    def __reduce__(self) -> tuple[object, ...]:
        """As it is, also from a process of ours to the one that asked it."""
        return _restored, (type(self), self.args), self.__dict__

    def as_data(self) -> dict[str, str | int]:
        """For ``--json``."""
        return {
            "status": int(self.status),
            "problem": self.problem,
            "expected": self.expected,
            "found": self.found,
            "do": self.do,
        }


def _restored(kind: type[PatchforgeError], arguments: tuple[str, ...]) -> PatchforgeError:
    error = kind.__new__(kind)
    Exception.__init__(error, *arguments)
    return error


class CheckFailed(PatchforgeError):
    """Something that must hold does not."""

    status = Exit.FAILED


class Drifted(PatchforgeError):
    """A transform's target is there and its premise is not."""

    status = Exit.DRIFTED


class Damaged(PatchforgeError):
    """What was read cannot be what it should be, or a stranger made it to do harm."""

    status = Exit.DATA


class NotChecked(PatchforgeError):
    """A check could not be made."""

    status = Exit.UNCHECKED


class SystemFault(PatchforgeError):
    """The system refused: a full disk, a permission, a name too long."""

    status = Exit.SYSTEM


class TryAgain(PatchforgeError):
    """What was asked for cannot be had now, and can be later without a person."""

    status = Exit.AGAIN
