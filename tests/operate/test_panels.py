"""The panels, Grafana's dashboard of them, and the page that shows them."""

from __future__ import annotations

import json
import re

import pytest

from patchforge import outputs
from patchforge.errors import PatchforgeError
from patchforge.operate import console, generate
from patchforge.operate.panels import NUMBERS, PANELS, Panel, Query, Shape, Unit, rows
from patchforge.operate.prometheus import Line, Prometheus
from tests.operate.servers import Web
from tests.operate.test_alerts import NAMES, metrics_of
from tests.support import ROOT

NOW = 1_780_000_000.0


def test_no_panel_asks_for_a_metric_that_there_is_not() -> None:
    asked = {name for panel in PANELS for query in panel.queries for name in metrics_of(query.expr)}
    assert asked
    assert asked <= NAMES


def test_panels_have_names_of_their_own_and_fill_their_rows() -> None:
    assert len({panel.name for panel in PANELS}) == len(PANELS)
    for title, panels in rows():
        assert sum(panel.width for panel in panels) % 24 == 0, title


def test_what_is_generated_is_of_today() -> None:
    folder = ROOT / "generated" / "monitoring"
    outputs.prove(folder, generate.KIND)
    assert outputs.read_folder(folder, generate.KIND) == generate.monitoring(), "make docs"


