"""What is done for a node pack before it is proposed: a checkout, the new pin, and the patch where one is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchforge import bounded
from patchforge.door.roles import load_table, undecided
from patchforge.door.routes import Route, of_pack, or_nothing_read
from patchforge.errors import PatchforgeError
from patchforge.git.clone import CachedClone
from patchforge.git.command import run_git
from patchforge.git.size import check_size
from patchforge.nodes.manifest import PackReport
from patchforge.nodes.pack import PackProblem, read_pack
from patchforge.nodes.pack_cache import cached
from patchforge.nodes.patched import PatchedPack
from patchforge.nodes.report import summary
from patchforge.outputs import PATCHES, write_folder
from patchforge.pattern import Options
from patchforge.pins import pin_files, repositories
from patchforge.pins.claims import source_claims
from patchforge.pins.pin_files import RepositoryPin
from patchforge.pins.repositories import Clones
from patchforge.pins.tracked import TrackedRepository
from patchforge.sources import FolderTree

_SHOWN = 50  #: commits whose subjects are shown
_LICENCES = (":(icase)*licen[cs]e*", ":(icase)*copying*")
_NO_LFS = {"GIT_LFS_SKIP_SMUDGE": "1"}


@dataclass(frozen=True, slots=True)
class Repinned:
    """A pack at another commit: what changed upstream, and what followed from it."""

    commit: str
    date: str  #: of the commit, ISO 8601
    pin: RepositoryPin
    report: PackReport  #: of the sites, as ``patchforge packs check`` gives it
    pin_before: RepositoryPin | None = None
    report_before: PackReport | None = None
    count: int = 0  #: commits between the pins, without merges
    commits: tuple[str, ...] = ()  #: the newest of them: id, day and subject, which is a stranger's text
    licences: tuple[str, ...] = ()  #: files about the licence that changed
    kept: bool = False  #: whether our repository keeps a patch of this pack
    routes: tuple[Route, ...] = ()  #: those that nobody has decided about
    patches_before: Mapping[str, bytes] = field(default_factory=dict)
    patches: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def unread(self) -> list[PackProblem]:
        """Files that could not be looked at, and were not among those before."""
        before = self.report_before.problems if self.report_before else ()
        known = {(problem.path, problem.reason) for problem in before}
        return [problem for problem in self.report.problems if (problem.path, problem.reason) not in known]

    @property
    def is_sound(self) -> bool:
        """Whether it has a hash, and no file more than before could not be looked at."""
        return bool(self.pin.hash) and not self.unread


def check_out(pack: TrackedRepository, scratch: Path) -> Path:
    """A clone of the cached clone, brought up to date, without files yet. Its folder has the repository's name."""
    cached = CachedClone.of(pack.url)
    if not cached.ensure():
        cached.fetch()
    checkout = scratch / pack.owner_and_repo[1]
    run_git("clone", "--shared", "--no-checkout", "--", str(cached.path), str(checkout))
    return checkout


def repin(pack: TrackedRepository, commit: str, folder: Path, checkout: Path) -> Repinned:
    """Writes the pin, and the patch if there was one, into ``folder``, a copy of our repository.

    As ``patchforge pin nodes`` and ``patchforge packs apply`` do, for this pack alone and with its branch at
    ``commit``. Raises what they raise; then ``folder`` must be reset.
    """
    pins = pin_files.load("nodes", folder / "upstream" / "pins")
    before = pins.get(pack.name)
    old = _report(checkout, before.rev) if before else None
    check_size(checkout, commit)
    _git(checkout, "checkout", "--quiet", "-B", pack.branch or "pinned", commit)
    clones, claims = Clones({pack.name: str(checkout)}), source_claims(folder / "upstream")
    pins[pack.name] = repositories.with_known_hash(repositories.pin(pack, clones, claims), before)
    pin_files.save("nodes", pins, folder / "upstream" / "pins")
    patched = PatchedPack(cached().convert(read_pack(checkout), Options()), commit)
    generated = folder / "generated" / "nodes" / pack.name
    patches_before = {path.name: bounded.file(path) for path in generated.glob("*.patch")}
    if kept := generated.is_dir():
        patched = patched.checked()
        write_folder(generated, patched.files(), PATCHES)
    return Repinned(
        commit,
        _git(checkout, "log", "--max-count=1", "--no-show-signature", "--format=%cI", commit),
        pins[pack.name],
        summary(patched.converted, cached().needs(patched.converted.pack)),
        before,
        old,
        **(_between(checkout, before.rev, commit) if before else {}),
        kept=kept,
        routes=undecided(or_nothing_read(of_pack, FolderTree(checkout)), load_table().pack.get(pack.name, ())),
        patches_before=patches_before,
        patches=patched.patch_files() if kept else {},
    )


def _report(checkout: Path, commit: str) -> PackReport | None:
    """The sites of another commit by the rules of today; None when it cannot be read."""
    try:
        check_size(checkout, commit)
        _git(checkout, "checkout", "--quiet", "--detach", commit)
        pack = read_pack(checkout)
        return summary(cached().convert(pack, Options()), cached().needs(pack))
    except PatchforgeError:
        return None


def _between(checkout: Path, old: str, new: str) -> dict[str, Any]:
    told = ("--no-show-signature", "--no-merges", "--format=%H %cs %s")
    lines = _git(checkout, "log", f"--max-count={_SHOWN}", *told, f"{old}..{new}").splitlines()
    licences = _git(checkout, "diff", "--name-only", "--no-renames", old, new, "--", *_LICENCES).splitlines()
    return {
        "count": int(_git(checkout, "rev-list", "--count", "--no-merges", f"{old}..{new}")),
        "commits": tuple(line[:12] + line[40:] for line in lines),
        "licences": tuple(licences),
    }


def _git(checkout: Path, *arguments: str) -> str:
    return run_git(*arguments, folder=checkout, environment=_NO_LFS).strip()
