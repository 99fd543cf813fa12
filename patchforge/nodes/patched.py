"""A converted pack as patches, manifest and report; each checked before it leaves."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from patchforge import __version__, escape, patches, resources
from patchforge.errors import CheckFailed
from patchforge.nodes.convert import Converted
from patchforge.nodes.pack import Problem
from patchforge.nodes.report import markdown, summary
from patchforge.nodes.requirements import needs
from patchforge.proof.packs.pairing import Proved, prove
from patchforge.vocabulary import FileChange, git_blob_id

PATCH = "0001-xpu.patch"
_RULES = (
    *("nodes", "transforms/nodes", "pattern.py", "rules.py", "effort.py", "vocabulary.py"),
    *("engine/blocks.py", "engine/edits.py", "engine/prefilter.py", "engine/records.py"),
    *("proof/packs", "proof/reading.py"),
)


@cache
def pack_rules_digest() -> str:
    """SHA-256 over everything that decides what becomes of a pack."""
    digest = hashlib.sha256()
    for name, data in resources.sources(*_RULES):
        digest.update(name.encode() + b"\0" + data + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class PatchedPack:
    """A pack with its patch. Has what patching in place asks for (``checkout.subject.PatchedFiles``)."""

    converted: Converted
    commit: str = ""

    @property
    def before(self) -> dict[str, bytes]:
        """The pack's own bytes of every changed file."""
        return {change.path: change.before for change in self.converted.changes if change.before is not None}

    @property
    def after(self) -> dict[str, bytes]:
        """The bytes of every changed file after the patch."""
        return {change.path: change.after for change in self.converted.changes}

    @cached_property
    def proved(self) -> Proved:
        """The proof over all changed files. CheckFailed names the place that is not proved."""
        total = Proved()
        for change in self.converted.changes:
            one = prove(change.path, change.before or b"", change.after)
            total.expressions += one.expressions
            total.arms += one.arms
        return total

    def patch(self, context: int = 0) -> bytes:
        """The patch with its header."""
        name = escape.line(self.converted.pack.name)
        lines = [
            f"Description: {name} on Intel GPUs (XPU), unchanged on CUDA",
            "Origin: vendor",
            "Author: patchforge",
            "Forwarded: no",
            f"X-Not-Forwarded-Because: {patches.REASON}",
            *([f"X-Upstream-Commit: {self.commit}"] if re.fullmatch("[0-9a-f]{40}", self.commit) else []),
        ]
        return patches.render(self.converted.changes, header="\n".join(lines) + "\n\n", context=context)

    def files(self, context: int = 0) -> dict[str, bytes]:
        """All that is written for a pack."""
        written = self.patch_files(context)
        manifest = self.manifest(context)
        return {
            **written,
            "series": patches.series(written),
            "manifest.json": (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode(),
            "REPORT.md": markdown(manifest).encode(),
        }

    def patch_files(self, context: int = 0) -> dict[str, bytes]:
        """The patch by its name; nothing where nothing is converted."""
        return {PATCH: self.patch(context)} if self.converted.changes else {}

    def manifest(self, context: int = 0) -> dict[str, Any]:
        """What was done and to which bytes; holds no text of the pack's but the names of devices."""
        return {
            **summary(self.converted, needs(self.converted.pack)),
            "format": 1,
            "commit": self.commit,
            "rules": pack_rules_digest(),
            "patchforge": __version__,
            "proof": {"expressions": self.proved.expressions, "arms": self.proved.arms},
            "patches": [self.entry(name, data) for name, data in self.patch_files(context).items()],
        }

    def entry(self, name: str, data: bytes) -> dict[str, Any]:
        """The patch: its digest, and the blob ids of its files before and after it."""
        before = self.before
        return {
            "file": name,
            "purpose": "xpu",
            "sha256": hashlib.sha256(data).hexdigest(),
            "files": [
                {"path": path, "before": git_blob_id(before[path]), "after": git_blob_id(after)}
                for path, after in sorted(self.after.items())
            ],
        }

    def checked(self, context: int = 0) -> PatchedPack:
        """The pack without the files that do not stand ``check``; those become problems, and the rest goes on."""
        try:
            self.check(context)
        except CheckFailed:
            pass
        else:
            return self
        good: list[FileChange] = []
        problems = list(self.converted.problems)
        for change in self.converted.changes:
            try:
                PatchedPack(replace(self.converted, changes=(change,))).check(context)
            except CheckFailed as error:
                problems.append(Problem(change.path, 1, f"{error.problem}; it stays as it is"))
            else:
                good.append(change)
        kept = replace(self.converted, changes=tuple(good), problems=tuple(sorted(problems)))
        PatchedPack(kept).check(context)
        return PatchedPack(kept, self.commit)

    def check(self, context: int = 0) -> None:
        """CheckFailed unless the proof holds, and all that can read the patch here make the same of it."""
        _ = self.proved
        if self.converted.changes:
            patches.check_every_way([self.patch(context)], self.before, self.after, context=context)
