"""A real Prometheus with the real rules, a real Alertmanager, and patchforge's exporter, each a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from patchforge.operate import alerts
from tests.support import ROOT

MISSING = [name for name in ("prometheus", "prometheus-alertmanager") if not shutil.which(name)]
#: What time is in the test: windows and thresholds of minutes and hours as seconds.
_WINDOWS = {"6h": "90s", "30m": "40s", "15m": "30s", "10m": "15s", "1h": "60s"}
_PATIENCE = 90.0


def quicker(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules for a test that takes a minute: the same but for their times."""
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = "0s" if rule["for"] == "0m" else "2s"
        rule["expr"] = re.sub(r"(\[|offset )(\d+[mh])", lambda match: match[1] + _WINDOWS[match[2]], rule["expr"])
        rule["expr"] = rule["expr"].replace("stalled_seconds > 600", "stalled_seconds > 4")
    return rules


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


class Stack:
    """What runs, and what can be asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[str, dict[str, str]] = {}  #: all alerts that were received so far
        self.ports = {name: free_port() for name in ("prometheus", "alertmanager", "exporter")}
        self.url = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}

    @contextmanager
    def running(self, *arguments: str) -> Iterator[None]:
        """``arguments`` are the exporter's."""
        self._configure()
        commands = {
            "exporter": [
                *(sys.executable, "-m", "patchforge", "exporter", "--listen", f"127.0.0.1:{self.ports['exporter']}"),
                *("--prometheus", self.url["prometheus"], "--interval", "1", *arguments),
            ],
            "alertmanager": [
                "prometheus-alertmanager",
                f"--config.file={self.folder}/alertmanager.yml",
                f"--storage.path={self.folder}/alerts",
                f"--web.listen-address=127.0.0.1:{self.ports['alertmanager']}",
                "--cluster.listen-address=",
            ],
            "prometheus": [
                "prometheus",
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}",
            ],
        }
        ready = {"exporter": "/-/healthy", "alertmanager": "/-/ready", "prometheus": "/-/ready"}
        with ExitStack() as stack:
            for name, command in commands.items():
                stack.enter_context(self._process(name, command))
                self.until(partial(self._answers, self.url[name] + ready[name]), f"{name} answers")
            yield

    @contextmanager
    def _process(self, name: str, command: list[str]) -> Iterator[None]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            try:
                yield
            finally:
                process.terminate()
                process.wait(20)

    def _configure(self) -> None:
        rules = quicker(json.loads(json.dumps(alerts.rules())))
        prometheus = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "alerting": {
                "alertmanagers": [{"static_configs": [{"targets": [self.url["alertmanager"].removeprefix("http://")]}]}]
            },
            "scrape_configs": [
                {
                    "job_name": "patchforge",
                    "static_configs": [{"targets": [self.url["exporter"].removeprefix("http://")]}],
                }
            ],
        }
        alertmanager = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
        for name, document in (("rules", rules), ("prometheus", prometheus), ("alertmanager", alertmanager)):
            (self.folder / f"{name}.yml").write_text(yaml.safe_dump(document))

    def _answers(self, url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Waits; a loaded machine may be slow, so the patience is long."""
        end = time.monotonic() + _PATIENCE
        while not holds():
            assert time.monotonic() < end, f"{what}; alerts: {self.received()}"
            time.sleep(0.2)

    def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """What Prometheus answers now."""
        answer = get(f"{self.url['prometheus']}/api/v1/query?{urllib.parse.urlencode({'query': expr})}")
        return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]

    def value(self, expr: str) -> float | None:
        series = self.query(expr)
        return series[0][1] if series else None

    def received(self) -> dict[str, dict[str, str]]:
        """The alerts that Alertmanager has: their texts by name."""
        try:
            received = get(f"{self.url['alertmanager']}/api/v2/alerts")
        except OSError:
            return {}
        now = {alert["labels"]["alertname"]: alert["annotations"] for alert in received}
        self.seen |= now
        return now

    def fires(self, *names: str) -> None:
        """Waits until Alertmanager has received these."""
        self.until(lambda: self.received() is not None and set(names) <= self.seen.keys(), f"{', '.join(names)} fire")
