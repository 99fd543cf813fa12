"""``patchforge replay``: every transform against every release."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

from patchforge import escape, pipeline, progress
from patchforge.commands.common import coloured, make_engine, show_json, version_named
from patchforge.engine.convert import Conversion, Engine
from patchforge.errors import Exit, PatchforgeError, worst
from patchforge.sources import Upstream, open_upstream
from patchforge.vocabulary import DecidedSite, Outcome, Release, Tree, Version


def run(options: argparse.Namespace) -> int:
    """Exit status 0, 3 when something drifted, 1 when a check failed, 69 when one could not be made."""
    engine = make_engine(options)
    with open_upstream(options.upstream) as upstream:
        releases = _releases(options, engine, upstream)
        trees = [upstream.tree(release) for release in releases]
        engine.prepare(progress.each(trees, "reading", len(trees)))
        pairs = progress.each(zip(releases, trees, strict=True), "converting", len(trees))
        rows = [_row(options, engine, release, tree) for release, tree in pairs]
        passed = upstream.passed_over()
    failed = [row for row in rows if row["failed"]]
    drifted = [row for row in rows if row["drifts"]]
    if options.json:
        counts = {"drifted": len(drifted), "failed": len(failed)}
        show_json("replay", {"releases": rows, **counts, "passed": [*map(list, passed)]})
    else:
        _show(rows, engine)
        for name, why in passed:
            print(f"passed over: {escape.line(name)}: {why}")
    return worst(row["status"] for row in rows)


def _releases(options: argparse.Namespace, engine: Engine, upstream: Upstream) -> list[Release]:
    if options.commits:
        if not options.since or not options.until:
            raise PatchforgeError(
                "--commits needs --since and --until", do="patchforge replay --commits --since v0.32.0 --until v0.33.0"
            )
        paths = sorted(
            {path for transform in engine.transforms for path in transform.files if "*" not in path} | {"comfy_extras"}
        )
        return [upstream.resolve(commit) for commit in upstream.commits(options.since, options.until, paths)]
    first = version_named(options.since) if options.since else Version(())
    last = version_named(options.until) if options.until else None
    known = upstream.releases()
    chosen = [each for each in known if first <= each.version and (last is None or each.version <= last)]
    if not chosen:
        raise PatchforgeError(
            "no release lies between --since and --until",
            expected=f"versions from {known[0].version} to {known[-1].version}" if known else "a clone with releases",
            found=f"{options.since or 'the oldest'} to {options.until or 'the newest'}",
            do="name versions in the order of their numbers",
        )
    return chosen


def _row(options: argparse.Namespace, engine: Engine, release: Release, tree: Tree) -> dict[str, Any]:
    conversion = engine.convert(release, tree)
    failed, status = "", Exit.OK
    if options.check and not conversion.drifted:
        try:
            pipeline.check(pipeline.patch(conversion, engine.transforms))
        except PatchforgeError as error:
            failed, status = str(error), error.status
    return {
        "release": str(release.version),
        "commit": release.commit,
        "outcomes": {report.transform: report.outcome.value for report in conversion.reports},
        "claims": {report.transform: len(report.found) for report in conversion.reports},
        "surprises": [report.transform for report in conversion.reports if report.surprising],
        "drifts": [pipeline.describe_drift(report) for report in conversion.drifted],
        "sites": dict(Counter(pipeline.DECISIONS[site.decision] for site in conversion.sites)),
        "unclaimed": _unclaimed(conversion),
        "failed": failed,
        "status": int(Exit.DRIFTED if conversion.drifted else status),
    }


def _unclaimed(conversion: Conversion) -> list[str]:
    return sorted({f"{site.path} {site.function}: {site.text}{_reason(site)}" for site in conversion.unclaimed})


def _reason(site: DecidedSite) -> str:
    return f" ({site.reason})" if site.reason else ""


def _show(rows: list[dict[str, Any]], engine: Engine) -> None:
    for transform in engine.transforms:
        spans = "; ".join(_spans(rows, transform.id))
        print(f"{transform.id:5}{transform.title}\n     {spans}")
    print(f"\n{len(rows)} releases")
    for change in _changes(rows):
        print(f"  {change}")
    for row in rows:
        for text in [*row["drifts"], *([row["failed"]] if row["failed"] else [])]:
            print(f"{row['release']} {row['commit'][:12]}\n{text}")
    surprises = sum(len(row["surprises"]) for row in rows)
    drifted, failed = sum(bool(row["drifts"]) for row in rows), sum(bool(row["failed"]) for row in rows)
    verdict = "failed" if drifted or failed else "ok"
    worst = max((row["sites"].get("unclaimed", 0) for row in rows), default=0)
    summary = f"{drifted} drifted, {failed} failed, {surprises} outcomes outside their range, {worst} unclaimed at most"
    print(coloured(summary, verdict))


def _spans(rows: list[dict[str, Any]], name: str) -> Iterator[str]:
    """Runs of releases with the same outcome and number of claims."""
    for (outcome, claims), group in groupby(rows, key=lambda row: (row["outcomes"][name], row["claims"][name])):
        members = list(group)
        sites = f" ({claims} sites)" if outcome == Outcome.APPLIED and claims > 1 else ""
        first, last = members[0]["release"], members[-1]["release"]
        yield f"{coloured(outcome, outcome)} {first}" + (f" to {last}" if last != first else "") + sites


def _changes(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What differs from each release to the next: outcomes, claims and unclaimed sites."""
    for old, new in pairwise(rows):
        parts = [
            f"{name} {old['outcomes'][name]} {old['claims'][name]} → {new['outcomes'][name]} {new['claims'][name]}"
            for name in new["outcomes"]
            if (old["outcomes"][name], old["claims"][name]) != (new["outcomes"][name], new["claims"][name])
        ]
        parts += [f"unclaimed: {site}" for site in new["unclaimed"] if site not in old["unclaimed"]]
        if parts:
            print_release = new["release"] if new["release"] != old["release"] else new["commit"][:12]
            yield f"{print_release}: {', '.join(parts)}"
