"""Every alert, once: Prometheus' rules are made from here, and each has a section in ``docs/runbooks.md``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RUNBOOKS = "docs/runbooks.md"
_GPU_WAS_THERE = "on (instance) count by (instance) (max_over_time(hw_gpu_info[6h])) > 0"
_AS_MANY = "{{ $value | humanizePercentage }}"


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule. ``wait``: how long it must hold, as Prometheus writes it; ``severity``: critical, warning or info."""

    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    description: str

    @property
    def runbook(self) -> str:
        """Its section."""
        return f"{RUNBOOKS}#{self.name.lower()}"

    def rule(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.wait,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.description, "runbook": self.runbook},
        }


ALERTS: tuple[Alert, ...] = (
    Alert(
        "ComfyUIDown",
        "comfyui_up == 0",
        "2m",
        "critical",
        "ComfyUI at {{ $labels.server }} does not answer",
        "It cannot be reached, or what it answers cannot be used; comfyui_scrape_error says which.",
    ),
    Alert(
        "ComfyUIDeviceLost",
        "comfyui_device_lost == 1",
        "0m",
        "critical",
        "ComfyUI at {{ $labels.server }} has lost its GPU",
        "The driver has reset the GPU. Every job fails until ComfyUI is restarted.",
    ),
    Alert(
        "ComfyUIStuck",
        "comfyui_running_job_stalled_seconds > 600",
        "1m",
        "critical",
        "A job of ComfyUI at {{ $labels.server }} stands still",
        "It has not moved for {{ $value | humanizeDuration }}, and all jobs behind it wait.",
    ),
    Alert(
        "ComfyUIJobTooLong",
        "comfyui_running_job_seconds > 3600 and on (server, instance) comfyui_pack_up == 0",
        "0m",
        "warning",
        "A job of ComfyUI at {{ $labels.server }} runs for more than an hour",
        "Whether it moves cannot be told: the pack patchforge-watch is not installed.",
    ),
    Alert(
        "ComfyUIQueueStopped",
        "(comfyui_queue_pending > 0 and on (server, instance) comfyui_queue_running == 0) or comfyui_worker_alive == 0",
        "3m",
        "critical",
        "ComfyUI at {{ $labels.server }} does not work on its jobs",
        "Jobs wait and none runs, or the thread that works on them has ended.",
    ),
    Alert(
        "ComfyUIOnCpu",
        f'comfyui_device_info{{device="0", type="cpu"}} == 1 and {_GPU_WAS_THERE}',
        "1m",
        "critical",
        "ComfyUI at {{ $labels.server }} computes on the CPU",
        "This machine has an Intel GPU, and ComfyUI found none when it was started.",
    ),
    Alert(
        "ComfyUICpuFallback",
        "increase(comfyui_cpu_fallbacks_total[10m]) > 0"
        " or (comfyui_cpu_fallbacks_total > 0 unless comfyui_cpu_fallbacks_total offset 10m)",
        "0m",
        "warning",
        "{{ $labels.class_type }} was computed on the CPU, at {{ $labels.server }}",
        "Nodes of this class sampled or decoded with a model while the GPU did nothing.",
    ),
    Alert(
        "ComfyUIFailureRate",
        'sum by (server, instance) (increase(comfyui_jobs_total{status="failed"}[30m]))'
        ' / sum by (server, instance) (increase(comfyui_jobs_total{status=~"completed|failed"}[30m])) > 0.2'
        ' and sum by (server, instance) (increase(comfyui_jobs_total{status="failed"}[30m])) > 2.5',
        "0m",
        "warning",
        "Many jobs of ComfyUI at {{ $labels.server }} fail",
        f"{_AS_MANY} of the jobs of the last half hour failed.",
    ),
    Alert(
        "ComfyUIBacklog",
        "comfyui_queue_pending > 20",
        "15m",
        "warning",
        "Jobs pile up at {{ $labels.server }}",
        "{{ $value }} jobs wait.",
    ),
    Alert(
        "ComfyUIUnhealthy",
        "patchforge_health_ok == 0",
        "0m",
        "critical",
        "ComfyUI at {{ $labels.server }} is not in order",
        "patchforge health --{{ $labels.probe }} found it so; its log has the reason.",
    ),
    Alert(
        "HealthNotChecked",
        "time() - patchforge_health_timestamp_seconds > 3600",
        "0m",
        "warning",
        "The health of {{ $labels.server }} is not looked at",
        "The last patchforge health --{{ $labels.probe }} was {{ $value | humanizeDuration }} ago.",
    ),
    Alert(
        "GpuMissing",
        "(max_over_time(hw_gpu_info[6h]) unless hw_gpu_info) and on (instance) patchforge_exporter_info",
        "1m",
        "critical",
        "The GPU {{ $labels.pci_bdf }} is gone",
        "It was there in the last six hours, and the driver {{ $labels.driver }} shows it no more.",
    ),
    Alert(
        "GpuMemoryNearlyFull",
        "hw_memory_usage_bytes / hw_memory_size_bytes > 0.95"
        " or (1 - comfyui_vram_free_bytes / comfyui_vram_total_bytes > 0.97"
        " unless on (instance) hw_memory_size_bytes)",
        "10m",
        "warning",
        "GPU memory is nearly full",
        f"{_AS_MANY} of it is used. The next large model is loaded in part, or not at all.",
    ),
    Alert(
        "GpuHot",
        'hw_temperature_celsius{hw_sensor_location="gpu"} > 95'
        ' or hw_temperature_celsius{hw_sensor_location="memory"} > 100',
        "5m",
        "warning",
        "The GPU {{ $labels.pci_bdf }} is hot",
        "{{ $labels.hw_sensor_location }}: {{ $value }} degrees.",
    ),
    Alert(
        "GpuThrottled",
        'avg_over_time(hw_frequency_throttle_status{reason=~"thermal|prochot|ratl|vr_thermalert|vr_tdc"}[10m]) > 0.5',
        "5m",
        "warning",
        "The GPU {{ $labels.pci_bdf }} is slowed down: {{ $labels.reason }}",
        "For most of ten minutes, and not because of its power limit.",
    ),
    Alert(
        "GpuEngineReset",
        'increase(hw_errors_total{error_type="engine_reset"}[15m]) > 0',
        "0m",
        "warning",
        "An engine of the GPU {{ $labels.pci_bdf }} was reset",
        "Something that it computed hung. The job at hand has failed.",
    ),
    Alert(
        "OllamaDown",
        "ollama_up == 0",
        "2m",
        "critical",
        "Ollama at {{ $labels.server }} does not answer",
        "It cannot be reached, or what it answers cannot be used; ollama_scrape_error says which.",
    ),
    Alert(
        "OllamaOnCpu",
        f"ollama_model_cpu_ratio > 0.05 and {_GPU_WAS_THERE}",
        "2m",
        "warning",
        "{{ $labels.model }} is partly on the CPU",
        f"{_AS_MANY} of the model is not in GPU memory: answers come many times slower.",
    ),
    Alert(
        "DiskFillsUp",
        "predict_linear(patchforge_filesystem_avail_bytes[6h], 86400) < 0"
        " and patchforge_filesystem_avail_bytes / patchforge_filesystem_size_bytes < 0.25",
        "30m",
        "warning",
        "The disk with {{ $labels.path }} is full within a day",
        "As fast as in the last six hours.",
    ),
    Alert(
        "DiskNearlyFull",
        "patchforge_filesystem_avail_bytes / patchforge_filesystem_size_bytes < 0.05",
        "5m",
        "critical",
        "The disk with {{ $labels.path }} is nearly full",
        f"{_AS_MANY} is left.",
    ),
    Alert(
        "BenchmarkRegressed",
        "patchforge_benchmark_regressed == 1",
        "0m",
        "warning",
        "ComfyUI at {{ $labels.server }} is slower than it was",
        "The samples of patchforge validate took longer than noise explains; patchforge_benchmark_ratio says how much.",
    ),
    Alert(
        "ValidationFailed",
        "patchforge_validation_ok == 0",
        "0m",
        "critical",
        "An update of ComfyUI at {{ $labels.server }} did not pass",
        "patchforge validate says what is wrong, and how to go back.",
    ),
    Alert(
        "CertificateExpires",
        "patchforge_certificate_expiry_timestamp_seconds - time() < 14 * 86400 or patchforge_certificate_error == 1",
        "1h",
        "warning",
        "The certificate {{ $labels.certificate }} ends within two weeks, or cannot be read",
        "It was not renewed.",
    ),
    Alert(
        "MaintenanceFailed",
        "patchforge_maintenance_ok == 0 or time() - patchforge_maintenance_timestamp_seconds > 8 * 86400",
        "0m",
        "warning",
        "patchforge maintain did not do all that it should, or did not run for a week",
        "Disks fill up without it.",
    ),
    Alert(
        "ExporterDown",
        "absent(patchforge_exporter_info)",
        "5m",
        "critical",
        "No patchforge exporter answers",
        "Nothing of GPUs, ComfyUI and Ollama is known, and no other alert can fire.",
    ),
)


def rules() -> Mapping[str, Any]:
    """The file of rules."""
    return {"groups": [{"name": "patchforge", "rules": [alert.rule() for alert in ALERTS]}]}
