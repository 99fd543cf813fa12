"""Trees read from a tarball, as GitHub makes them or plain. Nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
import zlib
from functools import cached_property
from pathlib import PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from patchforge.errors import PatchforgeError
from patchforge.sources.git import Skipped
from patchforge.vocabulary import Entry, git_blob_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_MOST_BYTES = 1 << 30  #: ComfyUI unpacks to 20 MB; what unpacks to more than this is no release


class _Contents(NamedTuple):
    commit: str
    files: dict[str, tuple[bytes, int]]
    skipped: tuple[Skipped, ...]


class TarTree:
    """The tree in a .tar.gz or .tar. The one top folder of a GitHub tarball is left off the paths.

    Errors: PatchforgeError for a file that is no tarball, is cut short, or names paths outside itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.origin = str(path)

    @property
    def commit(self) -> str:
        """The commit that ``git archive`` noted in the tarball (GitHub's have it); "" when there is none."""
        return self._contents.commit

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Links and devices."""
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
    def _contents(self) -> _Contents:
        try:
            with tarfile.open(self.path, "r:*") as archive:
                return _read_all(archive, self.origin)
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise PatchforgeError(
                f"{self.path} cannot be read as a tarball",
                expected="a whole .tar.gz or .tar",
                found=str(error) or type(error).__name__,
                do="download it again",
            ) from error


def _read_all(archive: tarfile.TarFile, origin: str) -> _Contents:
    files: dict[str, tuple[bytes, int]] = {}
    skipped = []
    left = _MOST_BYTES
    for member, path in _members(archive, origin):
        if not member.isreg():
            skipped.append(Skipped(path, "link" if member.islnk() or member.issym() else "not a file"))
            continue
        left -= member.size
        if path in files or left < 0:
            found = f"{path} twice" if path in files else f"more than {_MOST_BYTES} bytes"
            raise PatchforgeError(f"{origin} is not a release's tarball", expected="each file once", found=found)
        files[path] = _bytes_of(archive, member), 0o100755 if member.mode & 0o100 else 0o100644
    top = _top_folder([*files, *(each.path for each in skipped)])
    return _Contents(
        archive.pax_headers.get("comment", ""),
        {path.removeprefix(top): content for path, content in files.items()},
        tuple(sorted((Skipped(each.path.removeprefix(top), each.reason) for each in skipped), key=lambda it: it.path)),
    )


def _members(archive: tarfile.TarFile, origin: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Everything but folders, with its path in plain form."""
    for member in archive:
        path, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
        if path.is_absolute() or windows.anchor or ".." in windows.parts:
            raise PatchforgeError(
                f"{origin} names a path outside itself",
                expected="relative paths without '..'",
                found=repr(member.name),
                do="do not use this tarball",
            )
        if not member.isdir():
            yield member, str(path)


def _bytes_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    data = stream.read() if stream else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name} breaks off after {len(data)} of {member.size} bytes")
    return data


def _top_folder(paths: list[str]) -> str:
    """The folder that holds every path, with its slash; "" when there is no single one."""
    tops = {path.partition("/")[0] for path in paths}
    return f"{tops.pop()}/" if len(tops) == 1 and all("/" in path for path in paths) else ""
