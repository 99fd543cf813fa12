"""The cached bare clone of a remote upstream.

Safe against two runs at once (a lock beside the clone) and against a run that is killed: a clone appears whole, by one
rename, and what a killed git left behind is cleared away by the next run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchforge import caches, escape, faults, outputs, progress
from patchforge.errors import PatchforgeError, TryAgain
from patchforge.git.address import check_address
from patchforge.git.borrowed import NotARepositoryError, source_of
from patchforge.git.command import is_passing, verb_of, watch_git

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Git holds a lock file for moments. One older than this many seconds belongs to a git that was killed.
STALE_LOCK = 10.0
#: The same for the files into which git receives objects.
STALE_OBJECTS = 3600.0
#: What git fetch says of refs that cannot be beside others, such as ``v1`` and ``v1/x``.
_ONE_REF = re.compile("error: (?:cannot lock ref|unable to update local ref|some local refs could not be updated)")
_REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_MARK = "patchforge-cache"  #: in a clone of ours, and beside it as long as it is being made
_URL = re.compile(r"(https?|ssh|git|file)://|[\w.-]+@[\w.-]+:(?!:)")


def is_url(where: str) -> bool:
    return bool(_URL.match(where))


@dataclass(frozen=True, slots=True)
class CachedClone:
    """A remote and the folder of its bare clone."""

    url: str
    path: Path

    @classmethod
    def of(cls, url: str) -> CachedClone:
        """The clone of an address, in the cache."""
        name = re.sub(r"[^\w.-]", "-", url.rstrip("/").removesuffix(".git").rpartition("/")[2]).lower()
        digest = hashlib.sha256(url.encode()).hexdigest()[:12]
        return cls(url, caches.place() / "clones" / f"{name}-{digest}.git")

    @property
    def origin(self) -> str:
        """The address, without a password that may stand in it."""
        return escape.without_password(self.url)

    def ensure(self) -> bool:
        """Make the clone unless it is there; whether this call made it. PatchforgeError for a folder of others."""
        if self._is_there():
            return False
        with self._locked():
            self._clear_partial()
            if self._is_there():  # another run made it while this one waited
                return False
            self._clone()
        return True

    def _is_there(self) -> bool:
        """PatchforgeError where something stands that is not a clone that patchforge made."""
        if not os.path.lexists(self.path):
            return False
        caches.folder("clones")
        caches.entry(self.path)
        if outputs.read_plain(self.path / _MARK) != self._mark:
            raise PatchforgeError(
                f"the cache cannot use {self.path}",
                expected="a clone that patchforge made, or nothing",
                found="another folder",
                do="move it away, or name it with --upstream",
            )
        return True

    def _clear_partial(self) -> None:
        """Removes what killed runs left of clones that they had begun to make."""
        for leftover in self.path.parent.glob(f"{self.path.name}.partial-*"):
            if (leftover / _MARK).is_file() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            with suppress(OSError):  # not empty: not ours
                leftover.rmdir()

    @property
    def _mark(self) -> bytes:
        return f"Made by patchforge, of {self.origin}\n".encode()

    def fetch(self) -> None:
        """Bring branches and tags up to date, moved tags included."""
        with self._locked():
            self._is_there()
            self._clear_partial()
            _clear_stale(self.path)
            with self._source() as source:
                self._run(f"--git-dir={self.path}", "fetch", "--prune", "--progress", "--", source, *_REFSPECS)

    def _clone(self) -> None:
        partial = Path(tempfile.mkdtemp(prefix=f"{self.path.name}.partial-", dir=self.path.parent))
        try:
            (partial / _MARK).write_bytes(self._mark)
            with self._source() as source:
                self._run("clone", "--bare", "--progress", "--", source, str(partial / "clone"))
            (partial / "clone" / _MARK).write_bytes(self._mark)
            (partial / "clone").replace(self.path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                caches.folder("clones")
                waiting = f"waiting for another run that updates {self.path}"
                stack.enter_context(caches.locked(self.path.with_suffix(".lock"), waiting=waiting))
            except OSError as error:
                problem = f"the cache {self.path.parent} cannot be written"
                raise PatchforgeError(
                    problem, found=faults.reason(error), do="set PATCHFORGE_CACHE to another folder"
                ) from error
            yield

    @contextmanager
    def _source(self) -> Iterator[str]:
        """What git is given for the address. PatchforgeError for one that it is not given."""
        check_address(self.url)
        try:
            with source_of(self.url) as source:
                yield source
        except NotARepositoryError as error:
            raise self._failed("clone" if not self.path.is_dir() else "fetch", error.found) from error

    def _run(self, *arguments: str) -> None:
        said: deque[str] = deque(maxlen=12)
        faults: deque[str] = deque(maxlen=100)  # git's lines of progress come between them

        def hear(line: str) -> None:
            (faults if line.startswith(("fatal:", "error:")) else said).append(line)
            progress.step(what, line)

        what = f"git {verb_of(arguments)} of {self.origin}; the first time it takes some minutes"
        progress.step(what)
        status = watch_git(*arguments, folder=self.path.parent, hear=hear)
        progress.step("")
        if status == 1 and faults and all(map(_ONE_REF.match, faults)):  # the others have come
            print(f"passed over: {escape.line('; '.join(faults))}", file=sys.stderr)
        elif status:
            kind = TryAgain if is_passing(" ".join((*said, *faults))) else PatchforgeError
            raise self._failed(verb_of(arguments), " ".join(faults or list(said)[-1:]), kind)

    def _failed(self, verb: str, found: str, kind: type[PatchforgeError] = PatchforgeError) -> PatchforgeError:
        return kind(
            f"git {verb} of {self.origin} failed",
            found=found.replace(self.url, self.origin),
            do="check the address and the network, or name a clone on this machine (--upstream PATH)",
        )


def _clear_stale(clone: Path) -> None:
    """Remove what a killed git left in a clone that nothing else writes to; wait for locks that are still young.

    A git whose parent was killed may run on for a moment, and then its locks are real. A clock may have been put back.
    """
    patience = time.monotonic() + STALE_LOCK
    for lock in clone.rglob("*.lock"):
        while (age := _age(lock)) is not None and age < STALE_LOCK and time.monotonic() < patience:
            time.sleep(min(0.1, STALE_LOCK - age))
        lock.unlink(missing_ok=True)
    for received in (*clone.glob("objects/**/tmp_*"), *clone.glob("objects/incoming-*")):
        if (_age(received) or 0) > STALE_OBJECTS:
            shutil.rmtree(received) if received.is_dir() else received.unlink(missing_ok=True)


def _age(path: Path) -> float | None:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
