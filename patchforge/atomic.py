"""Files and folders that appear whole or not at all, also when the process is killed in between.

A folder is written beside its target, flushed, and exchanged with it by one ``renameat2(RENAME_EXCHANGE)`` (Linux; no
moment without a target). Where the system or file system has no exchange, two renames do it, and the next write or
``recover`` puts the old folder back should the process die between them. A symlink to versioned folders would also
be atomic, but git and Nix would see a link in place of the folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath

from patchforge.errors import PatchforgeError

Step = Callable[[str], None]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


def _silent(_name: str) -> None:
    """Nothing to tell; tests pass a step that kills the process."""


def write_tree(target: Path, files: Mapping[str, bytes], *, step: Step = _silent) -> bool:
    """Makes ``target`` a folder of exactly ``files`` (relative POSIX paths); False when it is that already.

    ``step`` is called with a name before each change on disk. PatchforgeError for paths that cannot be in one folder
    and for a target that is no folder; then nothing is written.
    """
    target = _real(target)
    _check(target, files)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent):
        _recover(target, step)
        if target.is_dir() and _content(target) == dict(files):
            return False
        fresh = _beside(target, "new")
        _fill(fresh, files, step)
        _swap(target, fresh, step)
        _remove(_beside(target, "old"), step)
        _remove(fresh, step)
    return True


def write_file(path: Path, data: bytes, *, step: Step = _silent) -> bool:
    """Makes ``data`` the content of ``path``; False when it is that already. An existing file keeps its mode."""
    path = _real(path)
    if path.is_dir():
        raise PatchforgeError(f"{path} is a folder", expected="a file, or nothing yet", do="name another output")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        if path.is_file() and path.read_bytes() == data:
            return False
        fresh = _beside(path, "new")
        _write(fresh, data, step)
        if path.exists():
            fresh.chmod(path.stat().st_mode & 0o7777)
        step("replace")
        fresh.replace(path)
        _flush(path.parent)
    return True


def recover(target: Path, *, step: Step = _silent) -> None:
    """Ends an interrupted ``write_tree``: ``target`` is whole, and nothing is left beside it."""
    target = _real(target)
    if target.parent.is_dir():
        with _locked(target.parent):
            _recover(target, step)


def _recover(target: Path, step: Step) -> None:
    old = _beside(target, "old")
    if old.exists() and not target.exists():
        step("put back")
        old.rename(target)
        _flush(target.parent)
    _remove(old, step)
    _remove(_beside(target, "new"), step)


def _swap(target: Path, fresh: Path, step: Step) -> None:
    if not target.exists():
        step("rename in")
        fresh.rename(target)
    else:
        step("exchange")
        if not _exchange(fresh, target):
            step("rename away")
            target.rename(_beside(target, "old"))
            step("rename in")
            fresh.rename(target)
    step("flush")
    _flush(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step; False where that cannot be done."""
    import ctypes  # noqa: PLC0415 - only a write needs it

    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    import ctypes  # noqa: PLC0415

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28, musl 1.2.6; not macOS
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


def _check(target: Path, files: Mapping[str, bytes]) -> None:
    if target.exists() and not target.is_dir():
        raise PatchforgeError(f"{target} is a file", expected="a folder, or nothing yet", do="name another output")
    folders = {parent.as_posix() for path in files for parent in PurePosixPath(path).parents}
    for path in files:
        pure = PurePosixPath(path)
        if not path or pure.is_absolute() or ".." in pure.parts or str(pure) != path or path in folders:
            raise PatchforgeError(f"a folder cannot hold {path!r}", expected="relative paths, none a folder of another")


def _fill(folder: Path, files: Mapping[str, bytes], step: Step) -> None:
    step("mkdir")
    folder.mkdir()
    for path, data in sorted(files.items()):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, data, step)
    for inner in {
        folder,
        *(parent for path in files for parent in (folder / path).parents if folder in parent.parents),
    }:
        _flush(inner)


def _write(file: Path, data: bytes, step: Step) -> None:
    step(f"open {file.name}")
    with file.open("wb") as stream:
        stream.write(data[: len(data) // 2])
        stream.flush()
        step(f"half of {file.name}")
        stream.write(data[len(data) // 2 :])
        stream.flush()
        os.fsync(stream.fileno())


def _remove(folder: Path, step: Step) -> None:
    """Removes a folder piece by piece; ``shutil.rmtree`` would leave ``step`` nothing to see."""
    for at, folders, files in os.walk(folder, topdown=False):
        for name in files:
            step(f"unlink {name}")
            Path(at, name).unlink()
        for name in folders:
            inner = Path(at, name)
            (inner.unlink if inner.is_symlink() else inner.rmdir)()
    if folder.is_dir():
        step("rmdir")
        folder.rmdir()
    else:
        folder.unlink(missing_ok=True)


def _content(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes; None for what is no plain file."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer per folder; the lock is the folder's own and ends with the process, so no lock file stays behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot lock a folder
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _real(path: Path) -> Path:
    """The place itself where ``path`` is a link: the link stays."""
    return Path(os.path.realpath(path))


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.patchforge-{what}")
