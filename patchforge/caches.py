"""The cache: a folder that patchforge made, and that it says so in.

What is kept there is trusted, so nobody else may write to it. A folder, a link or a file that somebody else put at a
place of the cache is left alone, and an error says what to do.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from patchforge import atomic, outputs
from patchforge.errors import PatchforgeError, TryAgain

MARK = "CACHEDIR.TAG"  #: https://bford.info/cachedir: backups leave the folder out
_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# Made by patchforge, which replaces and removes what is in this folder. Keep nothing of your own here.\n"
)
#: What versions before this mark kept in the folder. It stays, and is not used any more.
_BEFORE = re.compile(r"upstream|emulator|bot-[0-9a-f]{12}\.lock")
_DO = "move it away, or set PATCHFORGE_CACHE to a new folder"
_HAS_OWNERS = hasattr(os, "geteuid")  #: Windows has others, and modes that say nothing of them
_ANYTHING = outputs.OutputKind("what is cached", re.compile(".+"))


def place() -> Path:
    """Where the cache is: PATCHFORGE_CACHE, or else the user's cache folder for patchforge. It may not be there yet."""
    import platformdirs  # noqa: PLC0415 - keeps start-up light

    return Path(os.environ.get("PATCHFORGE_CACHE") or platformdirs.user_cache_path("patchforge")).expanduser()


def home() -> Path:
    """The cache's folder, made if need be. PatchforgeError for one that is not ours; OSError as for making a folder.

    The path itself may be a link that the user made to a folder of ours.
    """
    folder = Path(os.path.realpath(place()))
    if not os.path.lexists(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    entry(folder)
    if not _is_marked(folder):
        if error := refusal():
            raise error
        atomic.write_file(folder / MARK, _TAG)
    return folder


def refusal() -> PatchforgeError | None:
    """Why the cache's folder is somebody else's, so that nothing is kept there or removed; None where it is not."""
    folder = Path(os.path.realpath(place()))
    if not folder.is_dir() or _is_marked(folder):
        return None
    names = [present.name for present in os.scandir(folder) if not present.name.startswith(f".{MARK}.")]
    strange = sorted(name for name in names if not _BEFORE.fullmatch(name))
    return (
        _not_ours(folder, ", ".join(strange[:5]), "an empty folder, or one that patchforge made") if strange else None
    )


def folder(*names: str) -> Path:
    """A folder in the cache, made if need be. PatchforgeError where something else stands there."""
    return within(home(), *names)


def folder_or_none(*names: str) -> Path | None:
    """The same; None where the disk or a permission is in the way: then nothing is kept, and the work done again."""
    try:
        return folder(*names)
    except OSError:
        return None


def within(top: Path, *names: str) -> Path:
    """A folder below another one of the cache, made if need be."""
    if not os.path.lexists(top):
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in names:
        top = top / name
        if not os.path.lexists(top):
            top.mkdir(mode=0o700, exist_ok=True)
        entry(top)
    return top


def entry(path: Path) -> Path:
    """``path``, where a folder of this user stands that nobody else can write to, or nothing yet."""
    if not os.path.lexists(path):
        return path
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise _not_ours(path, "a link" if stat.S_ISLNK(status.st_mode) else "a file", "a folder, or nothing yet")
    _close(path, status)
    return path


def file(path: Path) -> Path:
    """``path``, where a plain file of this user stands, or nothing yet."""
    if os.path.lexists(path):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or not _is_users(status):
            raise _not_ours(path, "something else", "a plain file, or nothing yet")
    return path


def _close(path: Path, status: os.stat_result) -> None:
    """Nobody else may write there. What others could have filled is refused."""
    if not _HAS_OWNERS:
        return
    if not _is_users(status):
        raise _not_ours(path, f"it belongs to user {status.st_uid}", "a folder of the user who runs this")
    if status.st_mode & stat.S_IWOTH and any(os.scandir(path)):
        raise _not_ours(path, "everybody can write to it, and it is not empty", "a folder that only you can write to")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        path.chmod(stat.S_IMODE(status.st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))


def _is_users(status: os.stat_result) -> bool:
    return not _HAS_OWNERS or status.st_uid == os.geteuid()


def _is_marked(folder: Path) -> bool:
    return outputs.read_plain(folder / MARK) == _TAG


def _not_ours(path: Path, found: str, expected: str) -> PatchforgeError:
    return PatchforgeError(f"the cache cannot use {path}", expected=expected, found=found, do=_DO)


def parts() -> dict[str, int]:
    """What is in the cache, by name, with the bytes of each; nothing where there is none."""
    folder = Path(os.path.realpath(place()))
    if not folder.is_dir():
        return {}
    return {path.name: _size(path) for path in sorted(folder.iterdir()) if path.name != MARK}


def _size(path: Path) -> int:
    """Bytes on the disk; no link is followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_symlink() or file.is_file())


def clean() -> list[str]:
    """Removes what is in the cache, and returns the names. What another run holds locked stays, with its lock."""
    removed = []
    for name in parts():
        path = home() / name
        if path.is_symlink() or not path.is_dir():
            if name.endswith(".lock"):
                continue
            path.unlink()
        elif held := [lock for lock in path.glob("*.lock") if not _is_free(lock)]:
            kept = {file for lock in held for file in (lock, *path.glob(f"{lock.stem}*"))}
            for unheld in set(path.iterdir()) - kept:
                _remove(unheld)
            continue
        else:
            shutil.rmtree(path)
        removed.append(name)
    return removed


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _is_free(lock: Path) -> bool:
    try:
        with locked(lock, seconds=0):
            return True
    except TryAgain:
        return False


def read_tree(folder: Path) -> dict[str, bytes] | None:
    """The files that ``write_tree`` put into a folder of the cache; None where any of them is not as it was."""
    try:
        return outputs.read_folder(entry(folder), _ANYTHING) or None
    except PatchforgeError:
        entry(folder)
        return None


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    """Keeps files in a folder of the cache, in place of whatever the folder held."""
    atomic.write_tree(entry(folder), outputs.listed(files), ours=lambda _: None)


def write_file(path: Path, data: bytes) -> None:
    """Keeps a file in a folder of the cache."""
    atomic.write_file(file(path), data)


@contextmanager
def locked(path: Path, *, seconds: float = -1, waiting: str = "") -> Iterator[None]:
    """Alone with a lock file of the cache. TryAgain after ``seconds``; below zero it waits, and says ``waiting``."""
    import filelock  # noqa: PLC0415 - keeps start-up light

    lock = filelock.FileLock(file(path))
    try:
        lock.acquire(timeout=max(seconds, 0))
    except filelock.Timeout:
        if seconds >= 0:
            raise TryAgain(f"another process holds {path}", do="wait until it ends") from None
        if waiting:
            import sys  # noqa: PLC0415

            print(waiting, file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
