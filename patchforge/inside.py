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
from pathlib import Path

from patchforge.errors import CheckFailed, Damaged, PatchforgeError, SystemFault
from patchforge.escape import line
from patchforge.names import unfit

Step = Callable[[str], None]

LARGEST = 64 << 20  #: bytes of a file that is read; ComfyUI's largest is under 1 MB
TEMPORARY = ".patchforge-new"  #: ends the name of the file that is written before it takes another's place

_RELATIVE = {os.open, os.stat, os.mkdir, os.unlink, os.rmdir, os.rename} <= os.supports_dir_fd and os.listdir in (
    os.supports_fd
)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FILE
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
_NAME_SURROGATE = 0x2000_0000  #: of a reparse tag: it stands for another place (winnt.h, IsReparseTagNameSurrogate)
_PAUSES = (0.05, 0.1, 0.2, 0.4)  #: seconds


class Kind(StrEnum):
    """What stands at a place."""

    NOTHING = "nothing"
    FILE = "a file"
    FOLDER = "a folder"
    LINK = "a link"
    SPECIAL = "neither a file nor a folder"


class InTheWay(PatchforgeError):
    """Something stands where a file or folder of another kind is wanted."""


class ChangedMeanwhile(CheckFailed):
    """A file is not what it was when the command looked at it: somebody else's bytes, which are kept."""


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
            if _is_link(found := os.lstat(path)) or _identity(found) != known:
                raise OSError(errno.ELOOP, "another folder has taken its place", str(path))
        return str(self.path / name)

    def look(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(self.name(name), dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def kind(self, name: str) -> Kind:
        found = self.look(name)
        if found is None:
            return Kind.NOTHING
        if _is_link(found):
            return Kind.LINK
        if stat.S_ISREG(found.st_mode):
            return Kind.FILE
        return Kind.FOLDER if stat.S_ISDIR(found.st_mode) else Kind.SPECIAL

    def flush(self) -> None:
        if self.handle is not None:
            os.fsync(self.handle)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path if self.handle is None else self.handle))  # noqa: PTH208


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _is_link(found: os.stat_result) -> bool:
    """Also of Windows: junctions and the like, but no file that OneDrive or deduplication keeps elsewhere."""
    return stat.S_ISLNK(found.st_mode) or bool(getattr(found, "st_reparse_tag", 0) & _NAME_SURROGATE)


def _patiently(change: Callable[[], None]) -> None:
    """Windows refuses to rename or remove what a virus scanner or an indexer has open, which is over in a moment."""
    for pause in _PAUSES if os.name == "nt" else ():
        try:
            return change()
        except PermissionError:
            time.sleep(pause)
    return change()


def _silent(_name: str) -> None:
    """Nothing to tell; tests pass a step that ends the process."""


