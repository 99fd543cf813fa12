"""Every panel, once: Grafana's dashboard, the exporter's own page and their tests are made from here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby


class Shape(StrEnum):
    """How a panel looks."""

    LINES = "lines"
    STACK = "stack"
    NUMBER = "number"
    STATE = "state"  #: 1 is good, 0 is bad
    ALARM = "alarm"  #: how often something is wrong, by its name and ``severity``; no series is good


#: Shapes of one value for each series, without a curve.
NUMBERS = frozenset({Shape.NUMBER, Shape.STATE, Shape.ALARM})


class Unit(StrEnum):
    """What its values are."""

    NUMBER = "number"
    BYTES = "bytes"
    SECONDS = "seconds"
    SHARE = "share"  #: 1 is all
    WATTS = "watts"
    CELSIUS = "celsius"
    HERTZ = "hertz"
    PER_HOUR = "per hour"
    YES = "yes or no"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of Prometheus, and how a series is called: ``{{label}}`` stands for a label's value."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``width``: of 24 columns; ``most``: the top of its scale, where that is known."""

    row: str
    title: str
    about: str
    unit: Unit
    queries: tuple[Query, ...]
    shape: Shape = Shape.LINES
    width: int = 8
    most: float | None = None

    @property
    def name(self) -> str:
        """For addresses."""
        return "".join(letter if letter.isalnum() else "-" for letter in f"{self.row} {self.title}".lower())


_NOW, _JOBS, _GPU, _MEMORY, _OLLAMA, _MACHINE = "Now", "Jobs", "GPU", "Memory", "Ollama", "Machine and upkeep"


def _one(expr: str, legend: str = "") -> tuple[Query, ...]:
    return (Query(expr, legend),)


