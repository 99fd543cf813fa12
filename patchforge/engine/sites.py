"""Device sites and what was decided about each: claimed by a transform, left on purpose, or unclaimed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from patchforge.engine.records import FileRecord, RawSite
from patchforge.vocabulary import Outcome

_XPU_KINDS = frozenset({"xpu-api", "xpu-test", "ipex"})


@dataclass(frozen=True, slots=True)
class Leave:
    """Sites that are left on purpose: glob patterns, and why."""

    why: str
    path: str = "*"
    function: str = "*"
    kind: str = "*"
    text: str = "*"

    def covers(self, path: str, site: RawSite) -> bool:
        """Whether the decision speaks of this site."""
        pairs = ((path, self.path), (site.function, self.function), (site.kind, self.kind), (site.text, self.text))
        return all(fnmatchcase(value, pattern) for value, pattern in pairs)


Decisions = tuple[Leave, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """A site with its decision: "claimed", "left" or "unclaimed", and the transform or the reason."""

    path: str
    site: RawSite
    decision: str
    why: str


def load_decisions(path: Path) -> Decisions:
    """Reads the ``[[leave]]`` tables of a decisions file."""
    return tuple(Leave(**table) for table in tomllib.loads(path.read_text(encoding="utf-8"))["leave"])


def decide(records: Mapping[str, FileRecord], decisions: Decisions) -> tuple[Decided, ...]:
    """Every device site of a release with its decision, sorted by path and line."""
    return tuple(
        Decided(path, site, *_decision(path, site, record, decisions))
        for path, record in sorted(records.items())
        for site in record.sites
    )


def _decision(path: str, site: RawSite, record: FileRecord, decisions: Decisions) -> tuple[str, str]:
    for one in record.found:
        if one.line <= site.line <= one.last_line and one.outcome is not Outcome.DRIFTED:
            return "claimed", one.transform
    if site.kind in _XPU_KINDS or site.guard == "xpu" or site.text.startswith("xpu"):
        return "left", "upstream's own XPU code"
    if site.guard == "beside-xpu":
        return "left", "an XPU arm stands beside it"
    for leave in decisions:
        if leave.covers(path, site):
            return "left", leave.why
    if site.guard == "vendor":
        return "left", "in another vendor's arm; decided at its test"
    return "unclaimed", ""
