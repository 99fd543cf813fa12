"""Every metric, once: what the exporter gives, rules and panels ask for, and ``docs/monitoring.md`` lists.

What is read of the hardware has the names that Intel's own collector (XPU Manager 2's ``xpumd``) gives it, after
OpenTelemetry's conventions for hardware, so that dashboards for one show the other. Units are in the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class MetricKind(StrEnum):
    """As Prometheus has them."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``of`` is what it tells of, a heading of the documentation."""

    of: str
    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    help: str

    @property
    def family(self) -> str:
        """Its name without what the library adds to a counter's."""
        return self.name.removesuffix("_total") if self.kind is MetricKind.COUNTER else self.name


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric, with its labels in the table's order. Of a histogram: how many of each bucket."""

    name: str
    value: float
    labels: tuple[str, ...] = ()
    buckets: tuple[tuple[str, float], ...] = field(default=())  #: upper bound → how many up to it; value is the sum


HARDWARE, SERVICES, COMFYUI, OLLAMA, MACHINE, RECORDS, OWN = (
    "GPUs",
    "GPU memory by service",
    "ComfyUI",
    "Ollama",
    "The machine",
    "Health and upkeep",
    "The exporter",
)

#: Seconds; the last bucket of Prometheus' is +Inf.
DURATIONS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)
#: Why a server could not be read.
ERRORS = ("refused", "timeout", "broken", "status", "garbage", "unexpected")

_G, _C, _H = MetricKind.GAUGE, MetricKind.COUNTER, MetricKind.HISTOGRAM
_GPU, _SENSOR = ("pci_bdf",), ("pci_bdf", "hw_sensor_location")
_DOMAIN, _MEMORY = ("pci_bdf", "hw_frequency_domain"), ("pci_bdf", "hw_memory_location")
_SERVER, _DEVICE, _CLASS = ("server",), ("server", "device"), ("server", "class_type")


def _of(subject: str, *rows: tuple[str, MetricKind, tuple[str, ...], str]) -> Iterator[Metric]:
    return (Metric(subject, *row) for row in rows)


