"""``patchforge exporter``: what it tells, to whom, and what it needs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from patchforge.cli import main
from patchforge.errors import PatchforgeError
from patchforge.operate import machine, records
from patchforge.operate.exporter import Exporter
from patchforge.operate.metrics import BY_NAME, Sample
from patchforge.operate.records import HealthRecord, MaintenanceRecord
from patchforge.operate.server import MetricsServer, address
from tests.operate import trees
from tests.operate.servers import FakeComfyUI
from tests.operate.stack import free_port
from tests.operate.test_end_to_end import certificate
from tests.operate.trees import Machine
from tests.support import ROOT


def exported(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, float]:
    """What ``--once`` prints, read by the official client library, by name and labels."""
    assert main(["exporter", "--once", *words]) == 0
    text = capsys.readouterr().out
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True) if sample.labels else ''}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_once(comfyui: FakeComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Machine(tmp_path / "root").b580()
    text = exported(capsys, "--root", str(tmp_path / "root"), "--comfyui", comfyui.url, "--disk", str(tmp_path))
    names = {key.partition("{")[0] for key in text}
    assert {"hw_energy_joules_total", "comfyui_up", "comfyui_job_duration_seconds_bucket"} <= names
    assert text[f'patchforge_filesystem_size_bytes{{"path": "{tmp_path}"}}'] > 0
    assert text[f'comfyui_up{{"server": "{comfyui.name}"}}'] == 1


def test_records_and_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = certificate(tmp_path / "good.pem", 30), tmp_path / "bad.pem"
    bad.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    records.write(tmp_path, "health", "a", HealthRecord("a:1", "deep", ok=True, reason="", seconds=1.5, when=5))
    (tmp_path / "health-b.json").write_text("{}")
    (tmp_path / "maintenance-x.json").write_bytes(b"\xff")
    text = exported(
        capsys, "--state", str(tmp_path), "--certificate", str(good), "--certificate", str(bad), "--certificate", "/x"
    )
    ends = text[f'patchforge_certificate_expiry_timestamp_seconds{{"certificate": "{good}"}}']
    assert ends == pytest.approx(time.time() + 30 * 86400, abs=100)
    assert text[f'patchforge_certificate_error{{"certificate": "{bad}"}}'] == 1
    assert text['patchforge_certificate_error{"certificate": "/x"}'] == 1
    assert text['patchforge_health_ok{"probe": "deep", "server": "a:1"}'] == 1
    assert text[f'patchforge_record_error{{"record": "{tmp_path}/health-a.json"}}'] == 0
    assert text[f'patchforge_record_error{{"record": "{tmp_path}/health-b.json"}}'] == 1
    assert text[f'patchforge_record_error{{"record": "{tmp_path}/maintenance-x.json"}}'] == 1


def test_records_of_several_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As services that run side by side have them; one that is not there yet is said, and no error."""
    for name, ok in (("a", True), ("b", False)):
        (tmp_path / name).mkdir()
        records.write(tmp_path / name, "maintenance", "", MaintenanceRecord(ok, 5, 7))
    words = [word for name in ("a", "b", "later") for word in ("--state", str(tmp_path / name))]
    text = exported(capsys, *words)
    told = [text[f'patchforge_maintenance_ok{{"state": "{tmp_path}/{name}"}}'] for name in ("a", "b")]
    assert told == [1, 0]


