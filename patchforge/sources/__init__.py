"""Where a release's files come from: git objects, a tarball or a folder. Nothing is checked out or unpacked."""

from patchforge.sources.folder import FolderTree
from patchforge.sources.git import GitObjects, GitTree, Skipped
from patchforge.sources.missing import MissingBlobError
from patchforge.sources.tarball import TarTree
from patchforge.sources.upstream import Upstream, open_upstream

__all__ = [
    "FolderTree",
    "GitObjects",
    "GitTree",
    "MissingBlobError",
    "Skipped",
    "TarTree",
    "Upstream",
    "open_upstream",
]