METRICS: tuple[Metric, ...] = (
    *_of(
        HARDWARE,
        ("hw_gpu_info", _G, ("pci_bdf", "driver", "device_id"), "1 for each Intel GPU that has a driver"),
        ("hw_energy_joules_total", _C, _SENSOR, "energy taken so far, by card or package; followed where it wraps"),
        ("hw_power_watts", _G, _SENSOR, "mean power between the last two readings of the energy counter"),
        ("hw_power_limit_watts", _G, _SENSOR, "sustained power limit (PL1)"),
        ("hw_temperature_celsius", _G, _SENSOR, "temperature of gpu (the package) or memory"),
        ("hw_fan_speed_rpm", _G, _SENSOR, "speed of a fan"),
        ("hw_voltage_volts", _G, _SENSOR, "voltage"),
        ("hw_frequency_hertz", _G, _DOMAIN, "frequency now, of gpu or media"),
        ("hw_frequency_limit_hertz", _G, (*_DOMAIN, "hw_limit_type"), "lowest (min) and highest (max) frequency set"),
        (
            "hw_frequency_throttle_status",
            _G,
            (*_DOMAIN, "reason"),
            "1 while it is slowed down: for any reason, and by reason (pl1, thermal, …)",
        ),
        ("hw_memory_size_bytes", _G, _MEMORY, "its own memory, by cgroups; not measured with i915"),
        ("hw_memory_usage_bytes", _G, _MEMORY, "what is used of it, by cgroups, else (i915) by the processes seen"),
        (
            "hw_gpu_utilization_ratio",
            _G,
            ("pci_bdf", "hw_gpu_task"),
            "share of the time that engines worked, for the processes seen; all is the busiest kind",
        ),
        (
            "hw_errors_total",
            _C,
            ("pci_bdf", "error_type"),
            "engine_reset: dumps that xe left of one, since the exporter began; not measured with i915",
        ),
    ),
    *_of(
        SERVICES,
        ("patchforge_service_vram_bytes", _G, ("service", "pci_bdf"), "GPU memory that a unit holds"),
        ("patchforge_service_vram_limit_bytes", _G, ("service", "pci_bdf"), "the most that it may hold, where set"),
    ),
    *_of(
        COMFYUI,
        ("comfyui_up", _G, _SERVER, "1 when every answer could be read"),
        ("comfyui_scrape_error", _G, ("server", "kind"), f"1 for why not: {', '.join(ERRORS)}"),
        ("comfyui_scrape_duration_seconds", _G, _SERVER, "how long it took to answer"),
        ("comfyui_info", _G, ("server", "version", "pytorch", "python"), "1; versions"),
        ("comfyui_device_info", _G, ("server", "device", "type", "name"), "1 for each device that it uses"),
        ("comfyui_device_lost", _G, _DEVICE, "1 when it says that its driver has given a GPU up"),
        ("comfyui_vram_total_bytes", _G, _DEVICE, "memory of a device, as ComfyUI tells it"),
        ("comfyui_vram_free_bytes", _G, _DEVICE, "free memory of a device, as ComfyUI tells it"),
        ("comfyui_ram_total_bytes", _G, _SERVER, "RAM"),
        ("comfyui_ram_free_bytes", _G, _SERVER, "free RAM"),
        ("comfyui_queue_running", _G, _SERVER, "jobs that run"),
        ("comfyui_queue_pending", _G, _SERVER, "jobs that wait"),
        (
            "comfyui_jobs_total",
            _C,
            ("server", "status"),
            "jobs that ended since the exporter began: completed, failed, cancelled",
        ),
        ("comfyui_job_duration_seconds", _H, _SERVER, "how long jobs ran, those that failed included"),
        ("comfyui_running_job_seconds", _G, _SERVER, "how long the job has run that runs; 0 without one"),
        ("comfyui_pack_up", _G, _SERVER, "1 when the pack patchforge-watch answers; what follows comes from it"),
        ("comfyui_worker_alive", _G, _SERVER, "0 when the thread that works on jobs has ended"),
        ("comfyui_running_job_stalled_seconds", _G, _SERVER, "since the job that runs last moved; 0 without one"),
        ("comfyui_node_seconds_total", _C, _CLASS, "time in nodes of a class"),
        ("comfyui_node_runs_total", _C, _CLASS, "runs of nodes of a class, without those from the cache"),
        ("comfyui_node_operations_total", _C, _CLASS, "what the device did in them: allocations, emulated: operations"),
        (
            "comfyui_cpu_fallbacks_total",
            _C,
            _CLASS,
            "runs of nodes that sample or decode with a model while the GPU did nothing",
        ),
    ),
    *_of(
        OLLAMA,
        ("ollama_up", _G, _SERVER, "1 when every answer could be read"),
        ("ollama_scrape_error", _G, ("server", "kind"), f"1 for why not: {', '.join(ERRORS)}"),
        ("ollama_info", _G, ("server", "version"), "1; its version"),
        ("ollama_models_loaded", _G, _SERVER, "models in memory"),
        ("ollama_model_size_bytes", _G, ("server", "model"), "memory that a loaded model takes"),
        ("ollama_model_vram_bytes", _G, ("server", "model"), "how much of that is on GPUs"),
        ("ollama_model_cpu_ratio", _G, ("server", "model"), "share of it that is not"),
        ("ollama_model_expires_timestamp_seconds", _G, ("server", "model"), "when it is unloaded"),
    ),
    *_of(
        MACHINE,
        ("patchforge_filesystem_size_bytes", _G, ("path",), "size of the file system of a folder named with --disk"),
        ("patchforge_filesystem_avail_bytes", _G, ("path",), "what is left of it for users"),
        (
            "patchforge_certificate_expiry_timestamp_seconds",
            _G,
            ("certificate",),
            "when one named with --certificate ends",
        ),
        ("patchforge_certificate_error", _G, ("certificate",), "1 when it cannot be read"),
    ),
    *_of(
        RECORDS,
        ("patchforge_health_ok", _G, ("server", "probe"), "1 when the last patchforge health found it in order"),
        ("patchforge_health_timestamp_seconds", _G, ("server", "probe"), "when that was"),
        ("patchforge_health_duration_seconds", _G, ("server", "probe"), "how long it took"),
        ("patchforge_validation_ok", _G, _SERVER, "1 when the last patchforge validate passed"),
        ("patchforge_validation_timestamp_seconds", _G, _SERVER, "when that was"),
        ("patchforge_benchmark_ratio", _G, _SERVER, "time of its quick benchmark against the last good one; 1: equal"),
        ("patchforge_benchmark_regressed", _G, _SERVER, "1 when it is slower than noise explains"),
        ("patchforge_maintenance_timestamp_seconds", _G, ("state",), "when patchforge maintain last ended"),
        ("patchforge_maintenance_ok", _G, ("state",), "1 when it did all that it was asked to"),
        ("patchforge_maintenance_freed_bytes", _G, ("state",), "what it freed then"),
    ),
    *_of(
        OWN,
        ("patchforge_exporter_info", _G, ("version",), "1; the version of patchforge"),
        ("patchforge_exporter_collect_seconds", _G, (), "how long reading the hardware took, for this answer"),
        ("patchforge_record_error", _G, ("record",), "1 for a record in --state that cannot be read"),
    ),
)
BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}


def checked(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples; ValueError for one that the table does not have like this, or of no label's number."""
    for sample in samples:
        known = BY_NAME.get(sample.name)
        if known is None or len(known.labels) != len(sample.labels):
            raise ValueError(f"{sample.name} with {len(sample.labels)} labels is not in the table")
        yield sample


def series(metric: Metric) -> Sequence[str]:
    """The names that a query may use for a metric."""
    if metric.kind is MetricKind.HISTOGRAM:
        return [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
    return [metric.name]
