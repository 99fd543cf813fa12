"""Trees read from a tarball, as GitHub makes them or plain. Nothing is unpacked to disk."""

from __future__ import annotations

import io
import lzma
import re
import stat
import tarfile
import zlib
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Self

from patchforge.errors import Damaged, PatchforgeError
from patchforge.escape import line
from patchforge.names import odd
from patchforge.sources.git import Skipped
from patchforge.sources.unpack import Unpacked
from patchforge.vocabulary import Entry, git_blob_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import IO

_MOST_BYTES = 128 << 20  #: ComfyUI unpacks to 20 MB; what unpacks to more than this is not a release
_MOST_MEMBERS = 20_000  #: it has about a thousand
_MOST_HEADER = 1 << 15  #: bytes of an extended header
_HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_COMMIT = re.compile("[0-9a-f]{40}")
_OUTSIDE = re.compile(r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)")  #: on any system
#: What Python's reader, and what unpacks below it, raise for bytes that are not as they should be.
_MALFORMED = (
    OSError,
    EOFError,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    IndexError,
    OverflowError,
    RecursionError,
)


class _Contents(NamedTuple):
    commit: str
    files: dict[str, tuple[bytes, int]]
    skipped: tuple[Skipped, ...]


class TarTree:
    """The tree in a .tar.gz or .tar. The one top folder of a GitHub tarball is left off the paths.

    Errors: Damaged for a file that is not a tarball, is cut short, names paths outside itself, or of which two programs
    could read two trees; PatchforgeError where there is none.
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
    def _contents(self) -> _Contents:
        _require_file(self.path)
        try:
            with self.path.open("rb") as file:
                return _read_all(file, self.origin)
        except _MALFORMED as error:
            raise Damaged(
                f"{self.path} cannot be read as a tarball",
                expected="a whole .tar.gz or .tar",
                found=_shown(error),
                do="name a release's tarball or folder; if this is one, download it again",
            ) from error


def _require_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise PatchforgeError(
            f"{path} is not there", expected="a release's .tar.gz or .tar, or its folder", do="check the path"
        ) from None
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise Damaged(f"{path} cannot be read as a tarball", expected="a file", found=found)
    path.open("rb").close()  # a permission is the system's matter, not the tarball's


def _shown(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "headers of headers without end"
    return line(str(error))[:300] or type(error).__name__


class _Member(tarfile.TarInfo):
    """A header that is read strictly: what tarfile takes for the end, though it is damage, is an error."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error) or "a header is not whole") from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in _HEADERS and found.size > _MOST_HEADER):
            raise tarfile.ReadError(f"a header says that {found.size} bytes follow")
        return found

    def _sparse(self, *_: object) -> None:
        raise tarfile.ReadError("it has a file with holes (sparse), which releases have not")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse


def _read_all(file: IO[bytes], origin: str) -> _Contents:
    unpacked = io.BufferedReader(Unpacked(file, _MOST_BYTES), tarfile.RECORDSIZE)
    files: dict[str, tuple[bytes, int]] = {}
    skipped: list[Skipped] = []
    folders: set[str] = set()
    with tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_Member) as archive:
        for member, path in _members(archive, origin):
            if member.isdir():
                folders.add(path)
            elif reason := odd(path) or _kind(member):
                skipped.append(Skipped(path, reason))
            elif path in files:
                raise _ambiguous(origin, f"{line(path)} twice")
            else:
                files[path] = _bytes_of(archive, member), 0o100755 if member.mode & 0o100 else 0o100644
        _require_end(archive)
        commit = str(archive.pax_headers.get("comment", ""))
    _require_one_tree(origin, files, folders, {each.path for each in skipped})
    top = _top_folder([*files, *(each.path for each in skipped if not odd(each.path))])
    return _Contents(
        commit if _COMMIT.fullmatch(commit) else "",
        {path.removeprefix(top): content for path, content in files.items()},
        tuple(sorted((_told(each, top) for each in skipped), key=lambda it: it.path)),
    )


def _told(one: Skipped, top: str) -> Skipped:
    return Skipped(line(one.path.removeprefix(top)), one.reason)


def _kind(member: tarfile.TarInfo) -> str:
    """Why something is not a file of a tree, or ""."""
    if member.isreg():
        return ""
    return "link" if member.islnk() or member.issym() else "not a file"


def _members(archive: tarfile.TarFile, origin: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Everything, with its path in plain form."""
    for number, member in enumerate(archive, 1):
        archive.members = []  # type: ignore[attr-defined] # else all of them stay in memory
        if _OUTSIDE.search(member.name):
            raise Damaged(
                f"{origin} names a path outside itself",
                expected="relative paths without '..'",
                found=repr(member.name)[:300],
                do="do not use this tarball",
            )
        if number > _MOST_MEMBERS or member.size < 0:
            raise tarfile.ReadError(f"it has more than {_MOST_MEMBERS} members, or one of a negative size")
        yield member, "/".join(part for part in member.name.split("/") if part not in {"", "."})


def _bytes_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _MOST_BYTES:
        raise tarfile.ReadError(f"{member.name} says that it has {member.size} bytes, more than {_MOST_BYTES} bytes")
    stream = archive.extractfile(member)
    data = stream.read() if stream else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name} breaks off after {len(data)} of {member.size} bytes")
    return data


def _require_end(archive: tarfile.TarFile) -> None:
    """Reads to the end, so that checksums are compared; what another program would read there is refused."""
    while data := archive.fileobj.read(1 << 16):
        if data.strip(b"\0"):
            raise tarfile.ReadError("something follows its end")


def _require_one_tree(origin: str, files: Iterable[str], folders: set[str], others: set[str]) -> None:
    """Damaged where a file is also a folder, or two files differ only in their capitals."""
    spelt: dict[str, str] = {}
    for path in files:
        if spelt.setdefault(path.casefold(), path) != path:
            raise _ambiguous(origin, f"{line(path)} and {line(spelt[path.casefold()])}")
        folders.update(path[:at] for at, one in enumerate(path) if one == "/")
    if both := sorted(folders.intersection({*files, *others})):
        raise _ambiguous(origin, f"{line(both[0])} as a folder and as something else")


def _ambiguous(origin: str, found: str) -> Damaged:
    return Damaged(
        f"{origin} is not a release's tarball", expected="each file once", found=found, do="do not use this tarball"
    )


def _top_folder(paths: list[str]) -> str:
    """The folder that holds every path, with its slash; "" when there is no single one."""
    tops = {path.partition("/")[0] for path in paths}
    return f"{tops.pop()}/" if len(tops) == 1 and all("/" in path for path in paths) else ""
