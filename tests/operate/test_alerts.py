"""Every rule fires where it should and is quiet where it should be, as promtool says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from patchforge.operate import alerts
from patchforge.operate.alerts import ALERTS
from patchforge.operate.metrics import METRICS, series
from tests.support import ROOT
from tests.test_readme import anchors

Series = dict[str, str]
NAMES = {name for metric in METRICS for name in series(metric)}
C = 'server="c", instance="i"'
G = 'pci_bdf="0000:03:00.0", instance="i"'
INFO = f'hw_gpu_info{{{G}, driver="xe", device_id="0xe20b"}}'
OWN = 'patchforge_exporter_info{version="1", instance="i"}'
DAY = 86400


class Case(NamedTuple):
    """Series as promtool writes them, one value a minute; at which minute the rule fires, and when it is quiet."""

    fires: Series
    quiet: Series
    at: int = 30
    times: int = 1  #: how many alerts


def jobs(failed: str, completed: str) -> Series:
    return {
        f'comfyui_jobs_total{{{C}, status="failed"}}': failed,
        f'comfyui_jobs_total{{{C}, status="completed"}}': completed,
    }


def disk(left: str) -> Series:
    return {
        'patchforge_filesystem_avail_bytes{path="/d", instance="i"}': left,
        'patchforge_filesystem_size_bytes{path="/d", instance="i"}': "1000x600",
    }


def always(name: str, value: float, more: int = 600) -> Series:
    return {name: f"{value:g}x{more}"}


CASES: dict[str, Case] = {
    "ComfyUIDown": Case(always(f"comfyui_up{{{C}}}", 0), {f"comfyui_up{{{C}}}": "1x20 0 1x600"}),
    "ComfyUIDeviceLost": Case(
        always(f'comfyui_device_lost{{{C}, device="0"}}', 1), always(f'comfyui_device_lost{{{C}, device="0"}}', 0)
    ),
    "ComfyUIStuck": Case(
        {f"comfyui_running_job_stalled_seconds{{{C}}}": "0+60x60"},
        {f"comfyui_running_job_stalled_seconds{{{C}}}": "0+15x60"},
    ),
    "ComfyUIJobTooLong": Case(
        {f"comfyui_running_job_seconds{{{C}}}": "0+200x60", f"comfyui_pack_up{{{C}}}": "0x60"},
        {f"comfyui_running_job_seconds{{{C}}}": "0+200x60", f"comfyui_pack_up{{{C}}}": "1x60"},
    ),
    "ComfyUIQueueStopped": Case(
        {f"comfyui_queue_pending{{{C}}}": "2x60", f"comfyui_queue_running{{{C}}}": "0x60"},
        {
            f"comfyui_queue_pending{{{C}}}": "2x60",
            f"comfyui_queue_running{{{C}}}": "1x60",
            f"comfyui_worker_alive{{{C}}}": "1x60",
        },
    ),
    "ComfyUIOnCpu": Case(
        {f'comfyui_device_info{{{C}, device="0", type="cpu", name="cpu"}}': "1x60", INFO: "1x5 stale"},
        {f'comfyui_device_info{{{C}, device="0", type="cpu", name="cpu"}}': "1x60"},
    ),
    "ComfyUICpuFallback": Case(
        {
            f'comfyui_cpu_fallbacks_total{{{C}, class_type="KSampler"}}': "0x24 1x60",
            f'comfyui_cpu_fallbacks_total{{{C}, class_type="VAEDecode"}}': "_x24 1x60",
            f'comfyui_cpu_fallbacks_total{{{C}, class_type="Old"}}': "7x60",
        },
        {f'comfyui_cpu_fallbacks_total{{{C}, class_type="KSampler"}}': "3x60"},
        times=2,
    ),
    "ComfyUIFailureRate": Case(jobs("0 0 1+1x60", "0+1x60"), jobs("0x20 1 2 2x60", "0+1x60"), at=40),
    "ComfyUIBacklog": Case(
        always(f"comfyui_queue_pending{{{C}}}", 25), {f"comfyui_queue_pending{{{C}}}": "25x14 3 25x600"}, at=20
    ),
    "ComfyUIUnhealthy": Case(
        always(f'patchforge_health_ok{{{C}, probe="deep"}}', 0), always(f'patchforge_health_ok{{{C}, probe="deep"}}', 1)
    ),
    "HealthNotChecked": Case(
        always(f'patchforge_health_timestamp_seconds{{{C}, probe="deep"}}', 1),
        {f'patchforge_health_timestamp_seconds{{{C}, probe="deep"}}': "0+60x600"},
        at=70,
    ),
    "GpuMissing": Case({INFO: "1x10 stale", OWN: "1x60"}, {INFO: "1x10 stale", OWN: "1x10 stale"}),
    "GpuMemoryNearlyFull": Case(
        {
            f'hw_memory_usage_bytes{{{G}, hw_memory_location="device"}}': "96x60",
            f'hw_memory_size_bytes{{{G}, hw_memory_location="device"}}': "100x60",
            'comfyui_vram_free_bytes{server="d", instance="j", device="0"}': "1x60",
            'comfyui_vram_total_bytes{server="d", instance="j", device="0"}': "100x60",
        },
        {
            f'hw_memory_usage_bytes{{{G}, hw_memory_location="device"}}': "90x60",
            f'hw_memory_size_bytes{{{G}, hw_memory_location="device"}}': "100x60",
            f'comfyui_vram_free_bytes{{{C}, device="0"}}': "1x60",
            f'comfyui_vram_total_bytes{{{C}, device="0"}}': "100x60",
        },
        times=2,
    ),
    "GpuHot": Case(
        always(f'hw_temperature_celsius{{{G}, hw_sensor_location="gpu"}}', 97),
        always(f'hw_temperature_celsius{{{G}, hw_sensor_location="memory"}}', 97),
    ),
    "GpuThrottled": Case(
        always(f'hw_frequency_throttle_status{{{G}, hw_frequency_domain="gpu", reason="thermal"}}', 1),
        always(f'hw_frequency_throttle_status{{{G}, hw_frequency_domain="gpu", reason="pl1"}}', 1),
    ),
    "GpuEngineReset": Case(
        {f'hw_errors_total{{{G}, error_type="engine_reset"}}': "0x20 1x60"},
        {f'hw_errors_total{{{G}, error_type="engine_reset"}}': "4x60"},
    ),
    "OllamaDown": Case(always(f"ollama_up{{{C}}}", 0), always(f"ollama_up{{{C}}}", 1)),
    "OllamaOnCpu": Case(
        {f'ollama_model_cpu_ratio{{{C}, model="m"}}': "0.4x60", INFO: "1x60"},
        {f'ollama_model_cpu_ratio{{{C}, model="m"}}': "0.4x60"},
    ),
    "DiskFillsUp": Case(disk("700-1.5x600"), disk("200x600"), at=500),
    "DiskNearlyFull": Case(disk("40x600"), disk("60x600")),
    "BenchmarkRegressed": Case(
        always(f"patchforge_benchmark_regressed{{{C}}}", 1), always(f"patchforge_benchmark_regressed{{{C}}}", 0)
    ),
    "ValidationFailed": Case(
        always(f"patchforge_validation_ok{{{C}}}", 0), always(f"patchforge_validation_ok{{{C}}}", 1)
    ),
    "CertificateExpires": Case(
        always('patchforge_certificate_expiry_timestamp_seconds{certificate="c"}', 13 * DAY),
        always('patchforge_certificate_expiry_timestamp_seconds{certificate="c"}', 15 * DAY),
        at=90,
    ),
    "MaintenanceFailed": Case(always("patchforge_maintenance_ok", 0), always("patchforge_maintenance_ok", 1)),
    "ExporterDown": Case({}, {OWN: "1x600"}),
}


def test_there_are_enough_and_each_has_a_case() -> None:
    assert len(ALERTS) >= 15
    assert CASES.keys() == {alert.name for alert in ALERTS}


def test_each_has_a_runbook_of_its_own() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text("utf-8")
    sections = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert sections == [alert.name for alert in ALERTS]
    assert {alert.runbook.partition("#")[2] for alert in ALERTS} <= anchors(text)


def test_each_says_what_and_why() -> None:
    for alert in ALERTS:
        assert alert.summary
        assert alert.description
        assert alert.summary != alert.description
        assert alert.severity in {"critical", "warning", "info"}


def test_no_rule_asks_for_a_metric_that_there_is_not() -> None:
    for alert in ALERTS:
        assert set(metrics_of(alert.expr)) <= NAMES, alert.name


def metrics_of(expr: str) -> list[str]:
    """The metrics that a query names."""
    without = re.sub(r"\{[^}]*\}|\"[^\"]*\"|(?:by|on|ignoring|group_left) \([^)]*\)", "", expr)
    return re.findall(r"\b(?:hw|comfyui|ollama|patchforge|node|up)_\w+", without)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize("quiet", [False, True], ids=["fires", "quiet"])
def test_rules(tmp_path: Path, *, quiet: bool) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(alerts.rules()))
    tests = []
    for name, case in CASES.items():
        given = [
            {"series": series_name, "values": values}
            for series_name, values in (case.quiet if quiet else case.fires).items()
        ]
        rule = next(alert for alert in ALERTS if alert.name == name)
        # how many fire, and that their texts can be made
        count = f'count(ALERTS{{alertname="{name}", alertstate="firing", severity="{rule.severity}"}}) or vector(0)'
        expected = [{"labels": "{}", "value": 0 if quiet else case.times}]
        asked = [{"expr": count, "eval_time": f"{case.at}m", "exp_samples": expected}]
        tests.append({"name": name, "interval": "1m", "input_series": given, "promql_expr_test": asked})
    document: dict[str, Any] = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
