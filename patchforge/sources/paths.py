"""Which paths of a stranger's tree are taken, and why another is not."""

from __future__ import annotations

import re

_COMPONENT, _WHOLE = 255, 4096  #: bytes that Linux's file systems take
_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029]")


def odd(path: str) -> str:
    """Why ``path`` cannot be a file of a tree, in a few words without the path; "" for one that can."""
    parts = path.split("/")
    if _CONTROL.search(path):
        return "control characters in its name"
    if path.startswith("/"):
        return "an absolute path"
    if re.search(r"(?:^|/)[A-Za-z]:", path):
        return "a drive letter"
    if "\\" in path:
        return "a backslash in its name"
    if ".." in parts:
        return "a path that leads out of its folder"
    if "" in parts or "." in parts:
        return "an empty name or '.' in its path"
    if any(part.lower() == ".git" for part in parts):
        return "inside a .git folder"
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "a name that is not UTF-8"
    if max(sizes) > _COMPONENT or sum(sizes) + len(sizes) - 1 > _WHOLE:
        return "too long a name"
    return ""
