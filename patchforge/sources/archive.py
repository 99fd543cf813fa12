"""What a tarball and a ZIP archive share: a tree in memory, with bounds, that every program would read alike."""

from __future__ import annotations

import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from patchforge.errors import Damaged
from patchforge.escape import line
from patchforge.names import folded, odd
from patchforge.paths import not_there
from patchforge.sources.git import Skipped
from patchforge.vocabulary import Entry, git_blob_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import IO

MOST_BYTES = 128 << 20  #: ComfyUI unpacks to 20 MB; what unpacks to more than this is not a release
MOST_MEMBERS = 20_000  #: it has about a thousand
_COMMIT = re.compile("[0-9a-f]{40}")
_OUTSIDE = re.compile(r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)")  #: on any system
#: What Python's readers, and what unpacks below them, raise for bytes that are not as they should be.
MALFORMED = (
    OSError,
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    IndexError,
    OverflowError,
    RecursionError,
    NotImplementedError,
)


class Contents(NamedTuple):
    """All that is read of an archive: path → bytes and mode, what is left out, and the commit that it notes."""

    commit: str
    files: Mapping[str, tuple[bytes, int]]
    skipped: tuple[Skipped, ...]


class ArchiveTree(ABC):
    """The tree in an archive; nothing is unpacked to disk. The one top folder of GitHub's is left off the paths.

    Errors: Damaged for a file that is not such an archive, is cut short, names paths outside itself, or of which two
    programs could read two trees; PatchforgeError where there is none.
    """

    kind = "an archive"
    expected = "a whole .zip, .tar.gz or .tar"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.origin = str(path)

    @property
    def commit(self) -> str:
        """The commit that ``git archive`` noted in it (GitHub's have it); "" when there is none."""
        return self._contents.commit

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Links, devices, and files with names that no tree has; each name on one line, without controls."""
        return self._contents.skipped

    def entries(self) -> Mapping[str, Entry]:
        return self._entries

    def read(self, path: str) -> bytes:
        """The file's bytes; KeyError when there is no such file."""
        return self._contents.files[path][0]

    @cached_property
    def _entries(self) -> Mapping[str, Entry]:
        files = sorted(self._contents.files.items())
        return MappingProxyType({path: Entry(path, git_blob_id(data), mode) for path, (data, mode) in files})

    @cached_property
    def _contents(self) -> Contents:
        require_file(self.path)
        try:
            with self.path.open("rb") as file:
                return self._read(file)
        except MALFORMED as error:
            raise Damaged(
                f"{self.path} cannot be read as {self.kind}",
                expected=self.expected,
                found=_shown(error),
                do="name a release's archive or folder; if this is one, download it again",
            ) from error

    @abstractmethod
    def _read(self, file: IO[bytes]) -> Contents:
        """One of MALFORMED, or Damaged, for what is not as it should be."""


class ArchiveReading:
    """An archive while it is read, member by member."""

    def __init__(self, origin: str, kind: str) -> None:
        self._origin, self._kind = origin, kind
        self._files: dict[str, tuple[bytes, int]] = {}
        self._skipped: list[Skipped] = []
        self._folders: set[str] = set()

    def path(self, name: str) -> str:
        """A member's path in plain form. Damaged for one outside of the archive."""
        if _OUTSIDE.search(name):
            raise Damaged(
                f"{self._origin} names a path outside itself",
                expected="relative paths without '..'",
                found=repr(name)[:300],
                do=f"do not use {self._kind.replace('a ', 'this ', 1)}",
            )
        return "/".join(part for part in name.split("/") if part not in {"", "."})

    def folder(self, path: str) -> None:
        self._folders.add(path)

    def takes(self, path: str, not_a_file: str) -> bool:
        """Whether a file is taken: not what is ``not_a_file`` or has an odd name. Damaged for one that is there."""
        if reason := odd(path) or not_a_file:
            self._skipped.append(Skipped(path, reason))
        elif path in self._files:
            raise self._ambiguous(f"{line(path)} twice")
        return not reason

    def file(self, path: str, data: bytes, *, executable: bool) -> None:
        self._files[path] = data, 0o100755 if executable else 0o100644

    def contents(self, commit: str) -> Contents:
        """Damaged where a file is also a folder, or two files differ only in their capitals."""
        self._require_one_tree()
        top = _top_folder([*self._files, *(each.path for each in self._skipped if not odd(each.path))])
        return Contents(
            commit if _COMMIT.fullmatch(commit) else "",
            {path.removeprefix(top): content for path, content in self._files.items()},
            tuple(sorted((_told(each, top) for each in self._skipped), key=lambda it: it.path)),
        )

    def _require_one_tree(self) -> None:
        spelt: dict[str, str] = {}
        for path in self._files:
            if spelt.setdefault(folded(path), path) != path:
                raise self._ambiguous(f"{line(path)} and {line(spelt[folded(path)])}")
            self._folders.update(path[:at] for at, letter in enumerate(path) if letter == "/")
        if both := sorted(self._folders.intersection({*self._files, *(each.path for each in self._skipped)})):
            raise self._ambiguous(f"{line(both[0])} as a folder and as something else")

    def _ambiguous(self, found: str) -> Damaged:
        return Damaged(
            f"{self._origin} is not a release's archive",
            expected="each file once",
            found=found,
            do=f"do not use {self._kind.replace('a ', 'this ', 1)}",
        )


def require_file(path: Path) -> None:
    """PatchforgeError where there is nothing, Damaged for what is not a file."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise not_there(path, "a release's .zip, .tar.gz or .tar, or its folder") from None
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise Damaged(
            f"{path} cannot be read as an archive", expected="a file", found=found, do="name an archive, or a folder"
        )
    path.open("rb").close()  # a permission is the system's matter, not the archive's


def _shown(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "headers of headers without end"
    return line(str(error))[:300] or type(error).__name__


def _told(skipped: Skipped, top: str) -> Skipped:
    return Skipped(line(skipped.path.removeprefix(top)), skipped.reason)


def _top_folder(paths: Iterable[str]) -> str:
    """The folder that holds every path, with its slash; "" when there is no single one."""
    paths = list(paths)
    tops = {path.partition("/")[0] for path in paths}
    return f"{tops.pop()}/" if len(tops) == 1 and all("/" in path for path in paths) else ""