def test_the_dashboard_is_one_of_grafanas() -> None:
    """Read back by Grafana's own model, it is the same; every query of the table is in it."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    document = json.loads(generate.monitoring()["dashboard.json"])
    pytest.importorskip("grafana_foundation_sdk.cog.plugins").register_default_plugins()
    again = json.loads(json.dumps(models.Dashboard.from_json(document), cls=encoder.JSONEncoder))
    assert again == document
    panels = [panel for panel in document["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in PANELS]
    for panel, shown in zip(PANELS, panels, strict=True):
        assert [(target["expr"]) for target in shown["targets"]] == [query.expr for query in panel.queries]
        assert {target["datasource"]["uid"] for target in shown["targets"]} == {"${datasource}"}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in document["panels"]]
    assert len(set(places)) == len(places)


# --- The page ---------------------------------------------------------------------------------------------------------


class FakePrometheus(Web):
    """Answers every query with the same series."""

    series: object = [{"metric": {"server": "a"}, "values": [[NOW - 60, "1"], [NOW, "2"]]}]
    status = 200

    def answer(self, verb: str, path: str, asked: dict[str, str], body: object) -> object:
        assert (verb, path) == ("GET", "/api/v1/query_range")
        assert {"query", "start", "end", "step"} == asked.keys()
        return self.status, {"status": "success", "data": {"resultType": "matrix", "result": self.series}}


def shown(series: object, status: int = 200, **asked: str) -> str:
    of = FakePrometheus()
    of.series, of.status = series, status
    with of.running():
        return console.page(Prometheus(of.url), asked, NOW).decode()


def test_the_page_shows_every_panel() -> None:
    text = shown(FakePrometheus.series)
    for panel in PANELS:
        assert f"<h3>{panel.title}</h3>" in text
    assert text.count("<svg") == sum(panel.shape not in NUMBERS for panel in PANELS)
    assert "<script" not in text
    assert "http://" not in re.sub(r"<p class=.note.*", "", text)


def test_the_page_says_what_it_lacks() -> None:
    assert "--prometheus URL" in console.page(None, {}, NOW).decode()
    assert "status 500" in shown([], 500)
    assert "Nothing was told in this time." in shown([])
    assert "expected" in shown([{"metric": "text", "values": 5}])


def test_what_prometheus_says_is_shown_as_text() -> None:
    text = shown([{"metric": {"server": "<script>alert(1)</script>\x1b[31m"}, "values": [[NOW, "NaN"], [NOW, "1"]]}])
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text


def tile(text: str, title: str) -> str:
    (found,) = re.findall(rf"<section[^>]*>\s*<h3>{title}</h3>.*?</section>", text, re.DOTALL)
    return str(found)


def alert(name: str, severity: str, count: int = 1) -> dict[str, object]:
    values = [[NOW - 60, str(count)], [NOW, str(count)]]
    return {"metric": {"alertname": name, "severity": severity}, "values": values}


def test_an_alert_that_fires_is_plain_to_see() -> None:
    fires = tile(shown([alert("GpuHot", "warning", 2), alert("ValidationFailed", "critical")]), "Alerts")
    assert fires.startswith('<section class="small no">')
    assert '<div class="number no">3</div>' in fires
    assert fires.index("ValidationFailed") < fires.index("GpuHot, 2 times (warning)")
    warned = tile(shown([alert("GpuHot", "warning")]), "Alerts")
    assert (warned.startswith('<section class="small soon">'), "GpuHot (warning)" in warned) == (True, True)
    old = {"metric": {"alertname": "GpuHot", "severity": "critical"}, "values": [[NOW - 7200, "1"]]}
    for calm in (tile(shown([]), "Alerts"), tile(shown([old]), "Alerts")):
        assert '<div class="number yes">0<small>none</small></div>' in calm
        assert "GpuHot" not in calm


def test_no_number_stands_without_its_name_beside_others() -> None:
    """``or vector(0)`` beside ``by`` gives a 0 that belongs to nothing."""
    for panel in PANELS:
        for query in panel.queries:
            assert not (" by " in query.expr and "vector(" in query.expr), panel.title
    many = shown([{"metric": {"server": f"s{index}"}, "values": [[NOW, "1"]]} for index in range(11)])
    assert "and 3 more" in tile(many, "ComfyUI")


def test_hours_that_there_are_not_are_the_usual_ones() -> None:
    assert shown([], hours="24").count('aria-current="true">day<') == 1
    assert shown([], hours="1e9").count('aria-current="true">6 hours<') == 1


@pytest.mark.parametrize(
    ("most", "unit", "ticks"),
    [
        (0, Unit.NUMBER, [0, 1]),
        (1, Unit.NUMBER, [0, 0.25, 0.5, 0.75, 1]),
        (7, Unit.NUMBER, [0, 2, 4, 6, 8]),
        (190, Unit.WATTS, [0, 50, 100, 150, 200]),
        (12 << 30, Unit.BYTES, [0, 5 << 30, 10 << 30, 15 << 30]),
        (0.003, Unit.SECONDS, [0, 0.001, 0.002, 0.003]),
        (500, Unit.SECONDS, [0, 150, 300, 450, 600]),
    ],
)
def test_scales_are_round(most: float, unit: Unit, ticks: list[float]) -> None:
    panel = Panel("row", "title", "about", unit, ())
    assert console.scale(most, panel) == pytest.approx(ticks)


def test_a_gap_is_a_gap_and_a_stack_is_stacked() -> None:
    times = [NOW - 600, NOW - 580, NOW - 100, NOW - 80]
    lines = [{"metric": {"server": name}, "values": [[when, "3"] for when in times]} for name in ("a", "b")]
    of = FakePrometheus()
    of.series = lines
    with of.running():
        drawn = console.picture(Prometheus(of.url), PANELS[6], 3600, NOW)
        stack = console.picture(Prometheus(of.url), PANELS[7], 3600, NOW)
    assert PANELS[7].shape is Shape.STACK
    assert [len(curve.paths) for curve in drawn.curves] == [2, 2, 2, 2]
    tops = [float(re.findall(r",([0-9.]+)", curve.paths[0])[0]) for curve in stack.curves]
    assert tops[0] > tops[1]  # the second one is above


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (1, Unit.YES, "yes"),
        (0, Unit.YES, "no"),
        (0.123, Unit.SHARE, "12.3 %"),
        (12 << 30, Unit.BYTES, "12 GiB"),
        (2.85e9, Unit.HERTZ, "2.85 GHz"),
        (90, Unit.SECONDS, "90 s"),
        (300, Unit.SECONDS, "5 min"),
        (30 * 86400, Unit.SECONDS, "30 d"),
        (3868, Unit.WATTS, "3868 W"),
    ],
)
def test_values_are_for_people(number: float, unit: Unit, text: str) -> None:
    assert console.value(number, unit) == text


def test_a_legend_lacks_no_label() -> None:
    assert console.legend(Query("x", "{{a}} of {{b}}"), Line({"a": "1"}, ((0, 0),))) == "1 of"


def test_an_address_that_may_not_be_asked() -> None:
    from patchforge.operate.asking import checked

    with pytest.raises(PatchforgeError, match="not asked"):
        checked("http://prometheus.example:9090")
