"""A release from files that somebody has: a folder, a ZIP archive or a tarball."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchforge.sources.archive import ArchiveTree, require_file
from patchforge.sources.folder import FolderTree
from patchforge.sources.tarball import TarTree
from patchforge.sources.zipped import ZipTree

if TYPE_CHECKING:
    from pathlib import Path

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def open_files(path: Path, *, whole: bool = False) -> FolderTree | ArchiveTree:
    """The tree at ``path``; what a file is tells its beginning. Errors as for the trees.

    ``whole``: of a folder also the files of a release that lie among a user's own.
    """
    if path.is_dir():
        return FolderTree(path, whole=whole)
    require_file(path)
    with path.open("rb") as file:
        beginning = file.read(4)
    return ZipTree(path) if beginning in _ZIP else TarTree(path)
