"""The one way in which patchforge reads, writes or removes anything in a user's own folder.

Paths are relative, plain and POSIX. No part of a path may be a link, a junction or anything but a folder or a file.
Each folder is opened relative to the one above it and never through a link, so that nobody who swaps a folder for a
link in the meantime can lead a write elsewhere. Where the system has no such calls (Windows), each part is looked at
first, and all of them again before each use: they must be the folders that they were.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from patchforge import faults
from patchforge.atomic import NO_FLUSH, Step, exchange, silent
from patchforge.errors import CheckFailed, Damaged, PatchforgeError, SystemFault, TryAgain
from patchforge.escape import line
from patchforge.names import unfit
from patchforge.paths import need_folder

LARGEST = 64 << 20  #: bytes of a file that is read; ComfyUI's largest is under 1 MB
_LOCK = ".patchforge-lock"  #: only where a folder itself cannot be locked
_SPARE = ".was"  #: ends the name of what is about to be exchanged, where that takes three steps

_RELATIVE = {os.open, os.stat, os.mkdir, os.unlink, os.rmdir, os.rename} <= os.supports_dir_fd and os.listdir in (
    os.supports_fd
)
_PASSING = ".patchforge-"  #: begins the names of folders that last as long as a command; nobody knows them
_NOTHING_COMES = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT})
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_LOCKS_FOLDERS = hasattr(os, "O_DIRECTORY")  #: Windows opens none
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FILE
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
_NAME_SURROGATE = 0x2000_0000  #: of a reparse tag: it stands for another place (winnt.h, IsReparseTagNameSurrogate)
_PAUSES = (0.05, 0.1, 0.2, 0.4)  #: seconds


class EntryKind(StrEnum):
    """What stands at a place."""

    NOTHING = "nothing"
    FILE = "a file"
    FOLDER = "a folder"
    LINK = "a link"
    SPECIAL = "neither a file nor a folder"


PassedOver = Callable[[str, str], object]  #: gets a path and why


class InTheWay(PatchforgeError):
    """Something stands where a file or folder of another kind is wanted."""


class ChangedMeanwhile(CheckFailed):
    """A file is not what it was when the command looked at it: somebody else's bytes, which are kept."""


@lru_cache(maxsize=4096)
def check_path(path: str) -> tuple[str, ...]:
    """The parts of a relative path. Damaged for one that could lead elsewhere, or into a repository's own files."""
    parts = tuple(path.split("/"))
    if reason := unfit([path]).get(path, ""):
        raise Damaged(
            f"{line(path)[:200]!r} is not a path within a folder",
            expected="a plain relative path, outside of .git",
            found=reason,
            do="do not use what names it",
        )
    return parts


def _folder_parts(path: str) -> tuple[str, ...]:
    """As ``check_path``; "" is the folder itself."""
    return check_path(path) if path else ()


