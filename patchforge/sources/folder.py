"""Trees read from a folder of plain files, such as an installed ComfyUI."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from patchforge.errors import Damaged, SystemFault
from patchforge.escape import line
from patchforge.names import odd
from patchforge.paths import need_folder
from patchforge.sources.git import Skipped
from patchforge.vocabulary import Entry, git_blob_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_BYTES = 256 << 20
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would change line ends
_AGAIN = "run this again when nothing else changes the folder"
LINK = "symbolic link"
_MOVE = "move it out of the folder"
_NOT_UPSTREAMS = "not upstream's"
_NEVER = frozenset({".git", "__pycache__", ".venv", "venv", "node_modules"})
#: A user's own files. At the top only: upstream's comfy/ldm/models and comfy_api/input are code.
_NEVER_AT_TOP = frozenset({"models", "output", "input", "temp", "user", "custom_nodes"})
#: What releases have in those: v0.0.1 to v0.33.0, and a placeholder for each kind of model to come.
_OWN_THERE = re.compile(
    r"custom_nodes/(example_node\.py\.example|websocket_image_save\.py)|input/example\.png"
    r"|models/configs/(anything_v3|v[12]-[\w-]*inference[\w-]*)\.yaml|models/\w+/put_\w+_here"
    r"|output/_output_images_will_be_put_here"
)
JOURNALS = ".patchforge"  #: what patchforge keeps at the top of a folder begins with this


@dataclass(frozen=True, slots=True)
class UsersFolder:
    """A folder with files that are a user's, or a program's, and no release's; for a link to one there are none."""

    path: str
    files: int = 0
    bytes: int = 0
    whole: bool = True  #: False where a part of it may not be read
    link: bool = False


class FolderTree:
    """The tree in a folder, without a user's own files (models, output, custom_nodes, …).

    Files are hashed when their entry is asked for, so that listing a folder with large files stays quick. A ``whole``
    one also has the files of a release that lie among a user's, such as ``input/example.png``; for that it lists those
    folders, and else nothing looks into them.
    """

    def __init__(self, path: Path, *, whole: bool = False) -> None:
        """PatchforgeError when ``path`` is not a folder."""
        need_folder(path)
        self.path = path
        self.origin = str(path)
        self._whole = whole

    def entries(self) -> Mapping[str, Entry]:
        return self._entries

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Links, special files, and folders that are not upstream's."""
        return self._found[1]

    @cached_property
    def users(self) -> tuple[UsersFolder, ...]:
        """The folders of a user with what is in them and no release's; without those that have nothing of the kind."""
        return tuple(self._users())

    def _users(self) -> Iterator[UsersFolder]:
        for skipped in self._found[1]:
            if skipped.reason == LINK and skipped.path in _NEVER_AT_TOP:
                yield UsersFolder(skipped.path, link=True)
            elif skipped.reason == _NOT_UPSTREAMS and not _is_of_course(skipped.path):
                folder = _listed(self.path, skipped.path)[1]
                if folder.files or not folder.whole:
                    yield folder

    @property
    def unread(self) -> tuple[Skipped, ...]:
        """What is skipped and may be a release's."""
        return tuple(each for each in self.skipped if each.reason != _NOT_UPSTREAMS and each.path not in _NEVER_AT_TOP)

    def read(self, path: str) -> bytes:
        """The file's bytes as they are now; KeyError when there was no such file."""
        return _bytes(self._found[0][path])

    @cached_property
    def _entries(self) -> Mapping[str, Entry]:
        return _HashedOnDemand(self._found[0])

    @cached_property
    def _found(self) -> tuple[dict[str, Path], tuple[Skipped, ...]]:
        entries = sorted(_walk(self.path), key=lambda item: item[0])
        files = {path: self.path / path for path, reason in entries if not reason}
        for top in sorted(_NEVER_AT_TOP) if self._whole else ():
            if (self.path / top).is_dir() and not (self.path / top).is_symlink():
                files.update((path, self.path / path) for path in _listed(self.path, top)[0])
        return dict(sorted(files.items())), tuple(Skipped(path, reason) for path, reason in entries if reason)


class _HashedOnDemand(Mapping[str, Entry]):
    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files
        self._known: dict[str, Entry] = {}

    def __getitem__(self, path: str) -> Entry:
        if path not in self._known:
            file = self._files[path]
            data = _bytes(file)
            mode = 0o100755 if file.lstat().st_mode & 0o100 else 0o100644
            self._known[path] = Entry(path, git_blob_id(data), mode)
        return self._known[path]

    def __contains__(self, path: object) -> bool:
        return path in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _bytes(file: Path) -> bytes:
    """What is in a file that was listed; it may be something else by now: no link is followed, no pipe waited for."""
    try:
        number = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    except FileNotFoundError:
        raise SystemFault(f"{file} vanished while the folder was read", do=_AGAIN) from None
    with open(number, "rb") as opened:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise SystemFault(f"{file} has become something else while the folder was read", do=_AGAIN)
        data = opened.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise Damaged(f"{file} is too large for a file of a release", expected=f"at most {_MOST_BYTES} bytes", do=_MOVE)
    return data


def _walk(top: Path) -> Iterator[tuple[str, str]]:
    """Each path below ``top``, with the reason to skip it or "". Folders that cannot be read are an error."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(top / prefix) as items:
            for item in items:
                path = prefix + item.name
                if reason := odd(path) if item.name != ".git" else _NOT_UPSTREAMS:
                    yield line(path), reason
                elif item.is_symlink():
                    yield path, LINK
                elif not item.is_dir():
                    yield path, "" if item.is_file() else "not a file"
                elif item.name in _NEVER or (not prefix and _is_not_upstreams(item.name)):
                    yield path, _NOT_UPSTREAMS
                else:
                    waiting.append(path + "/")


def _is_not_upstreams(name: str) -> bool:
    return name in _NEVER_AT_TOP or name.startswith(JOURNALS)


def _is_of_course(path: str) -> bool:
    """What nobody expects in another tree: what Python compiled, and what git and patchforge keep."""
    return path.rpartition("/")[2] in {"__pycache__", ".git"} or path.startswith(JOURNALS)


def _listed(top: Path, name: str) -> tuple[list[str], UsersFolder]:
    """A release's own files in a user's folder, and how much else there is. No link is followed."""
    own: list[str] = []
    files = size = 0
    whole, waiting = True, [name]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(top / folder) as items:
                for item in items:
                    path = f"{folder}/{item.name}"
                    if item.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    elif _OWN_THERE.fullmatch(path) and item.is_file(follow_symlinks=False):
                        own.append(path)
                    else:
                        files += 1
                        size += item.stat(follow_symlinks=False).st_size
        except OSError:
            whole = False
    return own, UsersFolder(name, files, size, whole)
