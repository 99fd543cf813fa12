"""What is made of the tables in the code: in ``docs/monitoring.md`` and the README, and ``generated/monitoring``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

from patchforge import bounded, extras, outputs, resources
from patchforge.operate.alerts import ALERTS
from patchforge.operate.metrics import METRICS

BEGIN, END = "<!-- begin: {} -->", "<!-- end: {} -->"


def metrics() -> Iterator[str]:
    """Every metric, by what it tells of."""
    for subject, group in groupby(METRICS, lambda metric: metric.of):
        yield f"### {subject}"
        yield ""
        yield "| metric | kind | labels | meaning |"
        yield "|---|---|---|---|"
        for metric in group:
            labels = ", ".join(f"`{name}`" for name in metric.labels)
            yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"
        yield ""


def alert_table() -> Iterator[str]:
    """Every alert."""
    yield "| alert | severity | when |"
    yield "|---|---|---|"
    for alert in ALERTS:
        wait = "" if alert.wait == "0m" else f", for {alert.wait}"
        expr = alert.expr.replace("|", "\\|")
        yield f"| [{alert.name}](runbooks.md#{alert.name.lower()}) | {alert.severity} | `{expr}`{wait} |"
    yield ""


PARTS = {"alerts": alert_table, "metrics": metrics}
README = {"extras": extras.table}


def filled(page: str, parts: Mapping[str, Callable[[], Iterator[str]]] = PARTS) -> str:
    """The page with its tables written anew, between their marks."""
    for name, lines in parts.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = "\n".join([f"{before}{begin}", "", *lines(), f"{end}{after}"])
    return page


def monitoring() -> dict[str, bytes]:
    """The files of ``generated/monitoring``: Prometheus' rules and Grafana's dashboard."""
    import yaml  # noqa: PLC0415 - only where they are generated, as the dashboard's library

    from patchforge.operate import alerts, grafana  # noqa: PLC0415

    rules = yaml.safe_dump(alerts.rules(), sort_keys=False, width=150)
    return {
        "rules.yml": f"# Made of patchforge/operate/alerts.py by make docs.\n{rules}".encode(),
        "dashboard.json": grafana.rendered(),
    }


KIND = outputs.OutputKind("rules and dashboards", re.compile(r"rules\.yml|dashboard\.json"))


def main() -> None:
    """``make docs``: writes the tables of this checkout's pages, and ``generated/monitoring``."""
    top = resources.repository() or Path()
    page = top / "docs" / "monitoring.md"
    page.write_text(filled(bounded.file(page).decode()), "utf-8")
    readme = top / "README.md"
    readme.write_text(filled(bounded.file(readme).decode(), README), "utf-8")
    outputs.write_folder(top / "generated" / "monitoring", monitoring(), KIND)


if __name__ == "__main__":
    main()
