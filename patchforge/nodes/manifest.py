"""What was found in a pack, and the manifest beside its patch: written and read in one way by every command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchforge import manifest
from patchforge.documents import Format
from patchforge.manifest import Commit, PatchEntry
from patchforge.nodes.pack import PackProblem
from patchforge.nodes.requirements import Need
from patchforge.vocabulary import DecidedSite


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """What was found in a pack, sorted. Sites in files that no rule looks at are ``outside``, counted by reason."""

    pack: str
    figures: dict[str, int]  #: by decision
    skipped: dict[str, int]
    by_rule: dict[str, dict[str, int]]
    sites: tuple[DecidedSite, ...]
    needs: tuple[Need, ...]
    problems: tuple[PackProblem, ...]
    outside: tuple[DecidedSite, ...] = ()

    def of(self, decision: str) -> tuple[DecidedSite, ...]:
        """The sites with a decision."""
        return tuple(site for site in self.sites if site.decision == decision)


@dataclass(frozen=True, slots=True)
class ProofSize:
    """How much the proof looked at."""

    expressions: int
    arms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackManifest(PackReport):
    """What was done to a pack and to which bytes; holds no text of the pack's but the names of devices."""

    commit: Commit
    rules: str  #: digest of the rule set
    patchforge: str  #: its version
    proof: ProofSize
    patches: tuple[PatchEntry, ...]


FORMAT = Format(PackManifest, 1)


def load(folder: Path) -> PackManifest:
    """The manifest in ``folder``. Damaged when it is not one, FileNotFoundError where there is none."""
    return FORMAT.read(folder / manifest.NAME, do=f"write {folder} again with patchforge packs apply")
