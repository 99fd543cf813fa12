"""The text of pull requests, issues and comments.

Text of upstream's is shown as code, where GitHub acts on nothing in it, and cut, so that a body stays below the 65 536
characters that GitHub takes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchforge import templating
from patchforge.bench.costs import ReleaseCost, costs, explained, peak, than
from patchforge.bench.model import Benchmark, shown
from patchforge.bot.model import Candidate, GitHubRelease, read_marker, with_marker
from patchforge.bot.preparation import StepResult
from patchforge.bot.repinning import Repinned
from patchforge.door.routes import Route
from patchforge.escape import block
from patchforge.manifest import Manifest, TransformEntry
from patchforge.nodes.manifest import PackReport
from patchforge.pins.tracked import TrackedRepository
from patchforge.project import Project
from patchforge.rules import current, patterns, transforms
from patchforge.vocabulary import DecidedSite

_NOTES = 12_000  #: characters of release notes, all versions together
_MOST = 20  #: releases whose notes are shown


@dataclass(frozen=True)
class Costs:
    """What a release costs in exact counts, and what the one before did, if that is known.

    ``old``: those of the one before were counted with other patches than it has now.
    """

    kept: Benchmark
    before: Benchmark | None
    old: bool

    @property
    def cases(self) -> list[ReleaseCost]:
        """Of the release alone."""
        return [
            cost for cost in costs(list(filter(None, (self.before, self.kept)))) if cost.release == self.kept.release
        ]

    @property
    def not_compared(self) -> str:
        """Why it is not compared with the one before; "" where it is."""
        if self.before is None:
            return "nothing is known of the version before"
        difference = than(self.before, self.kept)
        return difference if isinstance(difference, str) else ""


def pull_body(
    project: Project,
    candidate: Candidate,
    manifest: Manifest,
    before: Manifest | None,
    *,
    patches: Mapping[str, bytes],
    patches_before: Mapping[str, bytes],
    hashes: tuple[str, str],
    requirements: Sequence[tuple[str, str, str]],
    costs: Costs | None,
    routes: Sequence[Route],
    notes: Sequence[GitHubRelease],
    steps: Sequence[StepResult],
) -> str:
    """The body without its marker. ``before``: the manifest of the version that the base branch has.
    ``routes``: those that nobody has decided about.
    """
    return _render(
        "pull.md.j2",
        project=project,
        candidate=candidate,
        manifest=manifest,
        before=before,
        outcomes=outcome_changes(manifest, before),
        sites=site_changes(manifest, before),
        patches=[_compared(name, patches_before, patches) for name in sorted({*patches, *patches_before})],
        hashes=hashes,
        requirements=requirements,
        costs=costs,
        peak=peak,
        explained=explained,
        shown=shown,
        routes=routes,
        notes=[(note, block(note.notes, _NOTES // min(_MOST, len(notes)))) for note in notes[-_MOST:]],
        steps=steps,
    )


def pack_body(pack: TrackedRepository, made: Repinned, steps: Sequence[StepResult]) -> str:
    """The body of a node pack's pull request, without its marker."""
    names = sorted({*made.patches_before, *made.patches})
    requirements = ("\n".join(pin.requirements if pin else ()) for pin in (made.pin_before, made.pin))
    return _render(
        "pack.md.j2",
        pack=pack,
        repo=pack.owner_and_repo[1],
        made=made,
        rules=rule_changes(made.report, made.report_before),
        person=person_changes(made.report, made.report_before),
        needs=need_changes(made.report, made.report_before),
        patches=[_compared(name, made.patches_before, made.patches) for name in names],
        requirements=requirement_changes(*requirements),
        steps=steps,
    )


def pack_problem(pack: TrackedRepository, about: str, text: str, commit: str) -> str:
    """The body of an issue about a node pack, without its marker. ``commit``: the one that was tried, or ""."""
    return _render("pack-issue.md.j2", pack=pack, about=about, text=text, commit=commit)


def problem_body(project: Project, about: str, text: str, candidate: Candidate | None = None) -> str:
    """The body of an issue without its marker. ``text`` is the error, with code of upstream's in it."""
    return _render("issue.md.j2", project=project, candidate=candidate, about=about, text=text)


def tests_comment(result: StepResult, change: str) -> str:
    """What a test run said, made once for each change."""
    return topic(f"{result.name}: {result.outcome}. It ended with\n\n{block(result.text)}", tests_topic(change))


def tests_topic(change: str) -> str:
    return f"tests {change[:16]}"


def marked(text: str, /, **said: Any) -> str:
    """``text`` with a marker that says what it is and holds the text's own digest."""
    return with_marker(text, **said, body=hashlib.sha256(text.encode()).hexdigest()[:16])


def topic(text: str, name: str) -> str:
    """A comment that is made once for ``name``."""
    return with_marker(text, topic=name)