class Inside:
    """A user's folder. ``step`` is called with a name before each change on disk.

    Every method raises InTheWay where a link, a folder or something special stands in the way, Damaged for a path that
    is not plain, and SystemFault where the system refuses; then that change was not made.
    """

    def __init__(self, root: Path, *, step: Step = _silent) -> None:
        """PatchforgeError when ``root`` is not a folder. A link to a folder is the folder that it leads to."""
        self.shown = root  #: as the user calls it
        self.step = step
        if not root.is_dir():
            found = "nothing there" if not os.path.lexists(root) else "not a folder"
            raise PatchforgeError(f"{root} is not a folder", found=found, do="check the path")
        self.root = Path(os.path.realpath(root))

    def kind(self, path: str) -> Kind:
        """What stands at ``path``; nothing where a folder on the way is not there."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            return at.kind(name) if at else Kind.NOTHING

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None where there is nothing."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            return self._read(at, path, name) if at else None

    def names(self, path: str = "") -> list[str]:
        """What a folder holds, sorted; nothing where there is none."""
        with self._told(path), self._folder(check_path(path) if path else ()) as at:
            return at.names() if at else []

    def replace(self, path: str, data: bytes, *, was: bytes | None) -> None:
        """Makes ``data`` the content of ``path`` by one rename, so that it is old or new at every moment.

        ChangedMeanwhile where the file does not hold ``was`` (None: is there) just before. Keeps mode and owner.
        """
        *above, name = check_path(path)
        with self._told(path), self._folder(above, make=True) as at:
            if at is None:
                raise FileNotFoundError(errno.ENOENT, "the folder was removed", path)
            self._compare(at, path, name, was)
            self._clear(at, name, [data])
            self._fill(at, path, name, data)
            self.step(f"rename {path}")
            try:
                self._compare(at, path, name, was)
            except PatchforgeError:
                os.unlink(at.name(_beside(name)), dir_fd=at.handle)
                raise
            new = at.name(_beside(name))
            _patiently(lambda: os.replace(new, at.name(name), src_dir_fd=at.handle, dst_dir_fd=at.handle))
            at.flush()

    def remove(self, path: str, *, was: bytes) -> None:
        """Removes a file. ChangedMeanwhile where it does not hold ``was`` just before."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            self.step(f"remove {path}")
            if at is None:
                raise _changed(path)
            self._compare(at, path, name, was)
            _patiently(lambda: os.unlink(at.name(name), dir_fd=at.handle))
            at.flush()

    def leftover(self, path: str, written: Iterable[bytes]) -> bool:
        """Whether a killed run left its file beside ``path``: it must be the beginning of what could be written."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            return at is not None and self._is_leftover(at, name, list(written))

    def clear(self, path: str, written: Iterable[bytes]) -> None:
        """Removes what ``leftover`` finds."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above) as at:
            if at is not None:
                self._clear(at, name, list(written))

    def add(self, path: str, data: bytes) -> None:
        """Writes a file that is new, in a folder that nothing depends on yet."""
        *above, name = check_path(path)
        with self._told(path), self._folder(above, make=True) as at:
            if at is None:
                raise FileNotFoundError(errno.ENOENT, "the folder was removed", path)
            self._write(at, path, name, data)

    def rename(self, old: str, new: str) -> None:
        """Renames something at the top. InTheWay where there is something called ``new``."""
        check_path(old), check_path(new)
        with self._told(new), self._folder(()) as at:
            self.step(f"rename {old}")
            if at is None or at.kind(new) is not Kind.NOTHING:
                raise self._in_the_way(new, Kind.NOTHING, at.kind(new) if at else Kind.NOTHING)
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
            for one in sorted(filter(ours, inner.names()), key=lambda each: (each != first, each)):
                self._remove_all(inner, one)
            left = bool(inner.names())
            if not left:
                self.step(f"rmdir {path}")
                _patiently(lambda: os.rmdir(at.name(name), dir_fd=at.handle))
                at.flush()
            return not left

    def _remove_all(self, at: _Folder, name: str) -> None:
        if at.kind(name) is Kind.FOLDER:
            with self._enter(at, name) as inner:
                for one in inner.names():
                    self._remove_all(inner, one)
            self.step(f"rmdir {name}")
            _patiently(lambda: os.rmdir(at.name(name), dir_fd=at.handle))
        else:
            self.step(f"unlink {name}")
            _patiently(lambda: os.unlink(at.name(name), dir_fd=at.handle))

    @contextmanager
    def _folder(self, parts: Iterable[str], *, make: bool = False) -> Iterator[_Folder | None]:
        """The folder that ``parts`` lead to; None where it is not there."""
        with ExitStack() as stack:
            at = _Folder(os.open(self.root, _FOLDER), self.root) if _RELATIVE else _Folder.by_path(self.root)
            if at.handle is not None:
                stack.callback(os.close, at.handle)
            for part in parts:
                found = at.kind(part)
                if found is Kind.NOTHING and make:
                    self.step(f"mkdir {part}")
                    os.mkdir(at.name(part), dir_fd=at.handle)
                elif found is Kind.NOTHING:
                    yield None
                    return
                elif found is not Kind.FOLDER:
                    raise self._in_the_way(str((at.path / part).relative_to(self.root)), Kind.FOLDER, found)
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
        found = at.kind(name)
        if found is Kind.NOTHING:
            return None
        if found is not Kind.FILE:
            raise self._in_the_way(path, Kind.FILE, found)
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

    def _fill(self, at: _Folder, path: str, name: str, data: bytes) -> None:
        new, old = _beside(name), at.look(name)
        if at.kind(new) is not Kind.NOTHING:
            raise self._in_the_way(f"{path[: -len(name)]}{new}", Kind.NOTHING, at.kind(new))
        self._write(at, path, new, data, old)

    def _write(self, at: _Folder, path: str, name: str, data: bytes, like: os.stat_result | None = None) -> None:
        self.step(f"open {path}")
        with open(os.open(at.name(name), _NEW, 0o666, dir_fd=at.handle), "wb") as stream:  # noqa: PTH123
            stream.write(data[: len(data) // 2])
            stream.flush()
            self.step(f"half of {path}")
            stream.write(data[len(data) // 2 :])
            stream.flush()
            if like is not None and hasattr(os, "fchown"):
                with suppress(PermissionError):  # only root gives files away
                    os.fchown(stream.fileno(), like.st_uid, like.st_gid)
                os.fchmod(stream.fileno(), stat.S_IMODE(like.st_mode))
            os.fsync(stream.fileno())

    def _is_leftover(self, at: _Folder, name: str, written: list[bytes]) -> bool:
        if at.kind(_beside(name)) is not Kind.FILE:
            return False
        data = self._read(at, name, _beside(name)) or b""
        return any(one.startswith(data) for one in written)

    def _clear(self, at: _Folder, name: str, written: list[bytes]) -> None:
        if self._is_leftover(at, name, written):
            self.step(f"clear {name}")
            os.unlink(at.name(_beside(name)), dir_fd=at.handle)

    def _in_the_way(self, path: str, wanted: Kind, found: Kind) -> InTheWay:
        place = self.shown / path
        return InTheWay(
            f"{place} is {found}",
            expected=str(wanted) if wanted is not Kind.NOTHING else "nothing there",
            found="a link, which is never followed" if found is Kind.LINK else str(found),
            do=f"move {place} away and run this again",
        )

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise self._in_the_way(path, Kind.FILE, Kind.LINK) from None
            in_use = "close ComfyUI and every program that has the file open, " if os.name == "nt" else ""
            raise SystemFault(
                f"{self.shown / path} cannot be read or changed",
                found=error.strerror or str(error),
                do=f"{in_use}check the disk and the permissions, and run this again",
            ) from error


def _beside(name: str) -> str:
    return f".{name}{TEMPORARY}"


def _changed(path: str) -> ChangedMeanwhile:
    return ChangedMeanwhile(
        f"{path} was changed while patchforge was at work; that change is kept",
        expected="the bytes that were there before",
        found="others",
        do="run patchforge status on the folder, which names what to do",
    )
