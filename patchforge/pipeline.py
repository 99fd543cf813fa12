"""From a release to what is written for it: patches, series, manifest and report, each checked before it leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from patchforge import __version__, caches, manifest, patches, progress, resources, templating
from patchforge.engine.cache import FILES, Cache, rule_set_digest
from patchforge.engine.convert import Conversion, Engine, Report
from patchforge.errors import CheckFailed, Drifted, PatchforgeError
from patchforge.manifest import (
    ClaimedSite,
    Manifest,
    ReplacedLine,
    Sites,
    TransformEntry,
    UndecidedSite,
)
from patchforge.names import unfit
from patchforge.outputs import write_new
from patchforge.patched import Patched
from patchforge.project import load_project, release_index
from patchforge.sources.git import Skipped
from patchforge.sources.missing import MissingBlobError
from patchforge.transform import HOOKS, Transform
from patchforge.vocabulary import (
    Decision,
    Entry,
    FileChange,
    Outcome,
    Purpose,
    Release,
    Segment,
    Tree,
    git_blob_id,
    split_lines,
)

NO_CONTENT = "the clone has no content for it; the patches do not need it"
UPDATE = "git pull in its folder, then pip install . there"  #: how a person updates patchforge
RUNTIME = f"comfy/{HOOKS}"  #: where the package of hooks goes in the patched project

#: What decisions are called in the documents of a release.
DECISIONS = {Decision.CONVERTED: "claimed", Decision.LEFT: "left", Decision.PERSON: "unclaimed"}
_SUBJECTS = {
    Purpose.DEVICE: "Detect, choose and ask Intel GPUs by themselves",
    Purpose.MEMORY: "Estimate XPU memory honestly and recover when it runs out",
    Purpose.MODEL: "Attention, dtypes and optimisation on XPU",
    Purpose.CUDA_ONLY: "XPU arms beside calls that only CUDA had",
}


class OverlayTree:
    """A tree with some files changed or added."""

    def __init__(self, base: Tree, files: Mapping[str, bytes]) -> None:
        self.base, self.files = base, files

    @property
    def origin(self) -> str:
        """Where the tree below is read from."""
        return f"{self.base.origin}, patched"

    def entries(self) -> Mapping[str, Entry]:
        """The base's files and the changed ones."""
        changed = {path: Entry(path, git_blob_id(data)) for path, data in self.files.items()}
        return dict(sorted({**self.base.entries(), **changed}.items()))

    def read(self, path: str) -> bytes:
        """The changed bytes, or the base's."""
        return self.files[path] if path in self.files else self.base.read(path)


def write_whole(tree: Tree, target: Path, inputs: Iterable[Path] = ()) -> list[Skipped]:
    """Writes all files of a tree into a new or empty folder; returns those that are not written, with the reason.

    Those are files that the clone has no content for, and names that not every system can hold. CheckFailed when a
    file of ours is among them.
    """
    entries = tree.entries()
    left_out = unfit(entries)
    files: dict[str, bytes] = {}
    for path in entries:
        if path not in left_out:
            try:
                files[path] = tree.read(path)
            except MissingBlobError:
                left_out[path] = NO_CONTENT
    if lost := sorted(left_out.keys() & set(tree.files if isinstance(tree, OverlayTree) else ())):
        raise CheckFailed(f"{lost[0]} cannot be written", expected="every patched file", found=left_out[lost[0]])
    executable = {path for path in files if entries[path].mode & 0o100}
    write_new(target, files, executable=executable, inputs=inputs)
    return [Skipped(path, reason) for path, reason in sorted(left_out.items())]


