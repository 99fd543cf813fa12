"""Paths in a stranger's tree: which ones are not taken, by the same rule for git objects, tarballs and folders."""

from __future__ import annotations

import re

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
#: What HFS+ leaves out of names, so that ``.g\u200cit`` is ``.git`` there (git refuses the same: utf8.c).
_UNSEEN = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
#: Names that are git's own folder on some file system: NTFS drops trailing dots, spaces and streams.
_GIT = re.compile(r"(?:\.git|git~1)[. ]*(?::.*)?", re.IGNORECASE | re.DOTALL)
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
    if path.startswith(("/", "\\")) or re.match("[A-Za-z]:", path):
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
        return "too many folders within each other"
    return ""