def outcome_changes(manifest: Manifest, before: Manifest | None) -> list[tuple[str, str, str, str]]:
    """(transform, title, before, now) where outcome, number of sites or edits differ; all of them without a before."""
    old = {_transform(entry): _outcome(entry) for entry in (before.transforms if before else ())}
    rows = [
        (name := _transform(transform), transform.title, old.pop(name, ""), _outcome(transform))
        for transform in manifest.transforms
    ]
    rows += [(name, "", was, "") for name, was in old.items()]
    return [row for row in rows if row[2] != row[3]]


def site_changes(manifest: Manifest, before: Manifest | None) -> tuple[list[str], list[str]]:
    """Places that transforms claim, new and gone. Lines are left out: they move with every release."""
    if before is None:
        return sorted(_sites(manifest).elements()), []
    now, then = _sites(manifest), _sites(before)
    return sorted((now - then).elements()), sorted((then - now).elements())


def rule_changes(report: PackReport, before: PackReport | None) -> list[tuple[str, str, str]]:
    """(rule, before, now) of the rules whose numbers of sites differ; all of them without a before."""
    old, new = ({} if report_before is None else _by_rule(report_before.by_rule) for report_before in (before, report))
    rows = [(name, _counts(old.get(name)), _counts(new.get(name))) for name in sorted({*old, *new})]
    return [row for row in rows if row[1] != row[2]]


def person_changes(report: PackReport, before: PackReport | None) -> list[DecidedSite]:
    """The sites for a person that were not there before. Lines do not count: they move with every commit."""
    known = Counter(map(_place, before.of("person"))) if before else Counter()
    fresh = []
    for site in report.of("person"):
        known[_place(site)] -= 1
        fresh += [site] if known[_place(site)] < 0 else []
    return fresh


def need_changes(
    report: PackReport, before: PackReport | None
) -> tuple[list[tuple[str, bool, str]], list[tuple[str, bool, str]]]:
    """The packages in an XPU's way that are new, and those gone: name, whether a node cannot do without, advice."""
    now, then = _needs(report), _needs(before) if before else set()
    return sorted(now - then), sorted(then - now)


def requirement_changes(before: str, after: str) -> list[tuple[str, str, str]]:
    """(name, before, now) of the lines of a requirements file that differ."""
    old, new = _requirements(before), _requirements(after)
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return [(name, old.get(name, ""), new.get(name, "")) for name in names]


def declare_closed(body: str, marker: Mapping[str, Any], why: str) -> str:
    """The body of a pull request that the bot closes itself, so that nobody takes it for a person's decision."""
    return with_marker(body, **{**marker, "closed": why})


def digest(body: str) -> str:
    """The digest in a body's marker."""
    return str(read_marker(body).get("body"))


def offer(commit: str, patches: Mapping[str, bytes]) -> str:
    """Digest of upstream's commit and the patches for it."""
    texts = [commit.encode(), *(name.encode() + b"\0" + data for name, data in sorted(patches.items()))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def _counts(by_decision: Mapping[str, int] | None) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted((by_decision or {}).items()))


def _by_rule(counts: Mapping[str, Mapping[str, int]]) -> dict[str, Counter[str]]:
    by_rule: dict[str, Counter[str]] = {}
    for name, count in counts.items():
        by_rule.setdefault(current(name, patterns()), Counter()).update(count)
    return by_rule


def _transform(entry: TransformEntry) -> str:
    return current(entry.id, transforms())


def _needs(report: PackReport) -> set[tuple[str, bool, str]]:
    return {(need.package, need.blocks, need.advice) for need in report.needs}


def _place(site: DecidedSite) -> tuple[str, ...]:
    return (current(site.rule, patterns()), site.path, site.function, site.text)


def _outcome(entry: TransformEntry) -> str:
    edits = ", ".join(f"{count} {kind}" for kind, count in sorted(entry.edits.items()))
    return f"{entry.outcome}{f' ({edits})' if edits else ''}"


def _sites(manifest: Manifest) -> Counter[str]:
    entries = manifest.transforms
    return Counter(f"{_transform(entry)} {site.path} {site.function}" for entry in entries for site in entry.sites)


def _requirements(text: str) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower(): line for line in lines if re.match(r"[\w]", line)}


def _compared(name: str, before: Mapping[str, bytes], now: Mapping[str, bytes]) -> tuple[str, int, int, str, str]:
    """Name, sizes and digests of a patch before and now; 0 and "" where it is not there."""
    old, new = before.get(name, b""), now.get(name, b"")
    digests = [hashlib.sha256(data).hexdigest()[:12] if data else "" for data in (old, new)]
    return (name, len(old), len(new), digests[0], digests[1])


def _render(template: str, **values: Any) -> str:
    environment = templating.environment("bot")
    text: str = environment.get_template(template).render(values)
    return text.strip() + "\n"
