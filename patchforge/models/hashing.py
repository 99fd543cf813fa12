"""SHA-256 of large files: read piece by piece, and remembered by device, inode, size and both times of change."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from patchforge import bounded, caches, progress
from patchforge.errors import TryAgain
from patchforge.escape import line

_BLOCK = 1 << 22
_TABLE = (
    "create table if not exists known (device int, inode int, size int, changed int, touched int, digest text,"
    " primary key (device, inode)) without rowid"
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is the same as long as a file's bytes are, unless somebody sets its time back: that ``touched`` tells.

    That is not compared, since a new name of a file changes it too.
    """

    device: int
    inode: int
    size: int
    changed: int  #: nanoseconds
    touched: int = field(default=0, compare=False)  #: nanoseconds; nobody sets it

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def identity(self) -> tuple[int, int]:
        return self.device, self.inode


class Digests:
    """Digests of files. What the cache cannot keep is worked out again."""

    def __init__(self) -> None:
        folder = caches.folder_or_none("models")
        self._database: sqlite3.Connection | None = None
        if folder is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database = sqlite3.connect(folder / "digests.sqlite", timeout=5, isolation_level=None)
                self._database.execute(_TABLE)

    def known(self, stamp: Stamp) -> str:
        """The digest that was worked out before; "" for none."""
        if self._database is None:
            return ""
        with contextlib.suppress(sqlite3.Error):
            row = self._database.execute(
                "select digest from known where (device, inode, size, changed, touched) = (?, ?, ?, ?, ?)",
                _numbers(stamp),
            ).fetchone()
            return str(row[0]) if row else ""
        return ""

    def of(self, path: Path, *, anew: bool = False) -> tuple[str, Stamp]:
        """The digest of a file and what it was worked out of. TryAgain where the file changed while it was read.

        ``anew``: the bytes are read whatever was remembered. OSError where they cannot be.
        """
        with bounded.opened(path) as stream:
            stamp = Stamp.of(os.fstat(stream.fileno()))
            if not anew and (told := self.known(stamp)):
                return told, stamp
            digest, done = hashlib.sha256(), 0
            while block := stream.read(_BLOCK):
                digest.update(block)
                done += len(block)
                progress.step(f"reading {line(path.name)}", f"{done * 100 // max(stamp.size, 1)} %")
            progress.step("")
            if Stamp.of(os.fstat(stream.fileno())) != stamp or done != stamp.size:
                raise TryAgain(f"{path} changed while it was read", do="run this again when its download has ended")
        self._keep(stamp, digest.hexdigest())
        return digest.hexdigest(), stamp

    def follow(self, before: Stamp, now: Stamp) -> None:
        """What is known of a file stays so, though a new name of it changed ``touched``."""
        if before == now and (digest := self.known(before)):
            self._keep(now, digest)

    def _keep(self, stamp: Stamp, digest: str) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute(
                    "insert or replace into known values (?, ?, ?, ?, ?, ?)", (*_numbers(stamp), digest)
                )


def _numbers(stamp: Stamp) -> tuple[int, ...]:
    return tuple(map(_signed, (stamp.device, stamp.inode, stamp.size, stamp.changed, stamp.touched)))


def _signed(number: int) -> int:
    """As SQLite takes it: Windows has file numbers and some systems devices of 64 bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
