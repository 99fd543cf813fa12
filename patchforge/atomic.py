"""Folders and files that appear whole or not at all, also when the process is killed in between.

A folder is written beside its target, flushed, and exchanged with it by one ``renameat2(RENAME_EXCHANGE)`` (Linux; no
moment without a target). Where the system or file system has no exchange, two renames do it, and the next write or
``recover`` puts the old folder back should the process die between them. A symlink to versioned folders would also
be atomic, but git and Nix would see a link in place of the folder.

What is written beside a target has a name that nobody else gives, with a digest in it, and a folder there says in a
file what it is; so a run that follows knows what a killed one left. No link is followed: one that stands in a target's
place is not written through. Who may replace what is for ``outputs.py`` to say.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from patchforge import faults
from patchforge.errors import PatchforgeError, SystemFault
from patchforge.names import unfit

Step = Callable[[str], None]
Prove = Callable[[Path], None]  #: raises PatchforgeError unless all of a folder, or a file, is ours

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})
#: What a file system says that cannot flush a folder: some of networks and of FUSE.
NO_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_FEW = 32  #: files that are flushed one by one; of more, their whole file system is, once
#: What proves a folder ours is removed after all else.
_LAST = {"manifest.json": 1, "evidence.json": 1, "SHA256SUMS": 2}
_MARK, _NEW, _WHOLE, _OLD = "patchforge", "new", "whole", "old"  #: what there is in a folder beside a target
_MARK_TEXT = b"Written by patchforge, and removed by its next run: what it is about to put in place, or has replaced.\n"


def silent(_name: str) -> None:
    """Nothing to tell; tests pass a step that kills the process."""


def only_empty(folder: Path) -> None:
    """PatchforgeError unless the folder is empty."""
    if any(folder.iterdir()):
        raise PatchforgeError(
            f"{folder} is not empty", expected="a new or empty folder", do="choose another, or remove it"
        )


def _anything(_file: Path) -> None:
    """A file that the caller has looked at."""


def write_tree(
    target: Path,
    files: Mapping[str, bytes],
    *,
    ours: Prove = only_empty,
    executable: Collection[str] = (),
    step: Step = silent,
) -> bool:
    """Makes ``target`` a folder of exactly ``files`` (relative POSIX paths); False when it is that already.

    ``ours`` is asked about a folder that is there, before it is replaced and again before what was replaced is
    removed. ``step`` is called with a name before each change on disk. PatchforgeError for paths that cannot be in one
    folder and for a target that is not a folder, is a link, or is not ours; then nothing is written.
    """
    _check(target, files)
    if _same(target, files) and not os.path.lexists(beside(target)):
        return False
    with _made(target.parent), _locked(target.parent), _told_of(target):
        _recover(target, ours, step)
        if _same(target, files):
            return False
        if target.is_dir():
            ours(target)
        _put(target, files, ours=ours, executable=executable, step=step)
    return True


def _put(target: Path, files: Mapping[str, bytes], *, ours: Prove, executable: Collection[str], step: Step) -> None:
    place = beside(target)
    step("mkdir")
    place.mkdir()
    try:
        _write(place / _MARK, _MARK_TEXT, step)
        _fill(place / _NEW, files, executable, step)
        step("whole")
        (place / _NEW).rename(place / _WHOLE)
        _swap(target, place, ours, step)
    except BaseException:
        with suppress(OSError, PatchforgeError):
            _recover(target, ours, silent)
        raise
    _clear(place, step)


def write_file(path: Path, data: bytes, *, ours: Prove = _anything, step: Step = silent) -> bool:
    """Makes ``data`` the content of ``path``; False when it is that already. An existing file keeps its mode.

    ``ours`` is asked about a file that is there, just before it is replaced. A link is replaced, not followed.
    """
    if path.is_dir() and not path.is_symlink():
        raise PatchforgeError(f"{path} is a folder", expected="a file, or nothing yet", do="name another output")
    fresh = beside(path)
    if _holds(path, data) and not os.path.lexists(fresh):
        return False
    with _made(path.parent), _locked(path.parent), _told_of(path):
        if os.path.lexists(fresh):
            _known(fresh)
            _clear(fresh, step)
        if _holds(path, data):
            return False
        if os.path.lexists(path):
            ours(path)
        _replace(path, fresh, data, ours=ours, step=step)
    return True


def _replace(path: Path, fresh: Path, data: bytes, *, ours: Prove, step: Step) -> None:
    try:
        _write(fresh, data, step, flush=True)
        if (mode := _mode(path)) is not None:
            fresh.chmod(mode)
        if os.path.lexists(path):
            ours(path)
        step("replace")
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    flush(path.parent)


def recover(target: Path, *, ours: Prove = only_empty, step: Step = silent) -> None:
    """Ends an interrupted ``write_tree``: ``target`` is whole, and nothing is left beside it."""
    if os.path.lexists(beside(target)):
        with _locked(target.parent):
            _recover(target, ours, step)


def _recover(target: Path, ours: Prove, step: Step) -> None:
    place = beside(target)
    if not os.path.lexists(place):
        return
    _known(place)
    old, whole = place / _OLD, place / _WHOLE
    if _is_folder(old) and not os.path.lexists(target):
        step("put back")
        old.rename(target)
        flush(target.parent)
    if target.is_dir() and any(target.iterdir()):  # else what lies beside it has never been in its place
        for earlier in (old, whole):
            _proved(earlier, ours)
    _clear(place, step)


def _known(place: Path) -> None:
    """PatchforgeError unless a run of this user's left this beside a target: anybody can know its name and its mark."""
    if _is_folder(place):
        names = {entry.name for entry in os.scandir(place)}
        marked = names <= {_MARK, _NEW, _WHOLE, _OLD} and _holds(place / _MARK, _MARK_TEXT)
        plain = all(_is_folder(place / name) for name in names - {_MARK})
        known = _is_own(place) and plain and (marked or names <= {_MARK})
    else:
        known = _is_file(place) and _is_own(place)
    if not known:
        raise PatchforgeError(
            f"{place} is in the way",
            expected="what a killed run of patchforge left, or nothing",
            found="something else",
            do="move it away",
        )


