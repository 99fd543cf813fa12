"""Converted packs, kept by their bytes and the rules.

A damaged or missing entry only means that the work is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from patchforge import caches
from patchforge.engine.cache import Cache, CacheFormat, Key, pack_rules_digest
from patchforge.engine.records import apply_segments, plain, plain_segments, segments_of
from patchforge.nodes.convert import Converted, convert
from patchforge.nodes.pack import Pack, PackProblem
from patchforge.nodes.requirements import Need, needs
from patchforge.pattern import Options
from patchforge.vocabulary import DecidedSite, Decision, FileChange, Segment

T = TypeVar("T")


def cached() -> PackStore:
    """The results in the user's cache folder."""
    return PackStore(caches.folder_or_none("results"))


class PackStore:
    """Converted packs, and what they need beside torch; ``None`` keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.cache: Cache[list[Any]] = Cache(folder, CacheFormat(pack_rules_digest, list, list))

    def convert(self, pack: Pack, options: Options) -> Converted:
        """``nodes.convert``, unless the same bytes were converted by the same rules before."""
        key = ("pack", _key(pack, repr(options)))
        return self._kept(key, lambda: convert(pack, options), _plain, partial(_restored, pack))

    def needs(self, pack: Pack) -> tuple[Need, ...]:
        """``requirements.needs``, unless they are known."""
        key = ("needs", _key(pack, ""))
        return self._kept(key, lambda: needs(pack), plain, lambda value: tuple(Need(*need) for need in value))

    def _kept(self, key: Key, make: Callable[[], T], dump: Callable[[T], Any], restored: Callable[[Any], T]) -> T:
        if (value := self.cache.get([key]).get(key)) is not None:
            with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
                return restored(value)
        made = make()
        self.cache.put({key: dump(made)})
        return made


def _key(pack: Pack, options: str) -> str:
    digest = hashlib.sha256(repr((options, pack.problems)).encode())
    for path, data in pack.files.items():
        digest.update(path.encode() + b"\0" + hashlib.sha256(data).digest())
    return digest.hexdigest()


def _plain(done: Converted) -> list[Any]:
    changes = [[change.path, plain_segments(change.segments)] for change in done.changes]
    return [plain(done.sites), plain(done.skipped), changes, plain(done.problems)]


def _restored(pack: Pack, value: list[Any]) -> Converted:
    sites, skipped, changes, problems = value
    return Converted(
        pack,
        tuple(map(_site, sites)),
        tuple(map(_site, skipped)),
        tuple(_change(path, pack.files[path], segments_of(parts)) for path, parts in changes),
        tuple(PackProblem(*problem) for problem in problems),
    )


def _site(value: list[Any]) -> DecidedSite:
    path, line, function, kind, text, rule, reason, decision = value
    return DecidedSite(path, line, function, kind, text, rule, reason, Decision(decision))


def _change(path: str, data: bytes, parts: tuple[Segment, ...]) -> FileChange:
    return FileChange(path, data, apply_segments(data, parts), parts)
