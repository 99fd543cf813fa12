"""Converted packs, kept by their bytes and the rules.

A damaged or missing entry only means that the work is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from patchforge import bounded, caches
from patchforge.engine.cache import pack_rules_digest
from patchforge.engine.records import apply_segments
from patchforge.nodes.convert import Converted, Row, convert
from patchforge.nodes.pack import Pack, Problem
from patchforge.nodes.requirements import Need, needs
from patchforge.pattern import Options
from patchforge.vocabulary import Decision, FileChange, Segment

T = TypeVar("T")


def cached() -> Store:
    """The results in the user's cache folder."""
    return Store(caches.folder_or_none("nodes"))


class Store:
    """A folder of results; ``None`` keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def convert(self, pack: Pack, options: Options) -> Converted:
        """``driver.convert``, unless the same bytes were converted by the same rules before."""
        return self._kept(
            f"{_key(pack, repr(options))}.pack", lambda: convert(pack, options), _plain, partial(_restored, pack)
        )

    def needs(self, pack: Pack) -> tuple[Need, ...]:
        """``requirements.needs``, unless they are known."""
        return self._kept(
            f"{_key(pack, '')}.needs", lambda: needs(pack), _tuples, lambda value: tuple(Need(*one) for one in value)
        )

    def _kept(self, name: str, make: Callable[[], T], plain: Callable[[T], Any], restored: Callable[[Any], T]) -> T:
        if self.folder is None:
            return make()
        path = caches.within(self.folder, pack_rules_digest()[:16]) / name
        with contextlib.suppress(OSError, ValueError, zlib.error, LookupError, TypeError, AttributeError):
            return restored(json.loads(zlib.decompress(bounded.file(caches.file(path)))))
        done = make()
        with contextlib.suppress(OSError):
            caches.write_file(path, zlib.compress(json.dumps(plain(done)).encode(), 1))
        return done


def _tuples(found: Sequence[Need]) -> list[Any]:
    return [astuple(one) for one in found]


def _needs(value: list[Any]) -> tuple[Need, ...]:
    return tuple(Need(*one) for one in value)


def _key(pack: Pack, options: str) -> str:
    digest = hashlib.sha256(repr((options, pack.problems)).encode())
    for path, data in pack.files.items():
        digest.update(path.encode() + b"\0" + hashlib.sha256(data).digest())
    return digest.hexdigest()


def _plain(done: Converted) -> dict[str, Any]:
    changes = [
        [one.path, [[part.start, part.end, [line.decode("latin-1") for line in part.lines]] for part in one.segments]]
        for one in done.changes
    ]
    return {
        "rows": [astuple(row) for row in done.rows],
        "changes": changes,
        "problems": [astuple(one) for one in done.problems],
    }


def _restored(pack: Pack, value: dict[str, Any]) -> Converted:
    rows = tuple(replace(Row(*row), decision=Decision(row[5])) for row in value["rows"])
    changes = tuple(_change(pack, path, parts) for path, parts in value["changes"])
    return Converted(pack, rows, changes, tuple(Problem(*one) for one in value["problems"]))


def _change(pack: Pack, path: str, plain: list[Any]) -> FileChange:
    parts = tuple(Segment(start, end, tuple(line.encode("latin-1") for line in lines)) for start, end, lines in plain)
    data = pack.files[path]
    return FileChange(path, data, apply_segments(data, parts), parts)
