"""Trees read from a tarball, as GitHub makes them or plain. Nothing is unpacked to disk."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Self

from patchforge.sources.archive import MOST_BYTES, MOST_MEMBERS, ArchiveReading, ArchiveTree, Contents
from patchforge.sources.unpack import Unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

_MOST_HEADER = 1 << 15  #: bytes of an extended header
_HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)


class TarTree(ArchiveTree):
    """The tree in a .tar.gz or .tar."""

    kind = "a tarball"
    expected = "a whole .tar.gz or .tar"

    def _read(self, file: IO[bytes]) -> Contents:
        unpacked = io.BufferedReader(Unpacked(file, MOST_BYTES), tarfile.RECORDSIZE)
        reading = ArchiveReading(self.origin, self.kind)
        with tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_Member) as archive:
            for member in _members(archive):
                path = reading.path(member.name)
                if member.isdir():
                    reading.folder(path)
                elif reading.takes(path, _kind(member)):
                    reading.file(path, _bytes_of(archive, member), executable=bool(member.mode & 0o100))
            _require_end(archive)
            return reading.contents(str(archive.pax_headers.get("comment", "")))


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
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _HEADERS and header.size > _MOST_HEADER):
            raise tarfile.ReadError(f"a header says that {header.size} bytes follow")
        return header

    def _sparse(self, *_: object) -> None:
        raise tarfile.ReadError("it has a file with holes (sparse), which releases have not")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse


def _kind(member: tarfile.TarInfo) -> str:
    """Why something is not a file of a tree, or ""."""
    if member.isreg():
        return ""
    return "link" if member.islnk() or member.issym() else "not a file"


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for number, member in enumerate(archive, 1):
        archive.members = []  # type: ignore[attr-defined] # else all of them stay in memory
        if number > MOST_MEMBERS or member.size < 0:
            raise tarfile.ReadError(f"it has more than {MOST_MEMBERS} members, or one of a negative size")
        yield member


def _bytes_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MOST_BYTES:
        raise tarfile.ReadError(f"{member.name} says that it has {member.size} bytes, more than {MOST_BYTES} bytes")
    stream = archive.extractfile(member)
    data = stream.read(member.size) if stream else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name} breaks off after {len(data)} of {member.size} bytes")
    return data


def _require_end(archive: tarfile.TarFile) -> None:
    """Reads to the end, so that checksums are compared; what another program would read there is refused."""
    while data := archive.fileobj.read(1 << 16):
        if data.strip(b"\0"):
            raise tarfile.ReadError("something follows its end")
