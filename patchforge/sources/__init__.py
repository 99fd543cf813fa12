"""Where a release's files come from: git objects, an archive or a folder. Nothing is checked out or unpacked."""

from patchforge.sources.archive import ArchiveTree
from patchforge.sources.files import open_files
from patchforge.sources.folder import FolderTree
from patchforge.sources.git import GitObjects, GitTree, Skipped
from patchforge.sources.missing import MissingBlobError
from patchforge.sources.tarball import TarTree
from patchforge.sources.upstream import Upstream, open_upstream
from patchforge.sources.zipped import ZipTree

__all__ = [
    "ArchiveTree",
    "FolderTree",
    "GitObjects",
    "GitTree",
    "MissingBlobError",
    "Skipped",
    "TarTree",
    "Upstream",
    "ZipTree",
    "open_files",
    "open_upstream",
]
