"""Device sites and what was decided about each: claimed by a transform, left on purpose, or unclaimed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TypedDict

from patchforge import documents
from patchforge.engine.census import REFUSAL
from patchforge.engine.records import FileRecord, RawSite
from patchforge.errors import Damaged
from patchforge.vocabulary import DecidedSite, Decision, Outcome

_XPU_KINDS = frozenset({"xpu-api", "xpu-test", "ipex"})


@dataclass(frozen=True, slots=True)
class Leave:
    """Sites that are left on purpose: glob patterns, and why."""

    why: str
    path: str = "*"
    function: str = "*"
    kind: str = "*"
    text: str = "*"

    def covers(self, path: str, function: str, kind: str, text: str) -> bool:
        """Whether the decision speaks of such a site."""
        pairs = ((path, self.path), (function, self.function), (kind, self.kind), (text, self.text))
        return all(fnmatchcase(value, pattern) for value, pattern in pairs)


Decisions = tuple[Leave, ...]
Covering = Callable[[str, str, str, str], Leave | None]


class _Tables(TypedDict):
    leave: list[dict[str, str]]


def load_decisions(path: Path) -> Decisions:
    """Reads the ``[[leave]]`` tables of a decisions file; Damaged for anything else in it."""
    tables = documents.structured(documents.read_toml(path), _Tables, str(path), do="correct the file")["leave"]
    for number, table in enumerate(tables, 1):
        if "why" not in table or (unknown := table.keys() - Leave.__slots__):
            expected = f"texts: why, and of {', '.join(Leave.__slots__[1:])} what is needed"
            found_keys = ", ".join(sorted(unknown)) if "why" in table else "no why"
            raise Damaged(
                f"{path}: table {number} is not a decision", expected=expected, found=found_keys, do="correct the file"
            )
    return tuple(Leave(**table) for table in tables)


def covering(decisions: Decisions) -> Covering:
    """The decision that speaks of a site, if any; it is remembered, since other releases have most sites too."""
    return cache(lambda *site: next((leave for leave in decisions if leave.covers(*site)), None))


def decide(records: Mapping[str, FileRecord], covering: Covering) -> tuple[DecidedSite, ...]:
    """Every device site of a release with its decision, sorted by path and line.

    One that nobody has decided about is for a person.
    """
    return tuple(
        DecidedSite(path, site.line, site.function, site.kind, site.text, *_decision(path, site, record, covering))
        for path, record in sorted(records.items())
        for site in record.sites
    )


def _decision(path: str, site: RawSite, record: FileRecord, covering: Covering) -> tuple[str, str, Decision]:
    """The transform that takes care of a site, the reason why it stays, and the decision."""
    for finding in record.found:
        if finding.line <= site.line <= finding.last_line and finding.outcome is not Outcome.DRIFTED:
            return finding.transform, "", Decision.CONVERTED
    if site.kind == REFUSAL:
        leave = covering(path, site.function, site.kind, site.text)
        return ("", leave.why, Decision.LEFT) if leave else ("", "new in upstream's XPU code", Decision.PERSON)
    if site.kind in _XPU_KINDS or site.guard == "xpu" or site.text.startswith("xpu"):
        return "", "upstream's own XPU code", Decision.LEFT
    if site.guard == "beside-xpu":
        return "", "an XPU arm stands beside it", Decision.LEFT
    if leave := covering(path, site.function, site.kind, site.text):
        return "", leave.why, Decision.LEFT
    if site.guard == "vendor":
        return "", "in another vendor's arm; decided at its test", Decision.LEFT
    return "", "", Decision.PERSON
