"""What was found in a pack, for people and for machines."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patchforge import __version__, escape, outputs, templating
from patchforge.nodes.convert import Converted
from patchforge.nodes.manifest import PackReport
from patchforge.nodes.requirements import Need
from patchforge.pattern import Pattern
from patchforge.rules import patterns
from patchforge.vocabulary import DecidedSite, Decision

_LEVELS = {Decision.CONVERTED: "warning", Decision.PERSON: "note"}
NO_RULE = "pack-other"  #: what a site is listed under that no rule has seen
_PACKAGE = "pack-package"
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def summary(converted: Converted, needs: Sequence[Need]) -> PackReport:
    """The report, sorted."""
    return PackReport(
        pack=converted.pack.name,
        figures={str(decision): sum(site.decision is decision for site in converted.sites) for decision in Decision},
        skipped=dict(sorted(Counter(site.reason for site in converted.skipped).items())),
        by_rule=_by_rule(converted.sites),
        sites=_sorted(converted.sites),
        needs=tuple(needs),
        problems=converted.problems,
        outside=_sorted(converted.skipped),
    )


def _sorted(sites: Iterable[DecidedSite]) -> tuple[DecidedSite, ...]:
    return tuple(sorted(sites, key=lambda site: (site.path, site.line, site.kind, site.text)))


def figures(reports: Sequence[PackReport]) -> str:
    """What each rule found in all packs, as a Markdown table. Sites in files that no rule looks at do not count."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*(rule.id for rule in patterns()), "none")}
    for report in reports:
        for name, by_decision in report.by_rule.items():
            counts[name].update(by_decision)
    titles = {rule.id: rule.title for rule in patterns()} | {"none": "left by where they stand"}
    lines = ["| rule | about | sites | converted | left | for a person | converted, of all | of those not left |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    lines += [
        _line(name, titles[name], counts[name]) for name in sorted(counts, key=lambda name: (name == "none", name))
    ]
    return "\n".join([*lines, _line("all", f"{len(reports)} packs", sum(counts.values(), Counter()))]) + "\n"


def _line(name: str, title: str, count: Counter[str]) -> str:
    converted, kept, person = (
        count[str(decision)] for decision in (Decision.CONVERTED, Decision.LEFT, Decision.PERSON)
    )
    cells = [name, title, count.total(), converted, kept, person]
    cells += [f"{100 * converted // whole} %" if whole else "" for whole in (count.total(), converted + person)]
    return f"| {' | '.join(map(str, cells))} |"


def _by_rule(sites: Iterable[DecidedSite]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for site in sites:
        counts.setdefault(site.rule or "none", Counter())[str(site.decision)] += 1
    return {name: dict(sorted(count.items())) for name, count in sorted(counts.items())}


def markdown(report: PackReport) -> str:
    """The report of one pack, to read."""
    return templating.report("pack", report)


def sarif(reports: Sequence[PackReport], folders: Sequence[str] = ()) -> dict[str, Any]:
    """Findings for code hosts (SARIF 2.1.0), a run for each pack: what can be converted, what a person must look at.

    ``folders``: where in its repository each pack is, "" for the root; a host's addresses begin there.
    """
    known = {
        rule.id: _described(rule.id, type(rule).__name__, rule.title, rule.aliases, rule.source) for rule in patterns()
    }
    known[_PACKAGE] = _described(_PACKAGE, "Packages", "packages in an XPU's way", ("T15",), Pattern.source)
    known[NO_RULE] = _described(NO_RULE, "Other", "another site that names CUDA", ("T0",), Pattern.source)
    driver = {"name": "patchforge", "version": __version__, "rules": list(known.values())}
    places = [*folders, *("" for _ in reports[len(folders) :])]
    runs = [_run(report, place, number) for number, (report, place) in enumerate(zip(reports, places, strict=True))]
    whole = [{"tool": {"driver": driver}, **run} for run in runs or [{"results": []}]]
    return {"$schema": _SARIF, "version": "2.1.0", "runs": whole}


def _run(report: PackReport, folder: str, number: int) -> dict[str, Any]:
    """One pack's results. A host takes one run of an id: packs of one name are told apart by their number."""
    results = [
        _result(site.rule or NO_RULE, _LEVELS[site.decision], site, _message(site), folder)
        for site in report.sites
        if site.decision != "left"
    ]
    results += [_result(_PACKAGE, "warning", need, f"{need.package}: {need.advice}", folder) for need in report.needs]
    name = f"patchforge/{escape.address(report.pack)}/{number or ''}"
    return {"automationDetails": {"id": name}, "results": results}


def _described(name: str, title: str, text: str, aliases: Sequence[str], source: str) -> dict[str, Any]:
    said = {"shortDescription": {"text": text}, "helpUri": source}
    return {"id": name, "deprecatedIds": list(aliases), "name": title, **said}


def sarif_file(reports: Sequence[PackReport], folders: Sequence[str] = ()) -> bytes:
    """``sarif`` as a file that says it is ours."""
    document = sarif(reports, folders)
    document["runs"][0]["properties"] = {"patchforge": outputs.mark()}
    return outputs.marked(_rendered(document))


def is_ours(data: bytes) -> bool:
    """Whether a SARIF file is as it was written; those of earlier versions have no mark."""
    if outputs.has_mark(data):
        return outputs.is_marked(data)
    try:
        document = json.loads(data)
        return (
            bool(document["runs"][0]["tool"]["driver"]["name"] == "patchforge") and _rendered(document).encode() == data
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def _rendered(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1) + "\n"


def _message(site: DecidedSite) -> str:
    if site.decision == "converted":
        return f"{site.text} is for CUDA only; patchforge packs apply converts it"
    return f"{site.text}: {site.reason}"


def _result(rule: str, level: str, place: DecidedSite | Need, text: str, folder: str) -> dict[str, Any]:
    location = {
        "artifactLocation": {"uri": escape.address(f"{folder}/{place.path}" if folder else place.path)},
        "region": {"startLine": max(place.line, 1)},
    }
    said = {"text": re.sub(r"([\\\[\]])", r"\\\1", escape.line(text))}  # SARIF reads [text](address) as a link
    return {"ruleId": rule, "level": level, "message": said, "locations": [{"physicalLocation": location}]}
