"""Names of files: which ones of a stranger's tree are taken, and which ones every system can hold."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from patchforge.errors import Damaged

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
#: What HFS+ leaves out of names, so that ``.g\u200cit`` is ``.git`` there (git refuses the same: utf8.c).
_UNSEEN = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
#: Names that are git's own folder on some file system: NTFS drops trailing dots, spaces and streams.
_GIT = re.compile(r"(?:\.git|git~1)[. ]*(?::.*)?", re.IGNORECASE | re.DOTALL)
_DRIVE = re.compile("(?:^|/)[A-Za-z]:")  #: also within a path, which may be joined part by part
_MOST_NAME, _MOST_PATH = 255, 4095  #: bytes; what Linux takes
_DEEPEST = 100  #: folders within each other; a person makes ten


def odd(path: str) -> str:
    """Why a relative POSIX path is not taken, as a short phrase; "" for one that is fine.

    A path that is fine stays below the folder that it is joined to, on every system, and is one line of UTF-8.
    Bytes that are not UTF-8 are expected as surrogates (``os.fsdecode``).
    """
    if _CONTROLS.search(path):
        return "control characters in its name"
    if _NOT_UTF8.search(path):
        return "a name that is not UTF-8"
    if path.startswith(("/", "\\")) or _DRIVE.search(path):
        return "an absolute path"
    if "\\" in path:
        return "a backslash in its name"
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return "a name that leads elsewhere"
    if any(_GIT.fullmatch(_UNSEEN.sub("", part)) for part in parts):
        return "in a folder called .git"
    if len(path.encode()) > _MOST_PATH or any(len(part.encode()) > _MOST_NAME for part in parts):
        return "a name that is too long"
    if len(parts) > _DEEPEST:
        return "folders nested too deeply"
    return ""


_KEPT = ".patchforge"


def kept(path: str) -> bool:
    """Whether a relative path is in what patchforge keeps at the top of a folder for itself, journals above all."""
    return folded(path.partition("/")[0]).startswith(_KEPT)


_PORTABLE_PATH = 1024  #: bytes of a relative path; Linux allows 4096 with the folder before it
_FORBIDDEN = re.compile(r'[<>:"|?*]|[. ]$')
#: Windows opens a device by these, whatever the ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\..*)?", re.IGNORECASE)


def unfit(paths: Iterable[str]) -> dict[str, str]:
    """Those of ``paths`` (relative, POSIX) that cannot be in one folder on every system, each with the reason.

    Of two that one system would take for the same file, the first in order is fit.
    """
    files: set[str] = set()
    folders: set[str] = set()
    problems: dict[str, str] = {}
    for path in sorted(paths):
        if reason := odd(path) or _not_everywhere(path) or _beside(path, files, folders):
            problems[path] = reason
    return problems


def file_name(name: str) -> str:
    """``name``, which is made of what a document says; Damaged where it could not be one file's on every system."""
    if reason := "a name of a file below" if "/" in name else next(iter(unfit([name]).values()), ""):
        raise Damaged(
            f"no file can be called {name[:80]!r}", expected="a plain name", found=reason, do="correct the document"
        )
    return name


def folded(path: str) -> str:
    """What paths share that some system takes for one: case, composed characters and, on HFS+, what is not seen."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", _UNSEEN.sub("", path)).casefold())


def _not_everywhere(path: str) -> str:
    if len(path.encode()) > _PORTABLE_PATH:
        return f"more than {_PORTABLE_PATH} bytes in its path"
    return next((reason for part in path.split("/") if (reason := _part(part))), "")


@lru_cache(maxsize=4096)
def _part(part: str) -> str:
    if _FORBIDDEN.search(part):
        return "characters in its name that not every system allows"
    return "the name of a device on Windows" if _DEVICES.fullmatch(part) else ""


def _beside(path: str, files: set[str], folders: set[str]) -> str:
    """Notes the path, unless another is in its way."""
    key = folded(path)
    above: list[str] = []
    at = key
    while (at := at.rpartition("/")[0]) and at not in folders:
        above.append(at)
    if key in files:
        return "the name of another file, but for upper and lower case or what is not seen"
    if key in folders or any(parent in files for parent in above):
        return "the name of a folder as well"
    files.add(key)
    folders.update(above)
    return ""