@dataclass(frozen=True)
class PatchedRelease(Patched):
    """A release with its patches. ``changes`` holds, patch by patch, the files before and after."""

    conversion: Conversion
    changes: Mapping[Purpose, Sequence[FileChange]]
    transforms: tuple[Transform, ...]

    @property
    def release(self) -> Release:
        """The release that was patched."""
        return self.conversion.release

    @property
    def tree(self) -> OverlayTree:
        """The patched tree."""
        return OverlayTree(self.conversion.tree, self.after)

    @cached_property
    def series(self) -> dict[str, Sequence[FileChange]]:
        """The changed files of each patch, by its file name."""
        return {patches.file_name(purpose): changes for purpose, changes in self.changes.items()}

    def header(self, name: str) -> str:
        """The DEP-3 header of a patch."""
        purpose = next(purpose for purpose in self.changes if patches.file_name(purpose) == name)
        gaps = {
            transform.id: transform.title
            for transform in self.transforms
            if transform.purpose is purpose and self.applied(transform)
        }
        return patches.header(purpose, _SUBJECTS[purpose], gaps, self.release)

    def applied(self, transform: Transform) -> bool:
        """Whether the transform edited this release."""
        return self.report_of(transform.id).outcome is Outcome.APPLIED

    def report_of(self, name: str) -> Report:
        """The report of one transform."""
        return next(report for report in self.conversion.reports if report.transform == name)

    def documents(self, written: Mapping[str, bytes]) -> dict[str, bytes]:
        """Manifest and report."""
        made = self.manifest(written)
        return {manifest.NAME: manifest.FORMAT.dump(made), "REPORT.md": templating.report("release", made).encode()}

    def manifest(self, written: Mapping[str, bytes]) -> Manifest:
        """What was done and to which bytes; ``written``: the patches by name."""
        return Manifest(
            project="comfyui",
            release=manifest.Named(str(self.release.version)),
            commit=manifest.Commit(self.release.commit),
            rules=rule_set_digest(),
            patchforge=__version__,
            patches=tuple(
                self.patch_entry(patches.file_name(purpose), purpose.value, written) for purpose in self.changes
            ),
            transforms=tuple(map(self.transform_entry, self.transforms)),
            sites=self.sites,
        )

    def transform_entry(self, transform: Transform) -> TransformEntry:
        """One transform: outcome, expectation and the places it claims."""
        report = self.report_of(transform.id)
        edits: Counter[str] = Counter()
        for _, place in report.found:
            edits.update(dict(place.edits))
        return TransformEntry(
            id=transform.id,
            title=transform.title,
            patch=transform.purpose.value,
            outcome=report.outcome.value,
            expected=report.expected.value,
            opt_in=transform.opt_in,
            edits=dict(sorted(edits.items())),
            sites=tuple(ClaimedSite(path, place.line, place.function, place.note) for path, place in report.found),
            replaced=tuple(
                ReplacedLine(path, place.line, ours) for path, place in report.found for _, ours in place.replaced
            ),
        )

    @property
    def sites(self) -> Sites:
        """Completeness as a number, and every site that nobody has decided about."""
        sites = self.conversion.sites
        counts = Counter(site.decision for site in sites)
        reasons = Counter(site.reason for site in sites if site.decision is Decision.LEFT)
        return Sites(
            claimed=counts[Decision.CONVERTED],
            left=counts[Decision.LEFT],
            unclaimed=counts[Decision.PERSON],
            reasons=dict(sorted(reasons.items())),
            undecided=tuple(
                UndecidedSite(site.path, site.line, site.function, site.kind, site.text)
                for site in self.conversion.unclaimed
            ),
        )


def make_engine(*, keep: bool = True, jobs: int | None = None) -> Engine:
    """The engine with all transforms. ``keep``: with the user's cache; ``jobs``: processes, one per core without."""
    from patchforge.engine.sites import load_decisions  # noqa: PLC0415 - libcst is slow to import
    from patchforge.rules import transforms  # noqa: PLC0415

    cache = Cache(caches.folder_or_none("results") if keep else None, FILES)
    return Engine(transforms(), load_decisions(resources.path("upstream/comfyui.sites.toml")), cache, jobs)


def convert(engine: Engine, release: Release, tree: Tree, *, edited: bool = False) -> PatchedRelease:
    """Converts a release. Drifted, with what was expected and what stands there, when a person must look.

    ``edited``: the tree is in somebody's hands, so what does not fit a release that is known is an edit (CheckFailed).
    """
    progress.step(f"converting ComfyUI {release.version}")
    conversion = engine.convert(release, tree)
    if edited and conversion.drifted:
        raise _edited(conversion)
    return patch(conversion, engine.transforms)


def _edited(conversion: Conversion) -> PatchforgeError:
    version = conversion.release.version
    newest = max(release.version for release in release_index(load_project()))
    drifts = "\n" + "\n".join(describe_drift(report) for report in conversion.drifted)
    if version > newest:
        return Drifted(
            f"ComfyUI {version} is new: this patchforge knows releases up to {newest}, and does not fit it",
            found=drifts,
            do=f"update patchforge ({UPDATE}); until it knows {version}, use {newest}",
        )
    paths = sorted({drift.path for report in conversion.drifted for drift in report.drifts})
    return CheckFailed(
        f"{', '.join(paths)} {'differs' if len(paths) == 1 else 'differ'} from ComfyUI {version}: your edit?",
        expected=f"what {version} has at the places that patchforge changes",
        found=drifts,
        do=f"keep your edit, put {version}'s own file in its place, run this again, and then make the edit anew",
    )