def _is_own(path: Path) -> bool:
    """Whether something that is there is this user's, where the system has owners."""
    return not hasattr(os, "geteuid") or path.lstat().st_uid == os.geteuid()


def _proved(folder: Path, ours: Prove) -> None:
    """What was replaced is about to be removed. It may be half removed already; what proves it goes last."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        ours(folder)
    except PatchforgeError as error:
        raise PatchforgeError(
            f"{folder} has files that somebody saved while a run was killed",
            found=error.found or error.problem,
            do=f"keep what you need of it, and remove {folder.parent}",
        ) from error


def _swap(target: Path, place: Path, ours: Prove, step: Step) -> None:
    whole = place / _WHOLE
    if target.is_dir():
        whole.chmod(stat.S_IMODE(target.stat().st_mode))
    if not (target.is_dir() and any(target.iterdir())):
        step("rename in")
        if target.is_dir():
            target.rmdir()
        whole.rename(target)
    else:
        old = _take_turns(target, place, step)
        step("prove")
        _keep_or_give_back(target, place, old, ours)
    step("flush")
    flush(target.parent)


def _take_turns(target: Path, place: Path, step: Step) -> Path:
    """The whole new folder and the old one change places; where the old one is now."""
    whole, old = place / _WHOLE, place / _OLD
    step("exchange")
    if _exchange(whole, target):
        return whole
    step("rename away")
    target.rename(old)
    step("rename in")
    whole.rename(target)
    return old


def _keep_or_give_back(target: Path, place: Path, old: Path, ours: Prove) -> None:
    """Somebody may have saved a file there in the meantime: then all is as it was."""
    try:
        ours(old)
    except PatchforgeError:
        if not _exchange(old, target):
            target.rename(place / _NEW)
            old.rename(target)
        raise


def _exchange(first: Path, other: Path) -> bool:
    return exchange(first, other)


def exchange(first: Path | str, other: Path | str, folders: tuple[int | None, int | None] = (None, None)) -> bool:
    """Swaps two names, each in its open folder or a whole path, in one step; False where that cannot be done."""
    import ctypes  # noqa: PLC0415 - only a write needs it

    rename = _renameat2()
    if rename is None:
        return False
    at, other_at = (_AT_FDCWD if folder is None else folder for folder in folders)
    if rename(at, os.fsencode(first), other_at, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(other))


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    import ctypes  # noqa: PLC0415

    function = _of_libc("renameat2")  # glibc 2.28, musl 1.2.6; not macOS
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
        function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


def _of_libc(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - what ctypes has for a function
    import ctypes  # noqa: PLC0415

    return getattr(ctypes.CDLL(None, use_errno=True), name, None) if sys.platform == "linux" else None


def _check(target: Path, files: Mapping[str, bytes]) -> None:
    if os.path.lexists(target) and not _is_folder(target):
        what = "link" if target.is_symlink() else "file"
        raise PatchforgeError(f"{target} is a {what}", expected="a folder, or nothing yet", do="name another output")
    for path, reason in unfit(files).items():
        raise PatchforgeError(
            f"a folder cannot hold {path!r}",
            expected="paths for every system",
            found=reason,
            do="rename it where it comes from",
        )


def _fill(folder: Path, files: Mapping[str, bytes], executable: Collection[str], step: Step) -> None:
    """Flushed when it returns."""
    folder.mkdir()
    made = {""}
    each = len(files) <= _FEW or _of_libc("syncfs") is None
    for path, data in sorted(files.items()):
        _make_folders(folder, path.rpartition("/")[0], made)
        _write(folder / path, data, step, flush=each, executable=path in executable)
    if each:
        for inner in made:
            flush(folder / inner)
    else:
        _flush_all(folder)


def _make_folders(folder: Path, inner: str, made: set[str]) -> None:
    if inner not in made:
        _make_folders(folder, inner.rpartition("/")[0], made)
        (folder / inner).mkdir()
        made.add(inner)


def _write(file: Path, data: bytes, step: Step, *, flush: bool = False, executable: bool = False) -> None:
    """A new file: what stands in its place is an error, and not written to."""
    step(f"open {file.name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(file, flags, 0o777 if executable else 0o666)
    try:
        half = len(data) // 2
        _all(handle, data[:half])
        step(f"half of {file.name}")
        _all(handle, data[half:])
        if flush:
            os.fsync(handle)
    finally:
        os.close(handle)


def _all(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _clear(place: Path, step: Step) -> None:
    """Removes what lies beside a target; the mark last, so that a run that follows knows the rest."""
    if _is_folder(place):
        for name in (_NEW, _OLD, _WHOLE):
            _remove(place / name, step)
        if os.path.lexists(place / _MARK):
            _unlink(place / _MARK, step)
        step("rmdir")
        place.rmdir()
    elif os.path.lexists(place):
        _unlink(place, step)


def _remove(folder: Path, step: Step) -> None:
    """Removes a folder piece by piece; ``shutil.rmtree`` would leave ``step`` nothing to see. No link is followed."""
    if not _is_folder(folder):
        if os.path.lexists(folder):
            _unlink(folder, step)
        return
    for at, folders, files in os.walk(folder, topdown=False):
        for name in sorted(files, key=lambda file: (_LAST.get(file, 0), file)):
            _unlink(Path(at, name), step)
        for name in folders:
            inner = Path(at, name)
            (inner.unlink if inner.is_symlink() else inner.rmdir)()
    step("rmdir")
    folder.rmdir()


def _unlink(file: Path, step: Step) -> None:
    step(f"unlink {file.name}")
    file.unlink()


def _same(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Whether the folder holds these files, plain ones, and nothing else."""
    if not _is_folder(folder):
        return False
    present = content(folder)
    return (
        present.keys() == set(files)
        and all(status is not None and status.st_size == len(files[path]) for path, status in present.items())
        and all((folder / path).read_bytes() == data for path, data in files.items())
    )


