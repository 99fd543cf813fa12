"""What any exception says to a person: the kind of fault, in one sentence, with what to do.

Nothing is imported here when a fault is told: where files can no longer be opened, or memory is short, an import would
be the next fault. So exceptions of other modules are known by name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from patchforge import extras
from patchforge.errors import Damaged, Exit, NotChecked, PatchforgeError, SystemFault, TryAgain

VARIABLE = "PATCHFORGE_TRACEBACK"

_TOP = __file__.rsplit(os.sep, 2)[0] + os.sep
_OURS = (f"{_TOP}patchforge{os.sep}", f"{_TOP}transforms{os.sep}")
_REASONS = {
    errno.ENOENT: ("is not there", "check the path"),
    errno.EACCES: ("may not be used", "check its owner and its mode, and those of the folders above it"),
    errno.EPERM: ("may not be used", "check its owner and its mode, and those of the folders above it"),
    errno.EEXIST: ("is there already", "move it away, or name another place"),
    errno.EISDIR: ("is a folder where a file should be", "check the path"),
    errno.ENOTDIR: ("is below something that is not a folder", "check the path"),
    errno.ENOTEMPTY: ("is a folder that is not empty", "move it away, or name another place"),
    errno.ENOSPC: ("cannot be written: the disk is full", "make room and run this again"),
    errno.EDQUOT: ("cannot be written: the quota is used up", "make room and run this again"),
    errno.EFBIG: ("is larger than the file system takes", "name a place on another file system"),
    errno.ENAMETOOLONG: ("has too long a name", "use shorter names, or a place nearer to the root"),
    errno.EROFS: ("is on a file system that cannot be written to", "name another place, or mount it for writing"),
    errno.EMFILE: ("cannot be opened: this process has too many open files", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("cannot be opened: the system has too many open files", "close other programs"),
    errno.ELOOP: ("leads round in a circle of links", "mend the links"),
    errno.EIO: ("cannot be read or written: the device reports an error", "check the disk"),
    errno.EAGAIN: ("is in use and does not wait", "run this again when the other program is done"),
    errno.EBUSY: ("is in use", "run this again when the other program is done"),
    errno.ETXTBSY: ("is a program that is running", "run this again when it has ended"),
    errno.EXDEV: ("is on another file system", "name a place on the same file system"),
    errno.ENOMEM: ("cannot be had: memory is short", "close other programs, or use fewer --jobs"),
    errno.ESTALE: ("has vanished from the network's file system", "mount it again"),
    errno.EPIPE: ("was closed by the program at its other end", "find out why that ended, and run this again"),
    errno.EBADF: ("is closed", "open it, or send it to a file"),
    errno.EINVAL: ("has a name or a form that the system does not take", "check the path"),
}


def told(error: BaseException, words: Sequence[str] = ()) -> PatchforgeError:
    """The error as one of ours. What nothing is known of is a mistake of patchforge's, with status 70.

    ``words``: the command line, which decides what else is to be installed.
    """
    if isinstance(error, PatchforgeError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return told(error.exceptions[0], words)
    if isinstance(error, ImportError) and (said := _lacking(error, words)):
        return said
    for kind in type(error).__mro__:
        tell = _KINDS.get(f"{kind.__module__}.{kind.__qualname__}")
        if tell and (said := tell(error)):
            return said
    return _mistake(error)


def reason(error: BaseException) -> str:
    """What was wrong, for people: not what Python calls it."""
    name = type(error).__name__
    if isinstance(error, PatchforgeError):
        return error.problem
    if isinstance(error, OSError):
        return error.strerror or str(error) or "the system refuses it"
    if isinstance(error, UnicodeDecodeError):
        return f"the byte {error.object[error.start]:#04x} at {error.start}, which is not {error.encoding.upper()}"
    if isinstance(error, UnicodeEncodeError):
        return "half a character, which is no text"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if name == "JSONDecodeError":
        return _no_json(error)
    if name == "TimeoutExpired":
        return f"no end within {getattr(error, 'timeout', 0):g} seconds"
    return " ".join(str(error).split())[:300] or _words(name)


def _words(name: str) -> str:
    """``NotADirectory`` → ``not a directory``."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _no_json(error: BaseException) -> str:
    document, line, column = (getattr(error, name, "") for name in ("doc", "lineno", "colno"))
    if not str(document).strip():
        return "nothing: it is empty"
    said = str(getattr(error, "msg", "")).partition(":")[0] or "no value"
    return f"line {line}, column {column}: {said[:1].lower()}{said[1:]}"


def _mistake(error: BaseException) -> PatchforgeError:
    said = PatchforgeError(
        f"this is a mistake in patchforge: {_named(error)}{_place(error)}",
        do=f"please report it with what --traceback, or {VARIABLE}=1, shows",
    )
    said.status = Exit.BUG
    return said


