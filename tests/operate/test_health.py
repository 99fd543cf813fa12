"""``patchforge health`` on a small ComfyUI."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from patchforge.cli import main
from patchforge.errors import Exit, NotChecked
from patchforge.operate.health import HealthProbe, Look
from tests.operate.servers import FakeComfyUI
from tests.operate.stack import free_port


def look(comfyui: FakeComfyUI, timeout: float = 5.0, *, allow_cpu: bool = False) -> Look:
    return Look(comfyui.url, timeout, stalled=0.3, allow_cpu=allow_cpu)


def test_a_server_in_order(comfyui: FakeComfyUI) -> None:
    assert look(comfyui).look(HealthProbe.LIVE).reason == "it answers, version 0.33.0"
    assert look(comfyui).look(HealthProbe.READY).ok
    health = look(comfyui).look(HealthProbe.DEEP)
    assert (health.ok, health.operations, health.sampled) == (True, 180, 0.05)
    assert health.reason.startswith("fresh: sampled on xpu:0 emulated Arc in ")


def test_json(comfyui: FakeComfyUI, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", comfyui.url, "--deep", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["ok"], told["probe"]) == ("patchforge/health/1", True, "deep")
    comfyui.be.lost = True
    assert main(["health", comfyui.url, "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_without_the_pack_the_deep_look_cannot_be_made(comfyui: FakeComfyUI) -> None:
    comfyui.be.pack = False
    assert look(comfyui).look(HealthProbe.READY).ok
    with pytest.raises(NotChecked, match="patchforge-watch"):
        look(comfyui).look(HealthProbe.DEEP)


def reason(comfyui: FakeComfyUI, probe: HealthProbe, **settings: bool) -> str:
    """Why it is not in order."""
    health = look(comfyui, **settings).look(probe)
    assert not health.ok
    return health.reason


def test_a_server_that_does_not_answer() -> None:
    health = Look(f"http://127.0.0.1:{free_port()}", 1).look(HealthProbe.LIVE)
    assert (health.ok, "Connection refused" in health.reason) == (False, True)


@pytest.mark.parametrize("answer", ["garbage", "status", "list", "cut", "lies"])
def test_a_server_that_answers_nonsense(comfyui: FakeComfyUI, answer: str) -> None:
    comfyui.be.answer = answer
    for probe in HealthProbe:
        assert "cannot be used" in reason(comfyui, probe)


def test_a_lost_device(comfyui: FakeComfyUI) -> None:
    comfyui.be.lost = True
    assert look(comfyui).look(HealthProbe.LIVE).ok
    assert "its GPU is lost" in reason(comfyui, HealthProbe.READY)
    assert "its GPU is lost" in reason(comfyui, HealthProbe.DEEP)


def test_the_cpu_in_place_of_the_gpu(comfyui: FakeComfyUI) -> None:
    comfyui.be.device = "cpu"
    assert "found no GPU" in reason(comfyui, HealthProbe.READY)
    assert look(comfyui, allow_cpu=True).look(HealthProbe.DEEP).ok
    comfyui.be.device, comfyui.be.on_cpu = "xpu", True
    assert look(comfyui).look(HealthProbe.READY).ok
    assert reason(comfyui, HealthProbe.DEEP).startswith("cpu_fallback: node 2 (KSampler) did 0 operations")


def test_a_dead_worker(comfyui: FakeComfyUI) -> None:
    comfyui.be.works = False
    assert "has ended" in reason(comfyui, HealthProbe.READY)
    assert "has ended" in reason(comfyui, HealthProbe.DEEP)


def test_a_worker_that_begins_nothing(comfyui: FakeComfyUI) -> None:
    """Behind a healthy /system_stats, and nothing is known of its thread."""
    comfyui.be.stuck = True
    begin = time.monotonic()
    health = Look(comfyui.url, timeout=0.5).look(HealthProbe.DEEP)
    assert (health.ok, "does not move" in health.reason) == (False, True)
    assert time.monotonic() - begin < 10
    comfyui.be.stuck = False
    end = time.monotonic() + 10
    while any(job.status in ("pending", "in_progress") for job in comfyui.jobs.values()):  # ours was taken back
        assert time.monotonic() < end


def test_a_sampler_that_is_stuck(comfyui: FakeComfyUI) -> None:
    """Somebody's job: ours is not put behind it."""
    comfyui.be.stuck = True
    job = comfyui.submit()
    while job.status == "pending":
        time.sleep(0.01)
    time.sleep(0.4)
    assert "has not moved for" in reason(comfyui, HealthProbe.DEEP)
    assert list(comfyui.jobs) == [job.name]
    comfyui.be.stuck = False


