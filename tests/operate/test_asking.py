"""Servers that are dead, slow, lie or talk nonsense: they are down, for a reason, and nothing old is told of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from patchforge.errors import PatchforgeError
from patchforge.operate import asking
from patchforge.operate.asking import Poll
from patchforge.operate.comfyui import WatchedComfyUI, own_name
from patchforge.operate.metrics import ERRORS, Sample, checked
from patchforge.operate.ollama import WatchedOllama
from tests.operate.servers import GIB, FakeComfyUI, FakeOllama, Job
from tests.operate.stack import free_port


def told(poll: Poll) -> dict[str, float]:
    """The values of one server's metrics, by name and other labels."""
    poll.look()
    return {_key(sample): sample.value for sample in checked(poll.collect())}


def _key(sample: Sample) -> str:
    return " ".join([sample.name, *sample.labels[1:]])


def why(values: dict[str, float], prefix: str = "comfyui") -> str:
    """The reason of a server that is down, with nothing else told of it."""
    assert values.keys() == {f"{prefix}_up", *(f"{prefix}_scrape_error {kind}" for kind in ERRORS)}
    assert values[f"{prefix}_up"] == 0
    (kind,) = (name.rpartition(" ")[2] for name, value in values.items() if value)
    return kind


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("slow", "timeout"),
        ("garbage", "garbage"),
        ("html", "garbage"),
        ("status", "status"),
        ("list", "unexpected"),
        ("lies", "unexpected"),
        ("huge", "garbage"),
        ("cut", "broken"),
    ],
)
def test_a_server_that_misbehaves(comfyui: FakeComfyUI, answer: str, reason: str) -> None:
    poll = Poll(WatchedComfyUI(comfyui.url, seconds=1), 5)
    assert told(poll)["comfyui_up"] == 1
    comfyui.be.answer = answer
    assert why(told(poll)) == reason
    comfyui.be.answer = ""
    assert told(poll)["comfyui_up"] == 1


def test_nobody_listens() -> None:
    assert why(told(Poll(WatchedComfyUI(f"http://127.0.0.1:{free_port()}", seconds=1), 5))) == "refused"
    assert why(told(Poll(WatchedOllama(f"http://127.0.0.1:{free_port()}", seconds=1), 5)), "ollama") == "refused"


@pytest.mark.parametrize("free", [-1, 1 << 80, 5.5e300])
def test_numbers_that_cannot_be(comfyui: FakeComfyUI, free: int) -> None:
    comfyui.be.vram_free = free
    assert why(told(Poll(WatchedComfyUI(comfyui.url), 5))) == "unexpected"


def test_a_fault_of_ours_is_no_silence(comfyui: FakeComfyUI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WatchedComfyUI, "look", lambda _: 1 / 0)
    assert why(told(Poll(WatchedComfyUI(comfyui.url), 5))) == "unexpected"


def test_a_look_that_takes_too_long_is_told_as_such(comfyui: FakeComfyUI) -> None:
    now = [1000.0]
    poll = Poll(WatchedComfyUI(comfyui.url), 5, clock=lambda: now[0])
    assert told(poll)["comfyui_up"] == 1
    now[0] += 60
    assert why({_key(sample): sample.value for sample in poll.collect()}) == "timeout"


@pytest.mark.parametrize("jobs_api", [True, False], ids=["/api/jobs", "/queue and /history"])
def test_jobs_are_counted_once_and_none_from_before(comfyui: FakeComfyUI, *, jobs_api: bool) -> None:
    comfyui.be.jobs_api = jobs_api
    comfyui.wait(comfyui.submit())
    poll = Poll(WatchedComfyUI(comfyui.url), 5)
    assert told(poll)["comfyui_jobs_total completed"] == 0
    comfyui.be.seconds = 0.05
    for _ in range(2):
        comfyui.wait(comfyui.submit())
    comfyui.be.fails = True
    comfyui.wait(comfyui.submit())
    comfyui.be.fails = False
    name = own_name()
    comfyui.jobs[name] = Job(name, {}, 9, "completed", 1, 2)  # a sample of ours
    for _ in range(2):
        values = told(poll)
        assert [values[f"comfyui_jobs_total {status}"] for status in ("completed", "failed", "cancelled")] == [2, 1, 0]
    (seconds,) = (sample for sample in poll.collect() if sample.name == "comfyui_job_duration_seconds")
    assert dict(seconds.buckets)["+Inf"] == 3
    assert 0.1 < seconds.value < 30


def test_a_job_that_runs_and_stands_still(comfyui: FakeComfyUI) -> None:
    comfyui.be.stuck = True
    poll = Poll(WatchedComfyUI(comfyui.url), 5)
    for _ in range(3):
        comfyui.submit()
    while comfyui._of("in_progress") == []:
        time.sleep(0.01)
    told(poll)
    time.sleep(0.1)
    values = told(poll)
    assert (values["comfyui_queue_running"], values["comfyui_queue_pending"]) == (1, 2)
    assert values["comfyui_running_job_seconds"] >= 0.1
    assert values["comfyui_running_job_stalled_seconds"] >= 0.1
    comfyui.be.pack = False
    values = told(poll)
    assert values["comfyui_pack_up"] == 0
    assert "comfyui_running_job_stalled_seconds" not in values
    comfyui.be.stuck = False


def test_what_the_pack_tells(comfyui: FakeComfyUI) -> None:
    comfyui.be.on_cpu = True
    comfyui.wait(comfyui.submit("KSampler"))
    values = told(Poll(WatchedComfyUI(comfyui.url), 5))
    assert values["comfyui_cpu_fallbacks_total KSampler"] == 1
    assert values["comfyui_node_runs_total KSampler"] == 1
    assert values["comfyui_worker_alive"] == 1


def test_ollama(ollama: FakeOllama) -> None:
    ollama.models = {"a:8b": (8 * GIB, 6 * GIB), "b\n\x1b[31m": (GIB, 0)}
    values = told(Poll(WatchedOllama(ollama.url), 5))
    assert values["ollama_info 0.31.2"] == 1
    assert values["ollama_models_loaded"] == 2
    assert (values["ollama_model_cpu_ratio a:8b"], values["ollama_model_cpu_ratio b[31m"]) == (0.25, 1)
    assert values["ollama_model_expires_timestamp_seconds a:8b"] == 1795988311  # 21:38:31 UTC


def lies(ollama: FakeOllama) -> None:
    ollama.models = {"a": (GIB, 2 * GIB)}


def negative(ollama: FakeOllama) -> None:
    ollama.models = {"a": (-5, 0)}


def other(ollama: FakeOllama) -> None:
    ollama.models = {5: (GIB, 0)}  # type: ignore[dict-item]


@pytest.mark.parametrize("how", [lies, negative, other])
def test_an_ollama_that_lies(ollama: FakeOllama, how: Callable[[FakeOllama], None]) -> None:
    how(ollama)
    assert why(told(Poll(WatchedOllama(ollama.url), 5)), "ollama") == "unexpected"


def test_an_ollama_without_models_may_say_null(ollama: FakeOllama) -> None:
    body = b'{"version":"0.1","models":null}'
    ollama.raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    assert told(Poll(WatchedOllama(ollama.url), 5))["ollama_models_loaded"] == 0


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:8188", "ftp://127.0.0.1", "http://a:b@127.0.0.1", "127.0.0.1:8188", ""]
)
def test_addresses_that_are_not_asked(url: str) -> None:
    with pytest.raises(PatchforgeError, match="is not asked"):
        asking.checked(url)
