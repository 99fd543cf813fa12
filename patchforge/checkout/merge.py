"""A three-way merge of lines, so that an edit survives when ours is taken out, with git or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from patchforge.vocabulary import split_lines

Lines = Sequence[bytes]


def merge(base: bytes, mine: bytes, other: bytes) -> bytes | None:
    """``base`` with the changes of both sides; None where they changed one place, or lines beside each other.

    A change that both sides made is taken once.
    """
    sides = split_lines(base), split_lines(mine), split_lines(other)
    at = (0, 0, 0)
    merged: list[bytes] = []
    for *start, length in _common(*sides):
        kept = _chosen(*(side[begin:end] for side, begin, end in zip(sides, at, start, strict=True)))
        if kept is None:
            return None
        merged += [*kept, *sides[0][start[0] : start[0] + length]]
        at = (start[0] + length, start[1] + length, start[2] + length)
    return b"".join(merged)


def _chosen(base: Lines, mine: Lines, other: Lines) -> Lines | None:
    if mine in (base, other):
        return other
    return mine if other == base else None


def _common(base: Lines, mine: Lines, other: Lines) -> Iterator[tuple[int, int, int, int]]:
    """Where all three have the same lines: the place in each, and how many; last the ends, with none."""
    ours, theirs = (_blocks(base, side) for side in (mine, other))
    first, second = next(ours), next(theirs)
    while True:
        start = max(first[0], second[0])
        end = min(first[0] + first[2], second[0] + second[2])
        if start < end:
            yield start, first[1] + start - first[0], second[1] + start - second[0], end - start
        if first[0] == second[0] == len(base):
            break
        if first[0] + first[2] < second[0] + second[2] or second[0] == len(base):
            first = next(ours)
        else:
            second = next(theirs)
    yield len(base), len(mine), len(other), 0


def _blocks(base: Lines, side: Lines) -> Iterator[tuple[int, int, int]]:
    yield from SequenceMatcher(None, base, side, autojunk=False).get_matching_blocks()
