"""What Prometheus is told: samples of all that is watched, as the official client library writes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry

from patchforge import __version__
from patchforge.operate import machine, records
from patchforge.operate.asking import Poll
from patchforge.operate.hardware import Reader
from patchforge.operate.metrics import METRICS, Metric, MetricKind, Sample, checked

_FAMILIES = {
    MetricKind.GAUGE: GaugeMetricFamily,
    MetricKind.COUNTER: CounterMetricFamily,
    MetricKind.HISTOGRAM: HistogramMetricFamily,
}
SampleSource = Callable[[], Iterable[Sample]]


class Exporter(Collector):
    """All sources as one collector: each series once, in the table's order."""

    def __init__(self, sources: Iterable[SampleSource]) -> None:
        self._sources = tuple(sources)

    def collect(self) -> Iterator[Family]:
        series: dict[str, dict[tuple[str, ...], Sample]] = {}
        for source in self._sources:
            for sample in checked(source()):
                series.setdefault(sample.name, {})[sample.labels] = sample
        for metric in METRICS:
            if metric.name in series:
                yield family(metric, series[metric.name].values())

    def registry(self) -> CollectorRegistry:
        """It alone."""
        made = CollectorRegistry()
        made.register(self)
        return made

    def describe(self) -> list[Family]:
        """Every metric, so that registering asks no hardware."""
        return [family(metric, ()) for metric in METRICS]


class Certificates:
    """Looked at now and then: to ask for one may take seconds."""

    def __init__(self, named: Iterable[str]) -> None:
        self._named, self._found = list(named), list[Sample]()

    def look(self) -> None:
        self._found = list(machine.certificates(self._named))

    def collect(self) -> list[Sample]:
        return self._found


def family(metric: Metric, samples: Iterable[Sample]) -> Family:
    """A metric with its samples, as the library has it."""
    made: Any = _FAMILIES[metric.kind](metric.family, metric.help, labels=metric.labels)
    for sample in samples:
        if metric.kind is MetricKind.HISTOGRAM:
            made.add_metric(sample.labels, list(sample.buckets), sample.value)
        else:
            made.add_metric(sample.labels, sample.value)
    return made  # type: ignore[no-any-return]


def sources(
    reader: Reader,
    polls: Iterable[Poll],
    disks: Iterable[Path],
    slow: Callable[[], Iterable[Sample]],
    states: Iterable[Path],
) -> list[SampleSource]:
    """What is told: of the hardware now, of servers as they were last seen."""
    folders, kept = list(disks), list(states)

    def hardware() -> Iterator[Sample]:
        begin = time.perf_counter()
        samples = list(reader.collect())
        yield from samples
        yield Sample("patchforge_exporter_collect_seconds", time.perf_counter() - begin)

    def own() -> Iterator[Sample]:
        yield Sample("patchforge_exporter_info", 1, (__version__,))
        yield from machine.disks(folders)
        for state in kept:
            yield from records.collect(state)

    return [hardware, *(poll.collect for poll in polls), slow, own]
