"""Grafana's dashboard, with Grafana's own foundation SDK; only where it is generated."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shown
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from patchforge.operate.panels import NUMBERS, Panel, Query, Shape, Unit, rows

TITLE = "ComfyUI and Ollama on Intel GPUs"
UID = "patchforge"
_UNITS = {
    Unit.NUMBER: "short",
    Unit.BYTES: "bytes",
    Unit.SECONDS: "s",
    Unit.SHARE: "percentunit",
    Unit.WATTS: "watt",
    Unit.CELSIUS: "celsius",
    Unit.HERTZ: "hertz",
    Unit.PER_HOUR: "short",
    Unit.YES: "short",
}
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def rendered() -> bytes:
    """The dashboard as a file."""
    made = dashboard.Dashboard(TITLE).uid(UID).tags(["patchforge", "comfyui", "intel"]).readonly().timezone("browser")
    made.time("now-6h", "now").refresh("30s").tooltip(DashboardCursorSync.CROSSHAIR)
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    for title, panels in rows():
        made.with_row(dashboard.Row(title))
        for panel in panels:
            made.with_panel(_panel(panel))
    text = json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True)
    return f"{text}\n".encode()


def _panel(of: Panel) -> Any:
    number = of.shape in NUMBERS
    made: Any = stat.Panel() if number else timeseries.Panel()
    made.title(of.title).description(of.about).datasource(_SOURCE).unit(_UNITS[of.unit]).span(of.width)
    made.height(4 if number else 8).min(0)
    if of.most is not None:
        made.max(of.most)
    for letter, query in zip("ABCDEFGH", of.queries, strict=False):
        made.with_target(_target(query, letter, instant=number))
    if number:
        made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        made.graph_mode(shown.BigValueGraphMode.NONE).color_mode(shown.BigValueColorMode.NONE)
    else:
        made.legend(common.VizLegendOptions().show_legend(show_legend=True).placement(shown.LegendPlacement.BOTTOM)
                    .display_mode(shown.LegendDisplayMode.LIST))  # fmt: skip
        made.show_points(shown.VisibilityMode.NEVER).line_width(1)
    if of.shape is Shape.STACK:
        made.stacking(common.StackingConfig().mode(shown.StackingMode.NORMAL)).fill_opacity(40)
    if of.shape is Shape.STATE:
        _state(made)
    if of.shape is Shape.ALARM:
        steps = [Threshold(value=None, color="green"), Threshold(value=1, color="red")]
        made.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)).no_value("0")
        made.color_mode(shown.BigValueColorMode.BACKGROUND).text_mode(shown.BigValueTextMode.VALUE_AND_NAME)
    return made


def _state(made: Any) -> None:
    steps = [Threshold(value=None, color="red"), Threshold(value=1, color="green")]
    made.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    made.color_mode(shown.BigValueColorMode.BACKGROUND)
    words = {"0": ValueMappingResult(text="no"), "1": ValueMappingResult(text="yes")}
    made.mappings([ValueMap(options=words)])


def _target(query: Query, letter: str, *, instant: bool) -> Any:
    made = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(letter)
    made.datasource(_SOURCE)
    return made.instant() if instant else made.range()
