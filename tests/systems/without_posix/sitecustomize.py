"""What Windows lacks is taken from this Python before anything else runs: modules, calls that take a folder, flags.

Known from the documentation of Python's os and stdlib modules ("Availability: Unix") and of CPython 3.12 on Windows
10: ``os.supports_dir_fd`` and ``os.supports_fd`` hold none of these calls, ``os.open`` refuses folders, ``os.rename``
refuses a name that is taken, ``os.fsync`` one that is not open for writing, and files are locked by ``msvcrt``.
"""

import errno
import importlib
import os
import sys
import types

_fcntl = importlib.import_module("fcntl")


def _locking(handle: int, mode: int, size: int) -> None:
    """As msvcrt's: OSError at once where somebody has these bytes of the file."""
    _fcntl.lockf(handle, (_fcntl.LOCK_EX | _fcntl.LOCK_NB) if mode == msvcrt.LK_NBLCK else _fcntl.LOCK_UN, size)


msvcrt = types.ModuleType("msvcrt")
msvcrt.locking, msvcrt.LK_UNLCK, msvcrt.LK_NBLCK = _locking, 0, 2  # type: ignore[attr-defined]
for name in ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog", "readline"):
    sys.modules[name] = None  # type: ignore[assignment]
for name in (
    *(
        "geteuid",
        "getegid",
        "getgid",
        "chown",
        "lchown",
        "fchown",
        "fchmod",
        "killpg",
        "getpgid",
        "setsid",
        "mkfifo",
        "fork",
        "forkpty",
    ),
    *("sched_getaffinity", "statvfs", "sysconf", "uname", "getloadavg", "pread", "posix_fallocate", "setxattr"),
    *("O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC"),
):
    if hasattr(os, name):
        delattr(os, name)
os.supports_dir_fd.clear()
os.supports_fd.clear()
_open, _rename, _fsync = os.open, os.rename, os.fsync


def _no_folders(path, flags, mode=0o777, *, dir_fd=None):  # type: ignore[no-untyped-def]
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    if os.path.isdir(path):  # noqa: PTH112 - pathlib is not imported yet
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return _open(path, flags, mode)


def _no_replacing(old, new, *, src_dir_fd=None, dst_dir_fd=None):  # type: ignore[no-untyped-def]
    if src_dir_fd is not None or dst_dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    _rename(old, new)


def _only_written(handle):  # type: ignore[no-untyped-def]
    if not _writes(handle):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    _fsync(handle)


def _writes(handle: int) -> bool:
    with open(f"/proc/self/fdinfo/{handle}") as stream:  # noqa: PTH123
        return int(stream.read().split("flags:")[1].split()[0], 8) & 3 != 0


os.open, os.rename, os.fsync = _no_folders, _no_replacing, _only_written
importlib.import_module("subprocess")  # which takes whoever has msvcrt for Windows
sys.modules["msvcrt"] = msvcrt
