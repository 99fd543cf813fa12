"""What ``patchforge apply`` says when it is done: what came of it, where, how to go on, how to undo it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchforge import patches, pipeline
from patchforge.checkout import change, installation
from patchforge.checkout.place import command
from patchforge.commands.common import shown_size, table
from patchforge.escape import line
from patchforge.paths import quoted
from patchforge.pipeline import PatchedRelease
from patchforge.project import load_project, parsed_version, release_index
from patchforge.sources.folder import UsersFolder
from patchforge.sources.git import Skipped

_WIDTH = 10  #: of the words before a colon


@dataclass(frozen=True)
class Applied:
    """One run. ``written`` is where, "" for nowhere; ``whole`` says that the whole tree is there, not its patches."""

    patched: PatchedRelease
    written: str
    whole: bool = False
    missing: tuple[Skipped, ...] = ()
    users: tuple[UsersFolder, ...] = ()  #: what is in the folder that was read, and not in the tree that was written
    plan: change.Plan | None = None  #: of patching in place
    place: Path | None = None  #: the folder that is, or would be, patched in place
    named: str = ""  #: the release, as the user calls it

    def say(self, *, verbose: bool) -> None:
        """Prints it."""
        if verbose:
            _transforms(self.patched)
        for skipped in self.missing:
            print(f"missing: {line(skipped.path)} ({skipped.reason})")
        print(self._result())
        for name, text in self._more():
            print(f"{name + ':':{_WIDTH}}{text}")
        if self.missing:
            print(f"NOT WHOLE: without {len(self.missing)} file(s), named above")

    def _result(self) -> str:
        changed, shown = len(self.patched.before), line(self.written)
        files = f"{changed} files changed, {len(self.patched.after) - changed} added"
        if not self.written:
            where = f" in {line(str(self.place))}" if self.place else ""
            return f"{self._release()}{where} can be patched for Intel GPUs: {files}; nothing written (dry run)"
        if self.plan:
            return f"{self._release()} in {shown} is patched for Intel GPUs: {files}"
        if self.whole:
            return f"{self._release()}, patched for Intel GPUs, is in {shown}: {files}"
        return f"{len(self.patched.changes)} patches for {self._release()} are in {shown}: {files}"

    def _release(self) -> str:
        release = self.patched.release
        commit = f" ({release.commit[:12]})" if release.commit else ""
        if release.indexed or parsed_version(self.named) or not self.named:
            return f"ComfyUI {release.version}{commit}"
        return f"ComfyUI {release.version}, at a commit that is not a release{commit}"

    def _more(self) -> Iterator[tuple[str, str]]:
        yield "checked", f"it compiles, other devices run what they ran, its patches apply ({patches.ways()})"
        if newer := _newer(self.patched):
            yield "new", newer
        for report in self.patched.conversion.reports:
            if report.surprising:
                yield "note", f"{report.transform} is {report.outcome} where {report.expected} was expected"
        if self.users:
            yield "left out", f"{', '.join(map(_users, self.users))}: yours, so copy or move what you want of it"
        if not self.written:
            return
        if self.plan or self.whole:
            folder = Path(self.written)
            yield "start", installation.of(folder).start
            yield "GPUs", f"start it with --help-gpu to see them, and which one it takes{_variables(folder)}"
            yield "undo", command("release", "revert", folder) if self.plan else f"remove {line(quoted(folder))}"
            return
        yield "use", f"{command('release', 'apply', Path('DIR'))} does it all for the ComfyUI in DIR"
        yield (
            "by hand",
            f"in its folder: git apply --unidiff-zero {line(quoted(Path(self.written).absolute()))}/*.patch",
        )


def _users(folder: UsersFolder) -> str:
    if folder.link:
        return f"{line(folder.path)} (a link)"
    files = f"{folder.files} file{'s' if folder.files != 1 else ''}, {shown_size(folder.bytes)}"
    return f"{line(folder.path)} ({files}{'' if folder.whole else ', and what may not be read'})"


def _variables(folder: Path) -> str:
    return " (add it to the last line of the .bat file)" if installation.of(folder).start.endswith(".bat") else ""


def _newer(patched: PatchedRelease) -> str:
    """What to say of a release that is newer than this patchforge."""
    newest = max(release.version for release in release_index(load_project()))
    if patched.release.version <= newest:
        return ""
    return f"this patchforge knows releases up to {newest}; all checks hold. To update it: {pipeline.UPDATE}"


def _transforms(patched: PatchedRelease) -> None:
    """Every transform with its outcome, and the sites."""
    rows = [
        (report.transform, report.outcome.value, str(len(report.found)) if report.found else "", transform.title)
        for report, transform in zip(patched.conversion.reports, patched.transforms, strict=True)
    ]
    table(rows)
    sites = patched.sites
    print(f"device sites: {sites.claimed} claimed, {sites.left} left on purpose, {sites.unclaimed} unclaimed")


def as_data(applied: Applied, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """For ``--json``."""
    return {
        **manifest,
        "written": applied.written,
        "missing": [skipped.path for skipped in applied.missing],
        "left_out": [{"path": folder.path, "files": folder.files, "bytes": folder.bytes} for folder in applied.users],
        "indexed": applied.patched.release.indexed,
        **({"files": applied.plan.written} if applied.plan else {}),
    }
