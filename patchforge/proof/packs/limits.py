"""How large a value may become in an evaluation: no stranger's expression costs time or memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from patchforge.effort import TooIntricate, spend

MOST_PARTS = 10_000  #: of a value, or numbers in a range
LONGEST_TEXT = 100_000  #: characters
WIDEST_NUMBER = 4096  #: bits


class NotEvaluable(Exception):
    """An expression does what is not known here; its value is not known either, and nothing is proved."""


def weigh(*values: object) -> None:
    """Spends a step for each part of the values; TooIntricate where they have too many, also by sharing parts."""
    todo, count = list(values), 0
    while todo:
        value = todo.pop()
        count += 1
        spend()
        if count > MOST_PARTS:
            raise TooIntricate
        if isinstance(value, Mapping):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            todo += value
        elif isinstance(value, (str, bytes)):
            spend(len(value) // 64)
            if len(value) > LONGEST_TEXT:
                raise TooIntricate
        elif type(value) is int and value.bit_length() > WIDEST_NUMBER:
            raise TooIntricate


def fit(value: Any) -> Any:
    """The value, where it is not too large."""
    weigh(value)
    return value


def each(value: Any) -> Iterator[Any]:
    """What a loop over a value sees, a step for each."""
    if isinstance(value, range) and len(value) > MOST_PARTS:
        raise TooIntricate
    for part in value:
        spend()
        yield part


def leaves(values: Iterable[Any]) -> Iterator[Any]:
    """The values in lists, tuples and sets, and those that are none of them."""
    for value in values:
        if isinstance(value, (list, tuple, set, frozenset)):
            yield from leaves(value)
        else:
            yield value