def patch(conversion: Conversion, transforms: tuple[Transform, ...]) -> PatchedRelease:
    """The patches of a conversion; raises as ``convert`` does."""
    release, tree = conversion.release, conversion.tree
    if conversion.drifted:
        raise Drifted(
            f"{release.version}: {len(conversion.drifted)} transform(s) drifted",
            found="\n" + "\n".join(describe_drift(report) for report in conversion.drifted),
            do="use a release that patchforge knows, with its own files; where upstream changed them, "
            "adapt the transform (patchforge explain ID) and its examples",
        )
    if any(path.startswith(f"{RUNTIME}/") or path == f"{RUNTIME}.py" for path in tree.entries()):
        raise CheckFailed(
            f"{tree.origin} has {RUNTIME} already",
            expected="an unpatched release",
            do="take it out with patchforge revert, or move it away",
        )
    changes: dict[Purpose, list[FileChange]] = {}
    for purpose in Purpose:
        if edited := conversion.changes.get(purpose):
            changes[purpose] = [*([] if changes else runtime_changes()), *edited]
    return PatchedRelease(conversion, changes, transforms)


def runtime_changes() -> list[FileChange]:
    """The package of hooks as added files."""
    return [_added(f"{RUNTIME}/{path.name}", path.read_bytes()) for path in runtime_files()]


def runtime_files() -> list[Path]:
    """The files of the package of hooks, sorted."""
    return sorted(resources.path(f"transforms/runtime/{HOOKS}").glob("*.py"))


def _added(path: str, data: bytes) -> FileChange:
    return FileChange(path, None, data, (Segment(0, 0, tuple(split_lines(data))),))


def describe_drift(report: Report) -> str:
    """Both code fragments of every drift of one transform."""
    lines: list[str] = []
    for drift in report.drifts:
        place = f"{drift.path}:{drift.line}" if drift.line else drift.path
        lines += [f"  {report.transform} {place}", f"    expected: {drift.expected}"]
        lines += [f"    found:    {line}" for line in drift.found.splitlines()[:12] or ["nothing there"]]
    return "\n".join(lines)


def check(patched: PatchedRelease, context: int = 0) -> None:
    """All that must hold of a patched release, without running it. CheckFailed names what does not.

    Every result compiles and has upstream's syntax tree once our hooks are taken away, a second run edits nothing, and
    patchforge's own reader makes the same bytes of the patches as GNU patch and git, where those are installed.
    """
    progress.step("proving that other devices run what they ran")
    check_untouched(patched)
    progress.step("converting it a second time, which must change nothing")
    check_fixed_point(patched)
    progress.step("applying and undoing the patches in every way")
    patched.check_applies(context)


def check_untouched(patched: PatchedRelease) -> None:
    """The static proof: every result parses, and without our hooks its syntax tree is upstream's.

    Bytes outside of edits are upstream's too, in each patch.
    """
    from patchforge.proof.differences import Replacement  # noqa: PLC0415 - only a check needs the proofs
    from patchforge.proof.outside import bytes_outside_edits_equal  # noqa: PLC0415
    from patchforge.proof.static import prove  # noqa: PLC0415

    for changes in patched.changes.values():
        for change in changes:
            bytes_outside_edits_equal(change)
    replaced = tuple(
        Replacement(path, *pair)
        for report in patched.conversion.reports
        for path, place in report.found
        for pair in place.replaced
    )
    for path, data in patched.before.items():
        prove(path, data, patched.after[path], replaced)


def check_fixed_point(patched: PatchedRelease) -> None:
    """CheckFailed when a second run over the result would edit anything."""
    from patchforge.engine.files import look_at  # noqa: PLC0415 - libcst is slow to import

    for path, data in patched.after.items():
        record = look_at(path, data, patched.transforms, {}, census=False)
        if record.stages or record.unreadable:
            names = sorted({place.transform for place in record.found if place.outcome is Outcome.APPLIED})
            found = record.unreadable or f"edits by {', '.join(names)}"
            raise CheckFailed(f"a second run does not leave {path} as it is", expected="a fixed point", found=found)
