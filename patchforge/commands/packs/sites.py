"""How the commands for packs list what they found in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from patchforge import escape
from patchforge.nodes.manifest import PackReport
from patchforge.nodes.report import NO_RULE
from patchforge.rules import patterns
from patchforge.vocabulary import DecidedSite


def list_sites(report: PackReport, decisions: Sequence[str] = ("converted", "person")) -> None:
    """Prints the sites of a report with one of the decisions, what the pack requires, and what was not looked at.

    So are sites of rules that leave them and say what to know of them, those of one sentence together.
    """
    listed = {rule.id for rule in patterns() if rule.listed}
    alike = Counter(_known(site) for site in report.sites if site.rule in listed)
    for site in report.sites:
        if site.decision in decisions or alike[_known(site)]:
            what = "can be converted" if site.decision == "converted" else site.reason
            others = 0 if site.decision in decisions else alike.pop(_known(site)) - 1
            more = f" and {others} more" if others else ""
            _say(f"{report.pack}/{site.path}:{site.line}{more}: {site.rule or NO_RULE} {site.text}: {what}")
    for package, advice in sorted({(need.package, need.advice) for need in report.needs}):
        places = [f"{need.path}:{need.line}" for need in report.needs if need.package == package]
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        _say(f"{report.pack}/{places[0]}{more}: {package}: {advice}")
    for problem in report.problems:
        _say(f"{report.pack}/{problem.path}:{problem.line}: not looked at: {problem.reason}")


def _known(site: DecidedSite) -> tuple[str, str, str]:
    """What is said of a site, but for its place."""
    return site.rule, site.text, site.reason


def list_outside(report: PackReport) -> None:
    """Prints the sites that no rule looks at, a line for each file and reason."""
    lines: dict[tuple[str, str], list[int]] = {}
    for site in report.outside:
        lines.setdefault((site.path, site.reason), []).append(site.line)
    for (path, reason), found in lines.items():
        first, *others = dict.fromkeys(found)
        more = f" (and in line{'s' if len(others) > 1 else ''} {', '.join(map(str, others))})" if others else ""
        _say(f"{report.pack}/{path}:{first}: not looked at: {reason}{more}")


def _say(text: str) -> None:
    """Prints a stranger's words as one line."""
    print(escape.line(text))