PANELS: tuple[Panel, ...] = (
    Panel(_NOW, "ComfyUI", "It answers.", Unit.YES, _one("comfyui_up", "{{server}}"), Shape.STATE, 4),
    Panel(
        _NOW,
        "Health",
        "What patchforge health found last.",
        Unit.YES,
        _one("patchforge_health_ok", "{{probe}}"),
        Shape.STATE,
        4,
    ),
    Panel(_NOW, "Ollama", "It answers.", Unit.YES, _one("ollama_up", "{{server}}"), Shape.STATE, 4),
    Panel(_NOW, "GPUs", "Intel GPUs with a driver.", Unit.NUMBER, _one("count(hw_gpu_info)"), Shape.NUMBER, 4),
    Panel(_NOW, "Waiting", "Jobs that wait.", Unit.NUMBER, _one("sum(comfyui_queue_pending)"), Shape.NUMBER, 4),
    Panel(
        _NOW,
        "Alerts",
        "Alerts that fire.",
        Unit.NUMBER,
        _one('count by (alertname, severity) (ALERTS{alertstate="firing"})', "{{alertname}}"),
        Shape.ALARM,
        4,
    ),
    Panel(
        _JOBS,
        "Queue",
        "Jobs that run and that wait.",
        Unit.NUMBER,
        (
            Query("comfyui_queue_pending", "waiting at {{server}}"),
            Query("comfyui_queue_running", "running at {{server}}"),
        ),
    ),
    Panel(
        _JOBS,
        "Ended",
        "Jobs that ended within five minutes, as a rate.",
        Unit.PER_HOUR,
        _one("3600 * rate(comfyui_jobs_total[5m])", "{{status}}"),
        Shape.STACK,
    ),
    Panel(
        _JOBS,
        "Duration",
        "How long jobs ran: half of them, and 95 of 100.",
        Unit.SECONDS,
        tuple(
            Query(f"histogram_quantile({share}, sum by (le) (rate(comfyui_job_duration_seconds_bucket[30m])))", legend)
            for share, legend in ((0.5, "half"), (0.95, "95 of 100"))
        ),
    ),
    Panel(
        _JOBS,
        "The job at hand",
        "How long it has run, and how long it has not moved.",
        Unit.SECONDS,
        (
            Query("comfyui_running_job_seconds", "has run"),
            Query("comfyui_running_job_stalled_seconds", "has not moved"),
        ),
    ),
    Panel(
        _JOBS,
        "Time in nodes",
        "Share of the time by class of node, the largest.",
        Unit.SHARE,
        _one("topk(8, sum by (class_type) (rate(comfyui_node_seconds_total[5m])))", "{{class_type}}"),
        Shape.STACK,
    ),
    Panel(
        _JOBS,
        "On the CPU",
        "Nodes that sampled or decoded while the GPU did nothing.",
        Unit.NUMBER,
        _one("sum by (class_type) (comfyui_cpu_fallbacks_total)", "{{class_type}}"),
    ),
    Panel(
        _GPU,
        "Utilization",
        "Share of the time that engines worked, for the processes seen.",
        Unit.SHARE,
        _one('hw_gpu_utilization_ratio{hw_gpu_task!="all"}', "{{pci_bdf}} {{hw_gpu_task}}"),
        most=1,
    ),
    Panel(
        _GPU,
        "Power",
        "Mean power, and the limit.",
        Unit.WATTS,
        (
            Query("hw_power_watts", "{{pci_bdf}} {{hw_sensor_location}}"),
            Query("hw_power_limit_watts", "{{pci_bdf}} {{hw_sensor_location}}, limit"),
        ),
    ),
    Panel(
        _GPU,
        "Temperature",
        "Of the GPU and its memory.",
        Unit.CELSIUS,
        _one("hw_temperature_celsius", "{{pci_bdf}} {{hw_sensor_location}}"),
    ),
    Panel(
        _GPU,
        "Frequency",
        "Now.",
        Unit.HERTZ,
        _one("hw_frequency_hertz", "{{pci_bdf}} {{hw_frequency_domain}}"),
    ),
    Panel(
        _GPU,
        "Slowed down",
        "Share of five minutes, by reason.",
        Unit.SHARE,
        _one(
            "max by (pci_bdf, reason) (avg_over_time(hw_frequency_throttle_status[5m])) > 0"
            ' or max by (pci_bdf, reason) (avg_over_time(hw_frequency_throttle_status{reason="any"}[5m]))',
            "{{pci_bdf}} {{reason}}",
        ),
        most=1,
    ),
    Panel(
        _GPU,
        "Resets and energy",
        "Engine resets so far; energy of an hour in Wh.",
        Unit.NUMBER,
        (
            Query("hw_errors_total", "{{pci_bdf}} resets"),
            Query("increase(hw_energy_joules_total[1h]) / 3600", "{{pci_bdf}} {{hw_sensor_location}}, Wh"),
        ),
    ),
    Panel(
        _MEMORY,
        "GPU memory",
        "Used, and what there is.",
        Unit.BYTES,
        (
            Query("hw_memory_usage_bytes", "{{pci_bdf}} used"),
            Query("hw_memory_size_bytes", "{{pci_bdf}} size"),
        ),
    ),
    Panel(
        _MEMORY,
        "By service",
        "GPU memory that units hold.",
        Unit.BYTES,
        _one("patchforge_service_vram_bytes", "{{service}}"),
        Shape.STACK,
    ),
    Panel(
        _MEMORY,
        "As ComfyUI tells it",
        "Memory that is not free, of GPUs and of RAM.",
        Unit.BYTES,
        (
            Query("comfyui_vram_total_bytes - comfyui_vram_free_bytes", "VRAM of device {{device}}"),
            Query("comfyui_ram_total_bytes - comfyui_ram_free_bytes", "RAM"),
        ),
    ),
    Panel(
        _OLLAMA,
        "Models",
        "Memory of loaded models.",
        Unit.BYTES,
        _one("ollama_model_size_bytes", "{{model}}"),
        Shape.STACK,
    ),
    Panel(
        _OLLAMA,
        "Share on the CPU",
        "Of each loaded model.",
        Unit.SHARE,
        _one("ollama_model_cpu_ratio", "{{model}}"),
        most=1,
    ),
    Panel(
        _OLLAMA,
        "Unloaded in",
        "When loaded models go.",
        Unit.SECONDS,
        _one("ollama_model_expires_timestamp_seconds - time()", "{{model}}"),
    ),
    Panel(
        _MACHINE,
        "Disk left",
        "Of the folders named.",
        Unit.SHARE,
        _one("patchforge_filesystem_avail_bytes / patchforge_filesystem_size_bytes", "{{path}}"),
        most=1,
    ),
    Panel(
        _MACHINE,
        "Benchmark",
        "Time of the last validation against the last good one; 1: equal.",
        Unit.NUMBER,
        _one("patchforge_benchmark_ratio", "{{server}}"),
    ),
    Panel(
        _MACHINE,
        "Certificates end in",
        "Less than two weeks is an alert.",
        Unit.SECONDS,
        _one("patchforge_certificate_expiry_timestamp_seconds - time()", "{{certificate}}"),
    ),
)


def rows() -> Iterator[tuple[str, list[Panel]]]:
    """The panels row by row."""
    return ((name, list(group)) for name, group in groupby(PANELS, lambda panel: panel.row))
