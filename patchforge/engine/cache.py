"""What was found in a file, kept by (path, blob, rule-set digest).

One SQLite file per rule set; several processes may use it at once. It is a cache: when it cannot be read it is set
aside, and the work is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from patchforge import caches, resources
from patchforge.engine.records import FileRecord

Key = tuple[str, str]  #: (path, blob id)

#: What decides what a file becomes. How it is told (reports, manifests) decides nothing, and how it is kept neither.
_BOTH = (
    *("rules.py", "devices.py", "effort.py", "vocabulary.py"),
    *("engine/blocks.py", "engine/edits.py", "engine/prefilter.py", "engine/records.py"),
)
RELEASES = (
    *("transforms/comfyui", "transforms/runtime", "transform.py", "structure.py", *_BOTH),
    *("engine/census.py", "engine/convert.py", "engine/files.py", "engine/scope.py"),
)
PACKS = (
    *("transforms/nodes", "pattern.py", *_BOTH, "nodes/runtime", "nodes/census.py", "nodes/code.py"),
    *("nodes/convert.py", "nodes/cuda_tests.py", "nodes/entry_points.py", "nodes/exempt.py"),
    *("nodes/requirements.py", "nodes/shapes.py", "proof/packs", "proof/reading.py"),
)
_EMPTY = FileRecord()


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


class Cache:
    """Records by key. ``folder`` None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.connection: sqlite3.Connection | None = None
        if folder is not None:
            with contextlib.suppress(OSError):  # a folder that cannot be written to keeps nothing
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.open(caches.entry(folder) / f"results-{rule_set_digest()[:16]}.sqlite")

    def open(self, path: Path) -> None:
        """Opens or creates the file; a damaged one is replaced. PatchforgeError where it is a link or another's."""
        parts = [caches.file(path.with_name(path.name + end)) for end in ("", "-wal", "-shm", "-journal")]
        for _ in range(2):
            try:
                self.connection = sqlite3.connect(path, timeout=30)
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
                for one in parts:
                    one.unlink(missing_ok=True)
            else:
                return

    def get(self, keys: Iterable[Key]) -> dict[Key, FileRecord]:
        """The records that are known; a key that is not is left out."""
        if self.connection is None:
            return {}
        known: dict[Key, FileRecord] = {}
        with contextlib.suppress(sqlite3.DatabaseError, ValueError, LookupError, TypeError, zlib.error):
            for key in keys:
                row = self.connection.execute("SELECT record FROM records WHERE path = ? AND blob = ?", key).fetchone()
                if row is not None:
                    known[key] = FileRecord.from_json(json.loads(zlib.decompress(row[0]))) if row[0] else _EMPTY
        return known

    def knows(self, keys: Iterable[Key]) -> set[Key]:
        """Those of ``keys`` that have a record."""
        if self.connection is None:
            return set()
        query = "SELECT 1 FROM records WHERE path = ? AND blob = ?"
        with contextlib.suppress(sqlite3.DatabaseError):
            return {key for key in keys if self.connection.execute(query, key).fetchone()}
        return set()

    def put(self, records: Mapping[Key, FileRecord]) -> None:
        """Keeps records; a full disk or a locked file only means that the work is done again."""
        if self.connection is None or not records:
            return
        rows = [
            (path, blob, b"" if record.empty else zlib.compress(json.dumps(record.to_json()).encode(), 1))
            for (path, blob), record in records.items()
        ]
        with contextlib.suppress(sqlite3.DatabaseError), self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", rows)
