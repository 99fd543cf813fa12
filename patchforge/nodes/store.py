"""Converted packs, kept by their bytes and the rules.

A damaged or missing entry only means that the work is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from patchforge import caches
from patchforge.engine.cache import Cache, Kept, Key, pack_rules_digest
from patchforge.engine.records import apply_segments
from patchforge.nodes.convert import Converted, Row, convert
from patchforge.nodes.pack import Pack, Problem
from patchforge.nodes.requirements import Need, needs
from patchforge.pattern import Options
from patchforge.vocabulary import Decision, FileChange, Segment

T = TypeVar("T")


def cached() -> Store:
    """The results in the user's cache folder."""
    return Store(caches.folder_or_none("results"))


class Store:
    """Converted packs, and what they need beside torch; ``None`` keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.cache: Cache[list[Any]] = Cache(folder, Kept(pack_rules_digest, list, list))

    def convert(self, pack: Pack, options: Options) -> Converted:
        """``nodes.convert``, unless the same bytes were converted by the same rules before."""
        key = ("pack", _key(pack, repr(options)))
        return self._kept(key, lambda: convert(pack, options), _plain, partial(_restored, pack))

    def needs(self, pack: Pack) -> tuple[Need, ...]:
        """``requirements.needs``, unless they are known."""
        key = ("needs", _key(pack, ""))
        return self._kept(key, lambda: needs(pack), _tuples, lambda value: tuple(Need(*need) for need in value))

    def _kept(self, key: Key, make: Callable[[], T], plain: Callable[[T], Any], restored: Callable[[Any], T]) -> T:
        if (value := self.cache.get([key]).get(key)) is not None:
            with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
                return restored(value)
        made = make()
        self.cache.put({key: plain(made)})
        return made


def _tuples(found: Sequence[Need]) -> list[Any]:
    return [astuple(need) for need in found]


def _key(pack: Pack, options: str) -> str:
    digest = hashlib.sha256(repr((options, pack.problems)).encode())
    for path, data in pack.files.items():
        digest.update(path.encode() + b"\0" + hashlib.sha256(data).digest())
    return digest.hexdigest()


def _plain(done: Converted) -> list[Any]:
    changes = [
        [one.path, [[part.start, part.end, [line.decode("latin-1") for line in part.lines]] for part in one.segments]]
        for one in done.changes
    ]
    return [[astuple(row) for row in done.rows], changes, [astuple(one) for one in done.problems]]


def _restored(pack: Pack, value: list[Any]) -> Converted:
    plain_rows, plain_changes, problems = value
    rows = tuple(replace(Row(*row), decision=Decision(row[5])) for row in plain_rows)
    changes = tuple(_change(pack, path, parts) for path, parts in plain_changes)
    return Converted(pack, rows, changes, tuple(Problem(*problem) for problem in problems))


def _change(pack: Pack, path: str, plain: list[Any]) -> FileChange:
    parts = tuple(Segment(start, end, tuple(line.encode("latin-1") for line in lines)) for start, end, lines in plain)
    data = pack.files[path]
    return FileChange(path, data, apply_segments(data, parts), parts)