def test_a_certificate_that_a_server_shows(tmp_path: Path) -> None:
    """Also one that nobody trusts: its end is asked for."""
    file = certificate(tmp_path / "cert.pem", 9, key=tmp_path / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, tmp_path / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with suppress(OSError), context.wrap_socket(connection, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        ends = machine.expiry(f"127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert ends == machine.expiry(str(file)) == pytest.approx(time.time() + 9 * 86400, abs=100)
    with pytest.raises(OSError, match="refused"):
        machine.expiry(f"127.0.0.1:{free_port()}")


@contextmanager
def served(exporter: Exporter, page: bytes = b"") -> Iterator[str]:
    with MetricsServer("127.0.0.1:0", exporter.registry(), lambda _: page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


def test_http() -> None:
    exporter = Exporter([lambda: [Sample("comfyui_up", 1, ("a",))], lambda: [Sample("comfyui_up", 0, ("b",))]])
    with served(exporter, b"<html>") as url:
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            text = answer.read().decode()
        assert 'comfyui_up{server="a"} 1.0\ncomfyui_up{server="b"} 0.0\n' in text
        openmetrics = urllib.request.Request(f"{url}/metrics", headers={"Accept": "application/openmetrics-text"})
        with urllib.request.urlopen(openmetrics) as answer:
            assert answer.read().endswith(b"# EOF\n")
        with urllib.request.urlopen(f"{url}/?hours=6") as answer:
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        for path, method in (("/etc/passwd", "GET"), ("/metrics", "POST")):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(urllib.request.Request(f"{url}{path}", method=method))
            assert error.value.code in (404, 501)


def test_a_port_that_is_taken() -> None:
    exporter = Exporter([])
    with served(exporter) as url, pytest.raises(PatchforgeError, match="cannot listen on"):
        MetricsServer(url.removeprefix("http://"), exporter.registry(), lambda _: b"")


@pytest.mark.parametrize("text", [":443", "host:", "nohost:1x", "host:0", "host:70000", "host:-1"])
def test_no_place_of_a_certificate(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exporter", "--once", "--certificate", text]) == 2
    said = capsys.readouterr()
    assert (said.out, "correct --certificate" in said.err) == ("", True)


def test_a_certificate_s_file_may_be_there_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    certificate(tmp_path / "odd:name", 9)
    named = ["odd:name", "later.pem", str(tmp_path / "a:b")]
    words = [word for name in named for word in ("--certificate", name)]
    assert main(["exporter", "--once", "--root", str(tmp_path), *words]) == 0
    said = capsys.readouterr()
    assert [name for name in named if f"note: {name} is not a file yet" in said.err] == named[1:]
    assert 'patchforge_certificate_error{certificate="odd:name"} 0.0' in said.out


@pytest.mark.parametrize("text", ["", ":80", "host", "host:", "host:http", "127.0.0.1:70000", "127.0.0.1:-1"])
def test_no_address(text: str) -> None:
    with pytest.raises(PatchforgeError, match="is not an address to listen on"):
        address(text)


def test_every_metric_is_one_of_the_library() -> None:
    assert {family.name for family in Exporter([]).describe()} == {metric.family for metric in BY_NAME.values()}


def test_what_is_named_twice_or_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    twice = ["exporter", "--once", "--comfyui", "http://127.0.0.1:1/", "--comfyui", "http://127.0.0.1:1"]
    assert main(twice) == 2
    assert "named twice" in capsys.readouterr().err
    assert main(["exporter", "--once", "--root", "/nowhere"]) == 2


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root to drop it"
)
def test_it_needs_no_root_and_no_torch(tmp_path: Path) -> None:
    """As nobody, without any capability."""
    made = Machine(tmp_path / "root")
    made.b580()
    made.held(trees.COMFYUI, trees.B580, 1 << 30)
    for place in (tmp_path, *tmp_path.parents):
        if place.name.startswith(("test_", "popen-", "pytest-")):
            place.chmod(0o755)  # pytest's own, and closed to others
    script = (
        "import sys\nsys.modules['torch'] = None\nfrom patchforge.cli import main\n"
        f"status = main(['exporter', '--once', '--root', {str(tmp_path / 'root')!r}])\n"
        "import os\nassert os.geteuid() == 65534\nsys.exit(status)\n"
    )
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    done = subprocess.run(
        [*drop, sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert 'patchforge_service_vram_bytes{pci_bdf="0000:0b:00.0",service="comfyui-xpu.service"} 1.0' in done.stdout
