"""The table of metrics, and what is made of it."""

from __future__ import annotations

import re

import pytest

from patchforge.operate import generate
from patchforge.operate.metrics import BY_NAME, METRICS, MetricKind, Sample, checked
from tests.support import ROOT

#: Prometheus' base units, and what has none; https://prometheus.io/docs/practices/naming/
UNITS = re.compile(r".*_(seconds|bytes|celsius|hertz|watts|joules|volts|ratio|rpm|total|info|up|ok|alive|error|lost"
                   r"|regressed|status|running|pending|loaded)")  # fmt: skip


def test_names_are_unique_and_have_their_unit_last() -> None:
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"(hw|comfyui|ollama|patchforge)_[a-z_]+", metric.name)
        assert UNITS.fullmatch(metric.name), metric.name
        assert (metric.kind is MetricKind.COUNTER) == metric.name.endswith("_total"), metric.name
        assert metric.help
        assert len(set(metric.labels)) == len(metric.labels)


def test_a_sample_that_the_table_does_not_have_is_refused() -> None:
    assert list(checked([Sample("comfyui_up", 1, ("a",))]))
    for wrong in (Sample("comfyui_upp", 1, ("a",)), Sample("comfyui_up", 1), Sample("comfyui_up", 1, ("a", "b"))):
        with pytest.raises(ValueError, match="not in the table"):
            list(checked([wrong]))


def test_the_page_has_the_tables_of_today() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    assert generate.filled(page) == page, "make docs"
    for metric in METRICS:
        assert f"| `{metric.name}` |" in page
