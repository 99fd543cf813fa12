"""A whole release through all transforms: outcomes, sites and the changed files.

Results are kept by (blob, path, rule-set digest), so a new release costs only the files that changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from patchforge import processes
from patchforge.engine.cache import Cache, Key
from patchforge.engine.census import NEEDLES
from patchforge.engine.prefilter import may_say
from patchforge.engine.records import FileRecord, FoundPlace, apply_segments
from patchforge.engine.sites import Decisions, covering, decide
from patchforge.transform import Transform
from patchforge.vocabulary import DecidedSite, Decision, Drift, FileChange, Outcome, Purpose, Release, Tree

_WORTH_A_PROCESS = 400_000  #: bytes of source to look at before a second process pays for its start


@dataclass(frozen=True, slots=True)
class Report:
    """What one transform did to one release."""

    transform: str
    outcome: Outcome
    expected: Outcome
    found: tuple[tuple[str, FoundPlace], ...] = ()  #: (path, what was found there)
    drifts: tuple[Drift, ...] = ()

    @property
    def surprising(self) -> bool:
        """The outcome is not the one that the transform's version range gives."""
        return self.outcome is not self.expected


@dataclass(frozen=True)
class Conversion:
    """A release after the transforms."""

    release: Release
    reports: tuple[Report, ...]
    records: Mapping[str, FileRecord]
    sites: tuple[DecidedSite, ...]
    tree: Tree

    @property
    def drifted(self) -> tuple[Report, ...]:
        """The reports that a person must look at."""
        return tuple(report for report in self.reports if report.outcome is Outcome.DRIFTED)

    @property
    def unclaimed(self) -> tuple[DecidedSite, ...]:
        """Device sites that nobody has decided about."""
        return tuple(site for site in self.sites if site.decision is Decision.PERSON)

    @cached_property
    def changes(self) -> dict[Purpose, list[FileChange]]:
        """The changed files of each patch, sorted by path; each sees the patches before it."""
        return changes_by_purpose(self.records, self.tree)


def changes_by_purpose(records: Mapping[str, FileRecord], tree: Tree) -> dict[Purpose, list[FileChange]]:
    """Rebuilds the changes of every patch from the records' segments and the tree's bytes."""
    changes: dict[Purpose, list[FileChange]] = {}
    for path, record in sorted(records.items()):
        if not record.stages:
            continue
        data = tree.read(path)
        for purpose, parts in record.stages:
            change = FileChange(path, data, apply_segments(data, parts), parts)
            changes.setdefault(purpose, []).append(change)
            data = change.after
    return changes


class Engine:
    """The transforms with their cache; converts any number of releases."""

    def __init__(
        self, transforms: Sequence[Transform], decisions: Decisions, cache: Cache[FileRecord], jobs: int | None = None
    ) -> None:
        self.transforms, self.covering, self.cache = tuple(transforms), covering(decisions), cache
        self.jobs = jobs or os.cpu_count() or 1
        self.known: dict[Key, FileRecord] = {}  #: what this engine has seen, which a new release mostly has again

    def convert(self, release: Release, tree: Tree) -> Conversion:
        """Runs every transform over a release's tree. Raises MissingBlobError for a needed file without content."""
        self.prepare([tree])
        records = {key[0]: record for key in _keys(tree) if not (record := self.known[key]).empty}
        places: dict[str, list[tuple[str, FoundPlace]]] = {}
        for path, record in sorted(records.items()):
            for place in record.found:
                places.setdefault(place.transform, []).append((path, place))
        reports = (
            self.report(transform, release, records, places.get(transform.id, ())) for transform in self.transforms
        )
        return Conversion(release, tuple(reports), records, decide(records, self.covering), tree)

    def prepare(self, trees: Iterable[Tree]) -> None:
        """Looks at the files that the cache lacks; of many trees, so that versions of one are looked at together."""
        work: dict[Key, bytes] = {}
        for tree in trees:
            fresh = [key for key in _keys(tree) if key not in self.known and key not in work]
            self.known.update(self.cache.get(fresh))
            work.update({key: tree.read(key[0]) for key in fresh if key not in self.known})
        self.known.update(self.look(work))

    def interesting(self, path: str, data: bytes) -> bool:
        """The text prefilter: neither a needle of the census nor one of a transform means nothing to parse."""
        return bool(NEEDLES.search(data)) or any(
            transform.wants(path) and may_say(data, transform.needles) for transform in self.transforms
        )

    def look(self, work: Mapping[Key, bytes]) -> dict[Key, FileRecord]:
        """Looks at files and keeps what was found; in processes when there is enough to do, the most work first."""
        records = dict.fromkeys(work, FileRecord())
        tasks: dict[str, list[tuple[Key, bytes]]] = {}
        for key, data in work.items():
            if self.interesting(key[0], data):
                tasks.setdefault(key[0], []).append((key, data))
        ordered = sorted(tasks.values(), key=lambda task: (-sum(len(data) for _, data in task), task[0][0]))
        size = sum(len(data) for task in ordered for _, data in task)
        if self.jobs > 1 and len(ordered) > 1 and size > _WORTH_A_PROCESS:
            with processes.workers(self.jobs, _prepare, self.transforms) as pool:
                for result in pool.map(_look, ordered):
                    records.update(result)
        else:
            _prepare(self.transforms)
            for task in ordered:
                records.update(_look(task))
        self.cache.put(records)
        return records

    def report(
        self,
        transform: Transform,
        release: Release,
        records: Mapping[str, FileRecord],
        places: Sequence[tuple[str, FoundPlace]],
    ) -> Report:
        """One transform's outcome, put together from the ``places`` of all files."""
        expected = transform.expected(release.version)
        drifts = [
            Drift(path, place.line, place.note, place.fragment)
            for path, place in places
            if place.outcome is Outcome.DRIFTED
        ]
        drifts += [
            Drift(path, 1, "a Python file that can be read", record.unreadable)
            for path, record in sorted(records.items())
            if record.unreadable and transform.wants(path)
        ]
        seen = {place.outcome for _, place in places}
        outcome = next((each for each in (Outcome.APPLIED, Outcome.UPSTREAM) if each in seen), Outcome.ABSENT)
        if outcome is Outcome.ABSENT and expected is not Outcome.ABSENT and not drifts:
            what = f"{' or '.join(transform.needles)} in {' or '.join(transform.files)}"
            drifts.append(Drift(transform.files[0], 0, f"{what} ({transform.title})", "no such place in this release"))
        if drifts:
            outcome = Outcome.DRIFTED
        return Report(transform.id, outcome, expected, tuple(places), tuple(drifts))


def _keys(tree: Tree) -> list[Key]:
    """Files that could name a device."""
    return [(entry.path, entry.blob) for entry in tree.entries().values() if entry.path.endswith(".py")]


_TRANSFORMS: tuple[Transform, ...] = ()


def _prepare(transforms: tuple[Transform, ...]) -> None:
    global _TRANSFORMS  # noqa: PLW0603 - a worker process's one setting
    _TRANSFORMS = transforms


def _look(task: Sequence[tuple[Key, bytes]]) -> dict[Key, FileRecord]:
    """All versions of one file; they share what was found in the statements they have in common."""
    from patchforge.engine.files import Memo, look_at  # noqa: PLC0415 - libcst is slow to import

    memo: Memo = {}
    return {key: look_at(key[0], data, _TRANSFORMS, memo) for key, data in task}