def test_a_job_that_moves_is_not_waited_for(comfyui: FakeComfyUI) -> None:
    comfyui.be.seconds = 5
    job = comfyui.submit()
    while job.status == "pending":
        time.sleep(0.01)
    health = look(comfyui, 1).look(HealthProbe.DEEP)
    assert (health.ok, health.busy) == (True, True)
    assert list(comfyui.jobs) == [job.name]
    comfyui._interrupted = True


def test_a_sample_that_fails(comfyui: FakeComfyUI) -> None:
    """As on a full disk, or out of memory."""
    comfyui.be.fails = True
    assert reason(comfyui, HealthProbe.DEEP).startswith("failed: node 2 (KSampler) failed: RuntimeError: it failed")


def test_nothing_is_left_behind(comfyui: FakeComfyUI) -> None:
    for _ in range(3):
        assert look(comfyui).look(HealthProbe.DEEP).ok
    assert comfyui.jobs == {}


def test_the_state_is_recorded(comfyui: FakeComfyUI, tmp_path: Path) -> None:
    assert main(["health", comfyui.url, "--state", str(tmp_path)]) == 0
    comfyui.be.lost = True
    assert main(["health", comfyui.url, "--state", str(tmp_path)]) == 1
    (record,) = [json.loads(file.read_text()) for file in tmp_path.iterdir()]
    assert (record["ok"], record["probe"], record["server"]) == (False, "ready", comfyui.name)
    assert main(["health", comfyui.url, "--state", str(tmp_path / "new" / "one")]) == 1
    assert [path.name.partition("-")[0] for path in (tmp_path / "new" / "one").iterdir()] == ["health"]
    (tmp_path / "file").write_text("")
    assert main(["health", comfyui.url, "--state", str(tmp_path / "file")]) == 2


def test_systemd_is_told(comfyui: FakeComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY and WATCHDOG while it is in order; after so many failures it ends."""
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place))
        done: list[int] = []
        words = ["health", comfyui.url, "--watch", "0.05", "--failures", "2"]
        thread = threading.Thread(target=lambda: done.append(main(words)))
        thread.start()
        assert manager.recv(1000).decode().split("\n") == ["READY=1", "WATCHDOG=1", "STATUS=in order"]
        comfyui.be.lost = True
        told = [manager.recv(1000).decode()]
        while not told[-1].startswith("STATUS=not in order, 2"):
            told.append(manager.recv(1000).decode())
        thread.join(10)
    assert done == [1]
    assert "WATCHDOG=1" not in told[-1] + told[-2]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with 1100 MiB of memory behind it."""
    (place := tmp_path / "disk").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1100m", "none", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.decode().strip()[:200]}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(not shutil.which("mount"), reason="needs mount")
def test_a_disk_that_really_fills_up(comfyui: FakeComfyUI, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Room is gone while it is watched; on one without any, nothing can be written down, and that is said."""
    (state := disk / "state").mkdir()
    words = ["health", comfyui.url, "--disk", str(disk), "--state", str(state)]
    assert main(words) == 0
    with (disk / "picture").open("wb") as picture:
        picture.write(bytes(90 << 20))
    assert main([*words, "--watch", "0.1", "--failures", "2"]) == Exit.SYSTEM
    assert "is full" in capsys.readouterr().out
    (record,) = state.glob("health-*.json")
    assert "is full" in json.loads(record.read_bytes())["reason"]
    fill(disk)
    assert main(words) == Exit.SYSTEM
    assert "the disk is full" in capsys.readouterr().err
    assert "is full" in json.loads(record.read_bytes())["reason"]  # the last record is whole


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "rest").open("wb", buffering=0) as rest:
        while True:
            rest.write(bytes(1 << 20))
    with suppress(OSError), (disk / "last").open("wb", buffering=0) as rest:
        while True:
            rest.write(bytes(512))


def test_a_full_disk(comfyui: FakeComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["health", comfyui.url, "--disk", str(tmp_path / "nowhere")]) == 1
    for left, status in ((2 << 30, Exit.OK), (100 << 20, Exit.SYSTEM)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, left=left: SimpleNamespace(free=left))
        assert main(["health", comfyui.url, "--disk", str(tmp_path)]) == status


def test_watching_is_no_document(comfyui: FakeComfyUI, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", comfyui.url, "--watch", "5", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["problem"] == "--json is one document"


def test_a_watchdog_that_would_bite(comfyui: FakeComfyUI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert main(["health", comfyui.url, "--watch", "30"]) == 2


def test_the_pack_is_not_written_through_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (tmp_path / "patchforge-watch").symlink_to(elsewhere)
    assert main(["health", "--write-pack", str(tmp_path)]) == 2
    assert "is a link" in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []
