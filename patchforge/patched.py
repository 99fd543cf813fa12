"""A release or a pack with its patches: what both are, and what is written for either."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

from patchforge import manifest, patches
from patchforge.manifest import PatchedFile, PatchEntry
from patchforge.vocabulary import FileChange, git_blob_id


class Patched(ABC):
    """Something that was converted, patch by patch."""

    @property
    @abstractmethod
    def series(self) -> Mapping[str, Sequence[FileChange]]:
        """The changed files of each patch, by its file name in order; each patch sees those before it."""

    @abstractmethod
    def header(self, name: str) -> str:
        """The DEP-3 header of a patch."""

    @abstractmethod
    def documents(self, written: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Manifest and report by their file names. ``written``: the patches by name."""

    @cached_property
    def before(self) -> dict[str, bytes]:
        """The bytes of every file that some patch changes; added files are missing."""
        first: dict[str, bytes | None] = {}
        for changes in self.series.values():
            for change in changes:
                first.setdefault(change.path, change.before)
        return {path: data for path, data in sorted(first.items()) if data is not None}

    @cached_property
    def after(self) -> dict[str, bytes]:
        """The bytes of every changed or added file after all patches."""
        return {change.path: change.after for changes in self.series.values() for change in changes}

    def patch_files(self, context: int = 0) -> dict[str, bytes]:
        """File name → patch, in the order of the series. ``context`` counts lines around each hunk."""
        if context not in self._rendered:
            self._rendered[context] = {
                name: patches.render(changes, header=self.header(name), context=context)
                for name, changes in self.series.items()
            }
        return dict(self._rendered[context])

    @cached_property
    def _rendered(self) -> dict[int, dict[str, bytes]]:
        return {}

    def patch_entry(self, name: str, purpose: str, written: Mapping[str, bytes]) -> PatchEntry:
        """One patch in a manifest: its digest, and the blob ids of its files before and after it."""
        files = (
            PatchedFile(
                path=manifest.TreePath(change.path),
                before=None if change.before is None else manifest.Blob(git_blob_id(change.before)),
                after=manifest.Blob(git_blob_id(change.after)),
            )
            for change in self.series[name]
        )
        digest = manifest.Sha256(hashlib.sha256(written[name]).hexdigest())
        return PatchEntry(file=manifest.FileName(name), purpose=purpose, sha256=digest, files=tuple(files))

    def files(self, context: int = 0) -> dict[str, bytes]:
        """All that is written: patches, series, manifest and report."""
        written = self.patch_files(context)
        return {**written, "series": patches.series(written), **self.documents(written)}

    def check_applies(self, context: int = 0) -> None:
        """CheckFailed unless all that can read the patches here make the same of them."""
        if self.series:
            rendered = list(self.patch_files(context).values())
            patches.check_every_way(rendered, self.before, self.after, context=context)