@dataclass(frozen=True, slots=True)
class _Folder:
    """An open folder. ``handle`` is None where names are whole paths; then ``chain`` has what must not change."""

    handle: int | None
    path: Path
    chain: tuple[tuple[Path, tuple[int, int]], ...] = ()

    @classmethod
    def by_path(cls, path: Path, above: _Folder | None = None) -> _Folder:
        return cls(None, path, (*(above.chain if above else ()), (path, _identity(os.lstat(path)))))

    def name(self, name: str) -> str:
        """What a call is given. OSError where a folder on the way is another one by now."""
        if self.handle is not None:
            return name
        for path, known in self.chain:
            if _is_link(status := os.lstat(path)) or _identity(status) != known:
                raise OSError(errno.ELOOP, "another folder has taken its place", str(path))
        return str(self.path / name)

    def look(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(self.name(name), dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def kind(self, name: str) -> EntryKind:
        status = self.look(name)
        if status is None:
            return EntryKind.NOTHING
        if _is_link(status):
            return EntryKind.LINK
        if stat.S_ISREG(status.st_mode):
            return EntryKind.FILE
        return EntryKind.FOLDER if stat.S_ISDIR(status.st_mode) else EntryKind.SPECIAL

    def check_rights(self, name: str) -> None:
        """OSError where ``name`` could not be replaced or removed."""
        if self.handle is None:
            return
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=self.handle):
            read_only = os.fstatvfs(self.handle).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if read_only else errno.EACCES, "nothing may be written in this folder")
        status = self.look(name)
        if status is None or not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_IWUSR:
            return
        if status.st_uid == os.geteuid() and not os.access(name, os.W_OK, dir_fd=self.handle):
            raise PermissionError(errno.EPERM, "it may not be changed, not even by its owner (chattr +i)")

    @property
    def device(self) -> int:
        return (self.path.stat() if self.handle is None else os.fstat(self.handle)).st_dev

    def flush(self) -> None:
        try:
            if self.handle is not None:
                os.fsync(self.handle)
        except OSError as error:
            if error.errno not in NO_FLUSH:
                raise

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path if self.handle is None else self.handle))  # noqa: PTH208


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_link(status: os.stat_result) -> bool:
    """Also of Windows: junctions and the like, but no file that OneDrive or deduplication keeps elsewhere."""
    return stat.S_ISLNK(status.st_mode) or bool(getattr(status, "st_reparse_tag", 0) & _NAME_SURROGATE)


def _patiently(change: Callable[[], None]) -> None:
    """Windows refuses to rename or remove what a virus scanner or an indexer has open, which is over in a moment."""
    for pause in _PAUSES if os.name == "nt" else ():
        try:
            return change()
        except PermissionError:
            time.sleep(pause)
    return change()