def content(folder: Path) -> dict[str, os.stat_result | None]:
    """What is below a folder, by POSIX path: of plain files their status, None for others and for empty folders."""
    contents: dict[str, os.stat_result | None] = {}
    for at, folders, files in os.walk(folder, onerror=_raise):
        inside = Path(at).relative_to(folder).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        for name in folders:
            if os.path.islink(os.path.join(at, name)):  # noqa: PTH114, PTH118 - of many files
                contents[prefix + name] = None
        for name in files:
            status = os.lstat(os.path.join(at, name))  # noqa: PTH118
            contents[prefix + name] = status if stat.S_ISREG(status.st_mode) else None
        if not folders and not files and prefix:
            contents[inside] = None
    return contents


def _raise(error: OSError) -> None:
    raise error


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _holds(path: Path, data: bytes) -> bool:
    return _is_file(path) and path.stat().st_size == len(data) and path.read_bytes() == data


def _mode(path: Path) -> int | None:
    return stat.S_IMODE(path.stat().st_mode) if _is_file(path) else None


def _flush_all(folder: Path) -> None:
    """Flushes the whole file system of a folder (``syncfs``, of Linux)."""
    import ctypes  # noqa: PLC0415

    handle = os.open(folder, os.O_RDONLY)
    try:
        if _of_libc("syncfs")(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(handle)


def flush(path: Path) -> None:
    """Has the disk keep a file, or the names in a folder."""
    if not hasattr(os, "O_DIRECTORY") and path.is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FLUSH or not path.is_dir():
            raise
    finally:
        os.close(handle)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder, with those above it; those that had to be made go again if nothing comes to stand in them."""
    missing = [parent for parent in (folder, *folder.parents) if not os.path.lexists(parent)]
    try:
        _make(folder)
        yield
    except BaseException:
        for made in missing:
            with suppress(OSError):
                made.rmdir()
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        at = next(
            (parent for parent in (folder, *folder.parents) if os.path.lexists(parent) and not parent.is_dir()), folder
        )
        raise PatchforgeError(
            f"{at} is not a folder", expected="a folder, or nothing yet", do="name another output"
        ) from error
    except OSError as error:
        raise SystemFault(f"{folder} cannot be made", found=faults.reason(error), do="name another output") from error


class _TriedError(Exception):
    """Takes back what was made to try it."""


def try_place(target: Path) -> None:
    """PatchforgeError or OSError where nothing can be written at ``target``; leaves everything as it is."""
    with suppress(_TriedError), _made(target.parent), _locked(target.parent), _told_of(target):
        place = beside(target)
        if not os.path.lexists(place):  # what a killed run left there could be written
            place.mkdir()
            place.rmdir()
        raise _TriedError


@contextmanager
def _told_of(target: Path) -> Iterator[None]:
    """An error about what is written beside a target names the target: nobody knows the other name."""
    fresh = beside(target)
    try:
        yield
    except OSError as error:
        at = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        if error.errno is None or (at is not None and not at.is_relative_to(fresh)):
            raise
        if at is None:  # of a stream, which has no name
            raise OSError(error.errno, error.strerror, str(target)) from error
        if error.errno == errno.ENOENT:  # /proc and its like, or a folder that was removed at this moment
            do = "name another output"
            raise SystemFault(
                f"{target} cannot be made: no file can be made beside it", found=faults.reason(error), do=do
            ) from error
        raise OSError(error.errno, error.strerror, str(target)) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer per folder; the lock is the folder's own and ends with the process, so no lock file stays behind."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows, where a folder cannot be locked
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot lock a folder
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def beside(path: Path) -> Path:
    """Where what becomes ``path`` is written: a name that says whose it is and that nobody else gives."""
    name = path.name.encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(b"patchforge beside " + name).hexdigest()[:12]
    return path.with_name(f".{name[:180].decode('utf-8', 'ignore')}.patchforge-{digest}")
