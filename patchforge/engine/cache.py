"""What was found in a file or a pack, kept by its name, its bytes and the digest of the rules.

One SQLite file per digest; several processes may use it at once. It is a cache: when it cannot be read it is set
aside, and the work is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import weakref
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from patchforge import caches, resources
from patchforge.engine.records import FileRecord

Key = tuple[str, str]  #: (path, blob id), or what a pack is called and the digest of its bytes
T = TypeVar("T")
_MAGIC = b"SQLite format 3\0"
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, zlib.error)

#: What decides what a file becomes. How it is told (reports, manifests) decides nothing, and how it is kept neither.
_BOTH = (
    *("rules.py", "devices.py", "effort.py", "vocabulary.py"),
    *("engine/blocks.py", "engine/edits.py", "engine/prefilter.py", "engine/records.py", "engine/syntax.py"),
)
RELEASES = (
    *("transforms/comfyui", "transforms/runtime", "transform.py", "structure.py", *_BOTH),
    *("engine/census.py", "engine/convert.py", "engine/files.py", "engine/positions.py", "engine/scope.py"),
)
PACKS = (
    *("transforms/nodes", "pattern.py", *_BOTH, "nodes/runtime", "nodes/census.py", "nodes/code.py"),
    *("nodes/convert.py", "nodes/cuda_tests.py", "nodes/decide.py", "nodes/destinations.py"),
    *("nodes/entry_points.py", "nodes/exempt.py"),
    *("nodes/cuts.py", "nodes/facts.py", "nodes/kernels.py", "nodes/known.py", "nodes/known.toml", "nodes/layout.py"),
    *("nodes/libraries.py", "nodes/operators.py", "nodes/owners.py", "nodes/requirements.py", "nodes/shapes.py"),
    *("nodes/openings.py", "nodes/other_names.py", "nodes/suits.py", "nodes/twins.py"),
    *("proof/packs", "proof/reading.py"),
)


def rule_set_digest() -> str:
    """SHA-256 over everything that decides what a release becomes: transforms, engine and runtime module."""
    return _digest(RELEASES)


def pack_rules_digest() -> str:
    """SHA-256 over everything that decides what becomes of a pack: patterns, engine, proof and functions of ours."""
    return _digest(PACKS)


@cache
def _digest(names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name, data in resources.sources(*names):
        digest.update(name.encode() + b"\0" + data + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class CacheFormat(Generic[T]):
    """What a cache keeps: the digest of what decides it, and how it becomes lists and texts and comes back.

    An empty list takes no room. ``load`` raises ValueError, LookupError or TypeError for what is damaged.
    """

    digest: Callable[[], str]
    dump: Callable[[T], list[Any]]
    load: Callable[[list[Any]], T]


FILES = CacheFormat(
    rule_set_digest,
    lambda record: [] if record.empty else record.to_json(),
    lambda value: FileRecord.from_json(value) if value else FileRecord(),
)


class Cache(Generic[T]):
    """Results by key. ``folder`` None keeps nothing."""

    def __init__(self, folder: Path | None, kept: CacheFormat[T]) -> None:
        self.kept = kept
        self.connection: sqlite3.Connection | None = None
        if folder is not None:
            with contextlib.suppress(OSError):  # a folder that cannot be written to keeps nothing
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.open(caches.entry(folder) / f"results-{kept.digest()[:16]}.sqlite")

    def open(self, path: Path) -> None:
        """Opens or creates the file; a damaged one is replaced. PatchforgeError where it is a link or another's."""
        parts = [caches.file(path.with_name(path.name + end)) for end in ("", "-wal", "-shm", "-journal")]
        if _is_damaged(parts[0], parts[1]):
            _unlink(parts)
        for _ in range(2):
            try:
                self.connection = sqlite3.connect(path, timeout=30)
                weakref.finalize(self, _close, self.connection)  # it refers to itself, and would stay open
                self.connection.execute("PRAGMA journal_mode=WAL")
                self.connection.execute("PRAGMA synchronous=OFF")
                self.connection.execute(
                    "CREATE TABLE IF NOT EXISTS records"
                    " (path TEXT, blob TEXT, record BLOB, PRIMARY KEY (path, blob)) WITHOUT ROWID"
                )
            except sqlite3.OperationalError:  # locked, or the disk is full: it keeps nothing
                self.connection = None
                return
            except sqlite3.DatabaseError:
                self.connection = None
                _unlink(parts)
            else:
                return

    def get(self, keys: Iterable[Key]) -> dict[Key, T]:
        """The records that are known; a key that is not is left out."""
        if self.connection is None:
            return {}
        known: dict[Key, T] = {}
        with contextlib.suppress(sqlite3.DatabaseError, *_DAMAGE):
            for key in keys:
                row = self.connection.execute("SELECT record FROM records WHERE path = ? AND blob = ?", key).fetchone()
                if row is not None:
                    known[key] = self.kept.load(json.loads(zlib.decompress(row[0])) if row[0] else [])
        return known

    def put(self, records: Mapping[Key, T]) -> None:
        """Keeps records; a full disk or a locked file only means that the work is done again."""
        if self.connection is None or not records:
            return
        plain = ((key, self.kept.dump(record)) for key, record in records.items())
        rows = [(*key, zlib.compress(json.dumps(value).encode(), 1) if value else b"") for key, value in plain]
        with contextlib.suppress(sqlite3.DatabaseError), self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", rows)


def _close(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # another thread's is closed with the process
        connection.close()


def _unlink(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _is_damaged(database: Path, log: Path) -> bool:
    """Whether a file is none of SQLite's, which would wait for all that have it open before it says so."""
    if not database.exists():
        return False
    with database.open("rb") as stream:
        head = stream.read(len(_MAGIC))
    return head != _MAGIC and (head != b"" or (log.exists() and log.stat().st_size > 0))