class Inside:
    """A user's folder. ``step`` is called with a name before each change on disk.

    Every method raises InTheWay where a link, a folder or something special stands in the way, Damaged for a path that
    is not plain, and SystemFault where the system refuses; then that change was not made.
    """

    def __init__(self, root: Path, *, step: Step = silent) -> None:
        """PatchforgeError when ``root`` is not a folder. A link to a folder is the folder that it leads to."""
        self.shown = root  #: as the user calls it
        self.step = step
        need_folder(root)
        self.root = Path(os.path.realpath(root))

    def kind(self, path: str) -> EntryKind:
        """What stands at ``path``; nothing where a folder on the way is not there."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            return at.kind(name) if at else EntryKind.NOTHING

    def linked(self, path: str) -> bool:
        """Whether a file has other names (hard links), here or elsewhere."""
        *above, name = check_path(path)
        with self._folder(above) as at:
            status = at.look(name) if at is not None else None
        return status is not None and status.st_nlink > 1

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None where there is nothing."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            return self._read(at, path, name) if at else None

    def names(self, path: str = "") -> list[str]:
        """What a folder holds, sorted; nothing where there is none."""
        with self._told(path), self._folder(_folder_parts(path)) as at:
            return at.names() if at else []

    def files(self, passed_over: PassedOver = lambda *_: None) -> Iterator[tuple[str, os.stat_result]]:
        """Every regular file, with what the system says of it; nothing through links or on another file system.

        ``passed_over`` is told what cannot be looked at, or has no plain name, and why.
        """
        with self._told(""), self._folder(()) as top:
            if top is not None:
                yield from self._files(top, "", top.device, passed_over)

    def _files(
        self, at: _Folder, above: str, device: int, passed_over: PassedOver
    ) -> Iterator[tuple[str, os.stat_result]]:
        for name in at.names():
            path = f"{above}{name}"
            try:
                check_path(path)
                status = at.look(name)
                if status is None or status.st_dev != device or _is_link(status):
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield path, status
                elif stat.S_ISDIR(status.st_mode):
                    with self._enter(at, name) as inner:
                        yield from self._files(inner, f"{path}/", device, passed_over)
            except Damaged as error:
                passed_over(path, error.found)
            except OSError as error:
                passed_over(path, (error.strerror or "it cannot be looked at").lower())

    def in_use(self, path: str) -> bool | None:
        """Whether another process has a file open or mapped; None where the system does not say."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            if at is None or at.handle is None or at.kind(name) is not EntryKind.FILE:
                return None
            try:
                with _opened(at, name) as handle:
                    return open_elsewhere(handle)
            except PermissionError:
                return None

    def discard(self, path: str, was: os.stat_result) -> bool:
        """Removes a file that is still what ``was`` says; whether it was."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            now = at.look(name) if at else None
            if at is None or now is None or not _unchanged(now, was):
                return False
            self.step(f"unlink {path}")
            self._unlink(at, name)
        return True

    def add(self, path: str, data: bytes, *, like: str = "") -> None:
        """Writes a file that is new, in a folder that nothing depends on yet; with mode and owner of ``like``.

        Where it cannot be written, nothing is left of it.
        """
        *above, name = check_path(path)
        with self._told(path), self._folder(above, make=True) as at:
            if at is None:
                raise FileNotFoundError(errno.ENOENT, "the folder was removed", path)
            self._write(at, path, name, data, self._rights(like) if like else None)

    def make_folder(self, path: str) -> None:
        """Makes a folder, and those above it; "" is there already."""
        with self._told(path), self._folder(_folder_parts(path), make=True):
            pass

    def liken(self, path: str, like: str) -> None:
        """Gives a file mode, owner and access lists of another one, if that is there."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            if at is not None and at.handle is not None and (rights := self._rights(like)):
                with _opened(at, name) as handle:
                    _liken(handle, rights)

    def check_rights(self, path: str) -> None:
        """SystemFault where ``path`` could not be replaced, as far as that can be known without trying."""
        *above, name = check_path(path)
        with self._told(path):
            while above and self.kind("/".join(above)) is EntryKind.NOTHING:
                name = above.pop()
            with self._folder(above) as at, self._folder(()) as top:
                if at is not None and top is not None and at.device != top.device:
                    raise SystemFault(
                        f"{self.shown / path} is on another file system than {self.shown}",
                        expected="one file system, on which a file can be renamed from one folder to another",
                        do="mount the whole folder as one, or patch a copy of it",
                    )
                if at is not None:
                    at.check_rights(name)

    def trade(self, kept: str, path: str, *, was: bytes | None) -> None:
        """``kept``, a file of ours, and ``path`` change places; either may be missing. Needs no room on the disk.

        ChangedMeanwhile, and nothing done, where ``path`` does not hold ``was`` (None: is there) just before.
        """
        *above, name = check_path(path)
        *ours, own_name = check_path(kept)
        with self._told(path), self._folder(above) as at, self._folder(ours) as own:
            if at is None or own is None:
                raise FileNotFoundError(errno.ENOENT, "the folder was removed", path)
            self._settle(own, own_name)
            self._compare(at, path, name, was)
            self.step(f"rename {path}")
            self._compare(at, path, name, was)
            self._swap(own, own_name, at, name)
            if self._read(own, kept, own_name) != was:
                self._swap(own, own_name, at, name)
                raise _changed(path)

    def remove(self, path: str) -> None:
        """Removes a file of ours, if it is there, and what a trade may have left beside it."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            for file in (name, f"{name}{_SPARE}"):
                if at is not None and at.kind(file) is not EntryKind.NOTHING:
                    self.step(f"unlink {path}")
                    self._unlink(at, file)

    def flush(self, folders: Iterable[str]) -> None:
        """Has the disk keep what was renamed in these folders; "" is the folder itself."""
        for folder in folders:
            with self._told(folder), self._folder(_folder_parts(folder)) as at:
                if at is not None:
                    at.flush()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in the folder, whatever the settings of other processes. TryAgain while one of them is there.

        The lock ends with the process.
        """
        with self._told(""):
            handle = self._lock()
        if handle is None:
            do = "run this again when that has ended"
            raise TryAgain(f"another run of patchforge is at work in {self.shown}", do=do)
        _HELD.add(handle)
        try:
            yield
        finally:
            _HELD.discard(handle)
            os.close(handle)
            if not _LOCKS_FOLDERS:
                with suppress(OSError):  # another one waits
                    (self.root / _LOCK).unlink()

    def _lock(self) -> int | None:
        return self._lock_folder() if _LOCKS_FOLDERS else self._lock_file()

    def _lock_file(self) -> int | None:
        """As Windows can: a file in the folder."""
        import msvcrt  # noqa: PLC0415

        if self.kind(_LOCK) not in (EntryKind.NOTHING, EntryKind.FILE):
            raise self._in_the_way(_LOCK, EntryKind.FILE, self.kind(_LOCK))
        handle = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            os.close(handle)
            return None
        return handle

    def _lock_folder(self) -> int | None:
        import fcntl  # noqa: PLC0415

        handle = os.open(self.root, _FOLDER)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            pass  # a file system without locks; bytes are compared all the same
        return handle

    def rename(self, old: str, new: str) -> None:
        """Renames something at the top. InTheWay where there is something called ``new``."""
        check_path(old), check_path(new)
        with self._told(new), self._folder(()) as at:
            self.step(f"rename {old}")
            if at is None or at.kind(new) is not EntryKind.NOTHING:
                raise self._in_the_way(new, EntryKind.NOTHING, at.kind(new) if at else EntryKind.NOTHING)
            _patiently(lambda: os.rename(at.name(old), at.name(new), src_dir_fd=at.handle, dst_dir_fd=at.handle))
            at.flush()

    def remove_folder(self, path: str, ours: Callable[[str], bool], first: str = "") -> bool:
        """Removes from a folder what is ``ours`` (asked for each name at its top), ``first`` before all else.

        What is below such a name goes too; links are removed, not followed. Whether the folder is gone.
        """
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at, self._folder((*above, name)) as inner:
            if at is None or inner is None:
                return True
            for entry in sorted(filter(ours, inner.names()), key=lambda each: (each != first, each)):
                self._remove_all(inner, entry)
            left = bool(inner.names())
            if not left:
                self.step(f"rmdir {path}")
                _patiently(lambda: os.rmdir(at.name(name), dir_fd=at.handle))
                at.flush()
            return not left

    def _remove_all(self, at: _Folder, name: str) -> None:
        if at.kind(name) is EntryKind.FOLDER:
            with self._enter(at, name) as inner:
                for entry in inner.names():
                    self._remove_all(inner, entry)
            self.step(f"rmdir {name}")
            _patiently(lambda: os.rmdir(at.name(name), dir_fd=at.handle))
        else:
            self.step(f"unlink {name}")
            self._unlink(at, name)

    def _unlink(self, at: _Folder, name: str) -> None:
        _patiently(lambda: os.unlink(at.name(name), dir_fd=at.handle))

    @contextmanager
    def _folder(self, parts: Iterable[str], *, make: bool = False) -> Iterator[_Folder | None]:
        """The folder that ``parts`` lead to; None where it is not there."""
        with ExitStack() as stack:
            at = _Folder(os.open(self.root, _FOLDER), self.root) if _RELATIVE else _Folder.by_path(self.root)
            if at.handle is not None:
                stack.callback(os.close, at.handle)
            for part in parts:
                kind = at.kind(part)
                if kind is EntryKind.NOTHING and make:
                    self.step(f"mkdir {part}")
                    os.mkdir(at.name(part), dir_fd=at.handle)
                elif kind is EntryKind.NOTHING:
                    yield None
                    return
                elif kind is not EntryKind.FOLDER:
                    raise self._in_the_way(str((at.path / part).relative_to(self.root)), EntryKind.FOLDER, kind)
                at = stack.enter_context(self._enter(at, part))
            yield at

    @contextmanager
    def _enter(self, at: _Folder, part: str) -> Iterator[_Folder]:
        if at.handle is None:
            yield _Folder.by_path(Path(at.name(part)), at)
            return
        handle = os.open(part, _FOLDER, dir_fd=at.handle)
        try:
            yield _Folder(handle, at.path / part)
        finally:
            os.close(handle)

    def _read(self, at: _Folder, path: str, name: str) -> bytes | None:
        kind = at.kind(name)
        if kind is EntryKind.NOTHING:
            return None
        if kind is not EntryKind.FILE:
            raise self._in_the_way(path, EntryKind.FILE, kind)
        with open(os.open(at.name(name), _READ, dir_fd=at.handle), "rb") as stream:  # noqa: PTH123 - a handle
            opened, now = os.fstat(stream.fileno()), at.look(name) if at.handle is None else None
            if not stat.S_ISREG(opened.st_mode) or (now and (_is_link(now) or not os.path.samestat(now, opened))):
                raise OSError(errno.ELOOP, "something else has taken its place", name)
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise Damaged(f"{self.shown / path} is larger than {LARGEST} bytes", do="move it away")
        return data

    def _compare(self, at: _Folder, path: str, name: str, was: bytes | None) -> None:
        if self._read(at, path, name) != was:
            raise _changed(path)

    def _rights(self, path: str) -> _Rights | None:
        *above, name = check_path(path)
        with self._folder(above) as at:
            return _rights(at, name) if at else None

    def _write(self, at: _Folder, path: str, name: str, data: bytes, like: _Rights | None = None) -> None:
        self.step(f"open {path}")
        handle = os.open(at.name(name), _NEW, 0o666, dir_fd=at.handle)
        try:
            with open(handle, "wb") as stream:  # noqa: PTH123 - a handle
                stream.write(data[: len(data) // 2])
                stream.flush()
                self.step(f"half of {path}")
                stream.write(data[len(data) // 2 :])
                stream.flush()
                if like is not None and at.handle is not None:
                    _liken(handle, like)
                os.fsync(handle)
        except Exception:
            with suppress(OSError):
                os.unlink(at.name(name), dir_fd=at.handle)
            raise

    def _swap(self, own: _Folder, kept: str, at: _Folder, name: str) -> None:
        """Two names change places; one of them may be missing."""
        if own.kind(kept) is EntryKind.NOTHING:
            own, kept, at, name = at, name, own, kept
        if at.kind(name) is EntryKind.NOTHING:
            ours, other, folders = own.name(kept), at.name(name), (own.handle, at.handle)
            _patiently(lambda: os.rename(ours, other, src_dir_fd=folders[0], dst_dir_fd=folders[1]))
        elif not exchange(own.name(kept), at.name(name), (own.handle, at.handle)):
            self._take_turns(own, kept, at, name)

    def _take_turns(self, own: _Folder, kept: str, at: _Folder, name: str) -> None:
        """As an exchange does it, with a second name, or a copy, of what stands at ``name``; that is never missing."""
        spare, (own_handle, at_handle) = f"{kept}{_SPARE}", (own.handle, at.handle)
        with suppress(FileNotFoundError):
            os.unlink(own.name(spare), dir_fd=own_handle)
        try:
            os.link(at.name(name), own.name(spare), src_dir_fd=at_handle, dst_dir_fd=own_handle, follow_symlinks=False)
        except (OSError, NotImplementedError):
            self._write(own, spare, spare, self._read(at, name, name) or b"", _rights(at, name))
        try:
            ours, other = own.name(kept), at.name(name)
            _patiently(lambda: os.replace(ours, other, src_dir_fd=own_handle, dst_dir_fd=at_handle))
        except OSError:
            os.unlink(own.name(spare), dir_fd=own_handle)
            raise
        self._settle(own, kept)

    def _settle(self, own: _Folder, kept: str) -> None:
        """The last of those three steps, also for a run that failed or was killed before it."""
        spare = f"{kept}{_SPARE}"
        if own.kind(kept) is EntryKind.NOTHING and own.kind(spare) is EntryKind.FILE:
            os.rename(own.name(spare), own.name(kept), src_dir_fd=own.handle, dst_dir_fd=own.handle)

    def _in_the_way(self, path: str, wanted: EntryKind, found: EntryKind) -> InTheWay:
        place = self.shown / path
        return InTheWay(
            f"{place} is {found}",
            expected=str(wanted) if wanted is not EntryKind.NOTHING else "nothing there",
            found="a link, which is never followed" if found is EntryKind.LINK else str(found),
            do=f"move {place} away and run this again",
        )

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise self._in_the_way(path, EntryKind.FILE, EntryKind.LINK) from None
            raise faults.told(OSError(error.errno, error.strerror, str(self._known(path, error)))) from error

    def _known(self, path: str, error: OSError) -> Path:
        """What to name: where nothing can be written the folder that is there, not the file that was to come."""
        known = self.shown / path
        if error.errno not in _NOTHING_COMES:
            return known
        passing = path.startswith(_PASSING)
        while known != self.shown and (passing or not os.path.lexists(known)):
            known = known.parent
        return known


def _unchanged(now: os.stat_result, was: os.stat_result) -> bool:
    def told(of: os.stat_result) -> tuple[int, ...]:
        return (of.st_dev, of.st_ino, of.st_mode, of.st_nlink, of.st_size, of.st_mtime_ns)

    return told(now) == told(was)


def open_elsewhere(handle: int, *, writing: bool = False) -> bool | None:
    """Whether any process has a file open, or mapped, by whatever name; None where the system does not say.

    ``writing``: only who may write counts. Linux gives a file's owner a lease on it only while nobody else has it open
    (fcntl(2)).
    """
    import fcntl  # noqa: PLC0415

    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK if writing else fcntl.F_WRLCK)
    except OSError as error:  # other than these: a file system without leases, or somebody else's file
        return True if error.errno in {errno.EAGAIN, errno.EBUSY} else None
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


@contextmanager
def _opened(at: _Folder, name: str) -> Iterator[int]:
    handle = os.open(at.name(name), _READ, dir_fd=at.handle)
    try:
        yield handle
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class _Rights:
    """Who may do what with a file. ``attributes``: extended ones, with the access lists of POSIX among them."""

    status: os.stat_result
    attributes: dict[str, bytes]


def _rights(at: _Folder, name: str) -> _Rights | None:
    if at.handle is None or at.kind(name) is not EntryKind.FILE:
        return None
    with _opened(at, name) as handle:
        return _Rights(os.fstat(handle), _attributes(handle))


def _attributes(handle: int) -> dict[str, bytes]:
    """Of a file; none where the system or its file system has none."""
    attributes: dict[str, bytes] = {}
    with suppress(OSError, AttributeError):
        for name in os.listxattr(handle):
            attributes[name] = os.getxattr(handle, name)
    return attributes


def _liken(handle: int, rights: _Rights) -> None:
    """Mode, owner and attributes of another file. What is so already is not asked for: not every file system can."""
    now, wanted = os.fstat(handle), rights.status
    if (now.st_uid, now.st_gid) != (wanted.st_uid, wanted.st_gid):
        with suppress(OSError):  # only root gives files away
            os.fchown(handle, wanted.st_uid, wanted.st_gid)
    for name, value in rights.attributes.items():
        with suppress(OSError):  # those of the system are its own to give
            os.setxattr(handle, name, value)
    if stat.S_IMODE(os.fstat(handle).st_mode) != stat.S_IMODE(wanted.st_mode):
        os.fchmod(handle, stat.S_IMODE(wanted.st_mode))


_HELD: set[int] = set()  #: handles of folders that this process is alone in


def _let_go() -> None:
    """A child that was forked does not keep a folder locked when this process has ended."""
    for handle in _HELD:
        with suppress(OSError):
            os.close(handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _changed(path: str) -> ChangedMeanwhile:
    return ChangedMeanwhile(
        f"{path} was changed while patchforge was at work; that change is kept",
        expected="the bytes that were there before",
        found="others",
        do="run patchforge status on the folder, which names what to do",
    )
