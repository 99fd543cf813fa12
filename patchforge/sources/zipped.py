"""Trees read from a ZIP archive, as GitHub's "Download ZIP" gives them. Nothing is unpacked to disk."""

from __future__ import annotations

import stat
import zipfile
from typing import TYPE_CHECKING

from patchforge.sources.archive import MOST_BYTES, MOST_MEMBERS, ArchiveReading, ArchiveTree, Contents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

_END = b"PK\x05\x06"  #: of the record at the archive's end, which has 22 bytes and a comment
_END_SIZE, _HEADER_SIZE = 22, 30
_ENCRYPTED = 0x1
_UNIX = 3
_WAYS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipTree(ArchiveTree):
    """The tree in a .zip. The list at its end is what counts, and each member must stand where that says."""

    kind = "a ZIP archive"
    expected = "a whole .zip"

    def _read(self, file: IO[bytes]) -> Contents:
        reading, left = ArchiveReading(self.origin, self.kind), MOST_BYTES
        with zipfile.ZipFile(file) as archive:
            _require_nothing_else(file, archive)
            for member in _members(archive):
                path = reading.path(member.orig_filename)
                if member.orig_filename.endswith("/"):
                    reading.folder(path)
                elif reading.takes(path, _not_a_file(member)):
                    data = _bytes_of(archive, member, left)
                    left -= len(data)
                    reading.file(path, data, executable=bool(_mode(member) & 0o100))
            return reading.contents(archive.comment.decode("ascii", "replace"))


def _members(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    """Everything in the list. BadZipFile where members lie in each other, as in a bomb."""
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise zipfile.BadZipFile(f"it has more than {MOST_MEMBERS} members")
    end = 0
    for member in sorted(members, key=lambda info: info.header_offset):
        if member.header_offset < end:
            raise zipfile.BadZipFile("two members share their bytes")
        end = member.header_offset + _HEADER_SIZE + member.compress_size
    return iter(members)


def _require_nothing_else(file: IO[bytes], archive: zipfile.ZipFile) -> None:
    """BadZipFile for bytes before the first member or after the end, where another program would look."""
    first = min((member.header_offset for member in archive.infolist()), default=0)
    file.seek(-_END_SIZE - len(archive.comment), 2)
    if first or file.read(len(_END)) != _END:
        raise zipfile.BadZipFile("something comes before its beginning or follows its end")


def _mode(member: zipfile.ZipInfo) -> int:
    """What Unix would give the file; 0 where another system wrote it."""
    return member.external_attr >> 16 if member.create_system == _UNIX else 0


def _not_a_file(member: zipfile.ZipInfo) -> str:
    """Why a member is not a file of a tree, or ""."""
    kind = stat.S_IFMT(_mode(member))
    if kind in (0, stat.S_IFREG):
        return ""
    return "link" if kind == stat.S_IFLNK else "not a file"


def _bytes_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """BadZipFile for what is locked, packed in a rare way, too large, or not as large as the list says."""
    if member.flag_bits & _ENCRYPTED:
        raise zipfile.BadZipFile("it is locked with a password")
    if member.compress_type not in _WAYS:
        raise zipfile.BadZipFile(f"a member is packed in way {member.compress_type}, which releases are not")
    if member.file_size > most:
        raise zipfile.BadZipFile(f"it unpacks to more than {MOST_BYTES} bytes")
    with archive.open(member) as stream:
        data = stream.read(member.file_size + 1)
    if len(data) != member.file_size:
        raise zipfile.BadZipFile(f"a member has not the {member.file_size} bytes that the list says")
    return data
