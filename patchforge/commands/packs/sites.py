"""How the commands for packs list what they found in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patchforge import escape
from patchforge.nodes.report import NO_RULE


def list_sites(report: dict[str, Any], decisions: Sequence[str] = ("converted", "person")) -> None:
    """Prints the sites of a report with one of the decisions, what the pack requires, and what was not looked at."""
    for one in report["sites"]:
        if one["decision"] in decisions:
            what = "can be converted" if one["decision"] == "converted" else one["reason"]
            _say(f"{report['pack']}/{one['path']}:{one['line']}: {one['rule'] or NO_RULE} {one['text']}: {what}")
    for package, advice in sorted({(one["package"], one["advice"]) for one in report["needs"]}):
        places = [f"{one['path']}:{one['line']}" for one in report["needs"] if one["package"] == package]
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        _say(f"{report['pack']}/{places[0]}{more}: {package}: {advice}")
    for one in report["problems"]:
        _say(f"{report['pack']}/{one['path']}:{one['line']}: not looked at: {one['reason']}")


def _say(text: str) -> None:
    """Prints a stranger's words as one line."""
    print(escape.line(text))
