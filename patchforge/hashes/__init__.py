"""Hashes that Nix will find, worked out without Nix: of git objects, tarballs, folders and packages of an index."""

from patchforge.hashes.fetchfromgithub import ArchiveHash, SourceNote, of_clone, of_folder, of_tarball
from patchforge.hashes.fetchgit import of_checkout
from patchforge.hashes.nar import Digest, hash_entries, serialise
from patchforge.hashes.objects import IncompleteTreeError
from patchforge.hashes.published_hashes import PublishedHash, published_hashes, refuse_shared
from patchforge.hashes.sri import sri, trusted

__all__ = [
    "ArchiveHash",
    "Digest",
    "IncompleteTreeError",
    "PublishedHash",
    "SourceNote",
    "hash_entries",
    "of_checkout",
    "of_clone",
    "of_folder",
    "of_tarball",
    "published_hashes",
    "refuse_shared",
    "serialise",
    "sri",
    "trusted",
]
