"""What a ComfyUI says of itself, and what the pack patchforge-watch adds where it is installed.

Jobs come from /api/jobs, in older releases from /queue and /history. A job is counted once, when it has ended, and
only if that was after the first look: what an earlier exporter counted is not counted again.
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypedDict

from patchforge.operate.asking import Unusable, amount, document, label, name_of
from patchforge.operate.metrics import DURATIONS, Sample

STATUSES = ("completed", "failed", "cancelled")
_ENDS = ("execution_success", "execution_error", "execution_interrupted")
_LATEST = 256  #: ended jobs that are asked for
_REMEMBERED = 20_000
_MOST_DEVICES, _MOST_CLASSES = 64, 500


_OWN = "70617463-6866-6f72"  # begins the ids of our own samples, which are nobody's jobs


def own_name() -> str:
    """An id for a sample of ours."""
    return _OWN + str(uuid.uuid4())[len(_OWN) :]


class _Versions(TypedDict, total=False):
    comfyui_version: str
    pytorch_version: str
    python_version: str


class _System(_Versions):
    ram_total: int
    ram_free: int


class _Loss(TypedDict, total=False):
    lost: str  #: of a release that is patched


class _Device(_Loss):
    name: str
    type: str
    vram_total: int
    vram_free: int


class Stats(TypedDict):
    """/system_stats."""

    system: _System
    devices: list[_Device]


class _Times(TypedDict, total=False):
    execution_start_time: float  #: ms
    execution_end_time: float


class _Job(_Times):
    id: str
    status: str


class _Pages(TypedDict):
    total: int


class _Jobs(TypedDict):
    jobs: list[_Job]
    pagination: _Pages


class _Queue(TypedDict):
    queue_running: list[Any]
    queue_pending: list[Any]


class _Class(TypedDict):
    seconds: float
    runs: int
    operations: int
    fallbacks: int


class _Running(TypedDict):
    prompt: str
    seconds: float
    stalled: float


class Watch(TypedDict):
    """/patchforge/watch, of the pack."""

    worker: bool
    running: _Running | None
    classes: dict[str, _Class]


class Ended(NamedTuple):
    """A job that has ended; ``seconds`` that it ran, None where that is not told."""

    name: str
    status: str
    seconds: float | None


class Jobs(NamedTuple):
    """What runs, by id; how many wait; those that ended last."""

    running: tuple[str, ...]
    pending: int
    ended: tuple[Ended, ...]


class WatchedComfyUI:
    """One ComfyUI at an address. ``look`` is for one thread."""

    prefix = "comfyui"

    def __init__(self, url: str, seconds: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.url, self.server, self._seconds, self._clock = url, name_of(url), seconds, clock
        self._counted: OrderedDict[str, None] | None = None  #: ids of jobs that have ended; None before the first look
        self._statuses = dict.fromkeys(STATUSES, 0)
        self._buckets = [0] * (len(DURATIONS) + 1)
        self._sum = 0.0
        self._running: tuple[str, float] | None = None  #: id, and when it was seen first

    def look(self) -> list[Sample]:
        begin = self._clock()
        stats = self.stats()
        took = self._clock() - begin
        jobs = self.jobs()
        self._count(jobs.ended)
        return [
            *self._system(stats),
            Sample("comfyui_scrape_duration_seconds", took, (self.server,)),
            *self._queue(jobs),
            *self._pack(),
        ]

    def stats(self) -> Stats:
        """/system_stats. Unusable for numbers that cannot be."""
        stats = document(f"{self.url}/system_stats", Stats, self._seconds)
        for device in stats["devices"]:
            amount(device["vram_free"])
            amount(device["vram_total"])
        amount(stats["system"]["ram_free"])
        amount(stats["system"]["ram_total"])
        return stats

    def jobs(self) -> Jobs:
        """What runs, waits and has ended."""
        at = f"{self.url}/api/jobs"
        try:
            running = document(f"{at}?status=in_progress&limit=16", _Jobs, self._seconds)
        except Unusable as error:
            if error.status in (400, 404, 405):  # before v0.6.0; those before v0.14.0 do not tell cancelled jobs apart
                return self._older_jobs()
            raise
        pending = document(f"{at}?status=pending&limit=1", _Jobs, self._seconds)
        ended = document(f"{at}?status={','.join(STATUSES)}&limit={_LATEST}", _Jobs, self._seconds)
        return Jobs(
            tuple(job["id"] for job in running["jobs"]),
            int(amount(pending["pagination"]["total"])),
            tuple(_ended(job) for job in ended["jobs"]),
        )

    def _older_jobs(self) -> Jobs:
        queue = document(f"{self.url}/queue", _Queue, self._seconds)
        history = document(f"{self.url}/history?max_items={_LATEST}", dict[str, Any], self._seconds)
        running = tuple(str(entry[1]) for entry in queue["queue_running"] if isinstance(entry, list) and len(entry) > 1)
        ended = tuple(_ended_before(name, item) for name, item in history.items())
        return Jobs(running, len(queue["queue_pending"]), ended)

    def watch(self) -> Watch | None:
        """What the pack tells; None without it."""
        try:
            return document(f"{self.url}/patchforge/watch", Watch, self._seconds)
        except Unusable as error:
            if error.kind == "status":
                return None
            raise

    def _count(self, ended: Iterable[Ended]) -> None:
        first = self._counted is None
        known = self._counted = OrderedDict() if self._counted is None else self._counted
        for job in ended:
            if job.name in known:
                known.move_to_end(job.name)
                continue
            known[job.name] = None
            if first or job.status not in self._statuses or job.name.startswith(_OWN):
                continue
            self._statuses[job.status] += 1
            if job.seconds is not None:
                at = sum(job.seconds > bound for bound in DURATIONS)
                self._buckets[at] += 1
                self._sum += job.seconds
        while len(known) > _REMEMBERED:
            known.popitem(last=False)

    def _system(self, stats: Stats) -> Iterator[Sample]:
        system = stats["system"]
        versions = (label(system.get(name)) for name in ("comfyui_version", "pytorch_version", "python_version"))
        version, torch, python = versions
        yield Sample("comfyui_info", 1, (self.server, version, torch, python.partition(" ")[0]))
        yield Sample("comfyui_ram_total_bytes", system["ram_total"], (self.server,))
        yield Sample("comfyui_ram_free_bytes", system["ram_free"], (self.server,))
        for number, device in enumerate(stats["devices"][:_MOST_DEVICES]):
            labels = self.server, str(number)
            yield Sample("comfyui_device_info", 1, (*labels, label(device["type"]), label(device["name"])))
            yield Sample("comfyui_device_lost", float(bool(device.get("lost"))), labels)
            yield Sample("comfyui_vram_total_bytes", device["vram_total"], labels)
            yield Sample("comfyui_vram_free_bytes", device["vram_free"], labels)

    def _queue(self, jobs: Jobs) -> Iterator[Sample]:
        now = self._clock()
        if not jobs.running:
            self._running = None
        elif self._running is None or self._running[0] != jobs.running[0]:
            self._running = jobs.running[0], now
        ran = now - self._running[1] if self._running else 0.0
        yield Sample("comfyui_queue_running", len(jobs.running), (self.server,))
        yield Sample("comfyui_queue_pending", jobs.pending, (self.server,))
        yield Sample("comfyui_running_job_seconds", ran, (self.server,))
        for status, number in self._statuses.items():
            yield Sample("comfyui_jobs_total", number, (self.server, status))
        sums = [sum(self._buckets[: at + 1]) for at in range(len(self._buckets))]
        bounds = [*(f"{bound:g}" for bound in DURATIONS), "+Inf"]
        pairs = tuple(zip(bounds, map(float, sums), strict=True))
        yield Sample("comfyui_job_duration_seconds", self._sum, (self.server,), pairs)

    def _pack(self) -> Iterator[Sample]:
        told = self.watch()
        yield Sample("comfyui_pack_up", float(told is not None), (self.server,))
        if told is None:
            return
        running = told["running"]
        yield Sample("comfyui_worker_alive", float(told["worker"]), (self.server,))
        yield Sample(
            "comfyui_running_job_stalled_seconds", amount(running["stalled"]) if running else 0, (self.server,)
        )
        for name, times in list(told["classes"].items())[:_MOST_CLASSES]:
            labels = self.server, label(name)
            yield Sample("comfyui_node_seconds_total", amount(times["seconds"]), labels)
            yield Sample("comfyui_node_runs_total", amount(times["runs"]), labels)
            yield Sample("comfyui_node_operations_total", amount(times["operations"]), labels)
            yield Sample("comfyui_cpu_fallbacks_total", amount(times["fallbacks"]), labels)


def _ended(job: _Job) -> Ended:
    begin, end = job.get("execution_start_time"), job.get("execution_end_time")
    seconds = (end - begin) / 1000 if begin is not None and end is not None and end >= begin else None
    return Ended(job["id"], job["status"], seconds)


def _ended_before(name: str, item: object) -> Ended:
    """As ComfyUI's comfy_execution/jobs.py reads its own history."""
    status = item.get("status") if isinstance(item, dict) else None
    status = status if isinstance(status, dict) else {}
    times: dict[str, float] = {}
    for message in status.get("messages") or ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict):
            stamp = message[1].get("timestamp")
            if isinstance(stamp, int | float):
                times[str(message[0])] = float(stamp)
    ended = "cancelled" if "execution_interrupted" in times else "failed"
    job: _Job = {"id": name, "status": ended if status.get("status_str") == "error" else "completed"}
    if "execution_start" in times:
        job["execution_start_time"] = times["execution_start"]
    if ends := [times[end] for end in _ENDS if end in times]:
        job["execution_end_time"] = ends[0]
    return _ended(job)