def _named(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    """Where our own code was, as `` (patchforge/cli.py:12)``."""
    place, trace = "", error.__traceback__
    while trace:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(_OURS):
            place = f" ({file.removeprefix(_TOP).replace(os.sep, '/')}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _is_nowhere() -> bool:
    """Whether the current folder was removed."""
    try:
        os.getcwd()  # noqa: PTH109 - as little as can be
    except OSError:
        return True
    return False


def _os(error: BaseException) -> PatchforgeError | None:
    if not isinstance(error, OSError):
        return None
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    what = " or ".join(names) or "a file or a stream"
    if not names and error.errno == errno.ENOENT and _is_nowhere():
        do = "change to another folder, then run this again"
        return SystemFault(
            "the folder that this was started in is not there any more", found=error.strerror or "", do=do
        )
    said, do = _REASONS.get(error.errno or 0, ("cannot be used", "mend what the system names, and run this again"))
    return SystemFault(f"{what} {said}", found=reason(error), do=do)


def _network(error: BaseException) -> PatchforgeError:
    return TryAgain("the network or the server failed", found=_named(error), do="run this again later")


def _damaged(what: str, do: str) -> Callable[[BaseException], PatchforgeError]:
    return lambda error: Damaged(f"{what} cannot be read", found=reason(error), do=do)


_archive = _damaged("an archive or compressed data", "fetch or make it again")


def _decoding(error: BaseException) -> PatchforgeError:
    return Damaged("a text cannot be decoded", expected="UTF-8", found=reason(error), do="save it as UTF-8")


def _encoding(error: BaseException) -> PatchforgeError:
    return Damaged(
        "a name or a text cannot be written in this encoding",
        found=reason(error),
        do="rename what it names, or use a UTF-8 locale (LC_ALL=C.UTF-8)",
    )


def _deep(error: BaseException) -> PatchforgeError:
    return Damaged(
        "what was read is nested too deeply",
        found=_named(error),
        do="leave the file out, or write it less deeply nested",
    )


def _memory(_: BaseException) -> PatchforgeError:
    return SystemFault("memory is short", do="close other programs, use fewer --jobs, or read something smaller")


def _child(error: BaseException) -> PatchforgeError:
    return SystemFault(
        "a program that patchforge runs failed", found=_named(error), do="read what it printed, and run it by hand"
    )


def _worker(error: BaseException) -> PatchforgeError:
    do = "use fewer --jobs; the system may have ended one for want of memory"
    return SystemFault("a process of patchforge's was killed", found=_named(error), do=do)


def _database(error: BaseException) -> PatchforgeError:
    do = "make room, or remove the cache's folder, which patchforge status names"
    kind = SystemFault if type(error).__name__ == "OperationalError" else Damaged
    return kind("a database cannot be used", found=_named(error), do=do)


def _lacking(error: BaseException, words: Sequence[str] = ()) -> PatchforgeError | None:
    name = str(getattr(error, "name", "") or "")
    folder, _, file = str(getattr(error, "path", None) or "").replace("\\", "/").rpartition("/")
    package = folder.rpartition("/")[2]
    if file.endswith(".pyd") and package != "site-packages":  # Windows names it without its package
        name = f"{package}.{name}"
    if name.partition(".")[0] in {"", "patchforge"}:
        return None
    needed = extras.lacking(name.partition(".")[0], words)
    return NotChecked(
        f"the Python package {name} is not installed or does not load",
        found=_named(error),
        do=f"{extras.install(needed)} in the copy of the repository that patchforge came from"
        if needed
        else "install patchforge again, with its requirements",
    )


_KINDS: dict[str, Callable[[BaseException], PatchforgeError | None]] = {
    "builtins.MemoryError": _memory,
    "builtins.RecursionError": _deep,
    "builtins.UnicodeDecodeError": _decoding,
    "builtins.UnicodeEncodeError": _encoding,
    "builtins.UnicodeError": _decoding,
    "builtins.EOFError": _archive,
    "builtins.ConnectionError": _network,
    "builtins.TimeoutError": _network,
    "builtins.BrokenPipeError": _os,  # a child's; that of our own output does not come here
    "builtins.OSError": _os,
    "socket.gaierror": _network,
    "ssl.SSLError": _network,
    "urllib.error.URLError": _network,
    "http.client.HTTPException": _network,
    "gzip.BadGzipFile": _archive,
    "zlib.error": _archive,
    "igzip_lib.IsalError": _archive,
    "_lzma.LZMAError": _archive,
    "tarfile.TarError": _archive,
    "zipfile.BadZipFile": _archive,
    "zipfile.LargeZipFile": _archive,
    "json.decoder.JSONDecodeError": _damaged("a JSON document", "restore the file"),
    "tomllib.TOMLDecodeError": _damaged("a TOML document", "correct the file"),
    "tomllib._parser.TOMLDecodeError": _damaged("a TOML document", "correct the file"),
    "_csv.Error": _damaged("a table", "restore the file"),
    "configparser.Error": _damaged("a configuration", "correct the file"),
    "_pickle.UnpicklingError": _damaged("data of another process", "run this again"),
    "xml.etree.ElementTree.ParseError": _damaged("an XML document", "restore the file"),
    "cattrs.errors.BaseValidationError": _damaged("a document", "restore the file"),
    "sqlite3.Error": _database,
    "subprocess.SubprocessError": _child,
    "concurrent.futures.process.BrokenProcessPool": _worker,
}
