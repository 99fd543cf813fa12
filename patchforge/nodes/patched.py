"""A converted pack as patches, manifest and report; each checked before it leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

from patchforge import __version__, escape, patches
from patchforge.engine.cache import pack_rules_digest
from patchforge.errors import CheckFailed
from patchforge.manifest import NAME, Commit
from patchforge.nodes.convert import Converted
from patchforge.nodes.manifest import FORMAT, PackManifest, ProofSize
from patchforge.nodes.pack import PackProblem
from patchforge.nodes.report import markdown, summary
from patchforge.nodes.requirements import needs
from patchforge.patched import Patched
from patchforge.proof.outside import bytes_outside_edits_equal
from patchforge.proof.packs.pairing import Proved, prove
from patchforge.vocabulary import FileChange

PATCH = "0001-xpu.patch"


@dataclass(frozen=True)
class PatchedPack(Patched):
    """A pack with its patch."""

    converted: Converted
    commit: str = ""

    @cached_property
    def series(self) -> dict[str, Sequence[FileChange]]:
        """The one patch; nothing where nothing is converted."""
        return {PATCH: self.converted.changes} if self.converted.changes else {}

    @cached_property
    def proved(self) -> Proved:
        """The proof over all changed files. CheckFailed names the place that is not proved."""
        total = Proved()
        for change in self.converted.changes:
            proof = prove(change.path, change.before or b"", change.after)
            total.expressions += proof.expressions
            total.arms += proof.arms
        return total

    def header(self, name: str) -> str:  # noqa: ARG002 - there is one patch
        """The DEP-3 header of the patch."""
        lines = [
            f"Description: {escape.line(self.converted.pack.name)} on Intel GPUs (XPU), unchanged on CUDA",
            "Origin: vendor",
            "Author: patchforge",
            "Forwarded: no",
            f"X-Not-Forwarded-Because: {patches.REASON}",
            *([f"X-Upstream-Commit: {self.commit}"] if re.fullmatch("[0-9a-f]{40}", self.commit) else []),
        ]
        return "\n".join(lines) + "\n\n"

    def manifest(self, written: Mapping[str, bytes] | None = None) -> PackManifest:
        """What was done and to which bytes; ``written``: the patches by name."""
        rendered = self.patch_files() if written is None else written
        report = summary(self.converted, needs(self.converted.pack))
        return PackManifest(
            **{field.name: getattr(report, field.name) for field in fields(report)},
            commit=Commit(self.commit),
            rules=pack_rules_digest(),
            patchforge=__version__,
            proof=ProofSize(self.proved.expressions, self.proved.arms),
            patches=tuple(self.patch_entry(name, "xpu", rendered) for name in self.series),
        )

    def documents(self, written: Mapping[str, bytes]) -> dict[str, bytes]:
        """Manifest and report."""
        made = self.manifest(written)
        return {NAME: FORMAT.dump(made), "REPORT.md": markdown(made).encode()}

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
                problems.append(PackProblem(change.path, 1, f"{error.problem}; it stays as it is"))
            else:
                good.append(change)
        kept = replace(self.converted, changes=tuple(good), problems=tuple(sorted(problems)))
        PatchedPack(kept).check(context)
        return PatchedPack(kept, self.commit)

    def check(self, context: int = 0) -> None:
        """CheckFailed unless the proof holds, and all that can read the patch here make the same of it."""
        for change in self.converted.changes:
            bytes_outside_edits_equal(change)
        _ = self.proved
        self.check_applies(context)
