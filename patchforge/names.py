"""Names of files that every system can hold, and that stay inside their folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_LONGEST = 255  #: bytes of one name: ext4, APFS and NTFS hold no more
_LONGEST_PATH = 1024  #: bytes of a relative path; Linux allows 4096 with the folder before it
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]|[. ]$')
#: Windows opens a device by these, whatever the ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\..*)?", re.IGNORECASE)
#: Git's own folder, as NTFS and HFS+ also spell it.
_GIT = re.compile(r"\.git|git~[0-9]+", re.IGNORECASE)


def unfit(paths: Iterable[str]) -> dict[str, str]:
    """Those of ``paths`` (relative, POSIX) that cannot be in one folder on every system, each with the reason.

    Of two that one system would take for the same file, the first in order is fit.
    """
    files: set[str] = set()
    folders: set[str] = set()
    found: dict[str, str] = {}
    for path in sorted(paths):
        if reason := _alone(path) or _beside(path, files, folders):
            found[path] = reason
    return found


def _alone(path: str) -> str:
    if len(path.encode("utf-8", "surrogatepass")) > _LONGEST_PATH:
        return f"its path has more than {_LONGEST_PATH} bytes"
    return next((reason for part in path.split("/") if (reason := _part(part))), "")


@lru_cache(maxsize=4096)
def _part(part: str) -> str:
    if part in {"", ".", ".."}:
        return "it is not a plain path inside a folder"
    if _FORBIDDEN.search(part) or not (part.isascii() or _is_text(part)):
        return "its name has characters that not every system allows"
    if len(part.encode()) > _LONGEST:
        return f"its name has more than {_LONGEST} bytes"
    if _DEVICES.fullmatch(part):
        return "its name is a device's on Windows"
    seen = part if part.isascii() else "".join(one for one in part if unicodedata.category(one) != "Cf")
    return "its name is that of git's own folder" if _GIT.fullmatch(seen) else ""


def _is_text(part: str) -> bool:
    """Whether it was UTF-8."""
    return not any("\ud800" <= one <= "\udfff" for one in part)


def _beside(path: str, files: set[str], folders: set[str]) -> str:
    """Notes the path, unless another is in its way."""
    key = unicodedata.normalize("NFC", path.casefold())
    above: list[str] = []
    at = key
    while (at := at.rpartition("/")[0]) and at not in folders:
        above.append(at)
    if key in files:
        return "another file has its name, but for upper and lower case"
    if key in folders or any(one in files for one in above):
        return "its name is a folder's and a file's"
    files.add(key)
    folders.update(above)
    return ""
