"""A small ComfyUI and a small Ollama over HTTP that behave, or misbehave, as they are told.

The ComfyUI answers as server.py and comfy_execution/jobs.py of v0.33.0 do: unknown statuses and limits are refused, a
job is in exactly one of running, waiting and ended, and the pack's answer is what patchforge/operate/pack/watch.py
gives. Ollama's answers are those of its docs/api.md.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
GIB = 1 << 30


@dataclass
class Job:
    """One prompt. ``status`` as /api/jobs has it; times in ms since 1970."""

    name: str
    graph: dict[str, Any]
    number: int
    status: str = "pending"
    begin: int = 0
    end: int = 0
    error: str = ""


@dataclass
class Behaviour:
    """How the server is. All can be changed while it runs."""

    device: str = "xpu"
    lost: bool = False
    pack: bool = True
    jobs_api: bool = True  #: /api/jobs is there
    stuck: bool = False  #: a job that begins neither moves nor ends
    works: bool = True  #: the thread that works on jobs
    on_cpu: bool = False  #: jobs are computed with nothing done on the device
    fails: bool = False
    seconds: float = 0.0  #: that a job takes
    answer: str = ""  #: what is said instead of anything else: slow, garbage, html, status, list, lies, huge
    vram_free: int = 8 * GIB
    nodes: dict[str, Any] = field(default_factory=dict)


class Web:
    """Something that answers on a free port of this machine."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._do("GET", None)

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                try:
                    self._do("POST", json.loads(data or b"{}"))
                except ValueError:
                    self._say(400, {"error": "not JSON"})

            def _do(self, verb: str, body: Any) -> None:
                parts = urlsplit(self.path)
                asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
                answer = outer.answer(verb, parts.path, asked, body)
                if isinstance(answer, bytes):
                    self.wfile.write(answer)
                    self.close_connection = True
                else:
                    self._say(*answer)

            def _say(self, status: int, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.name = self.url.partition("://")[2]

    def answer(self, verb: str, path: str, asked: dict[str, str], body: Any) -> Any:
        """Status and JSON, or raw bytes."""
        raise NotImplementedError

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.http.shutdown()
            self.http.server_close()
            thread.join()


class FakeComfyUI(Web):
    """The ComfyUI."""

    def __init__(self) -> None:
        super().__init__()
        self.be = Behaviour()
        self.jobs: dict[str, Job] = {}
        self.number = 0
        self.classes: dict[str, dict[str, float]] = {}
        self.steps: dict[str, list[dict[str, Any]]] = {}
        self.since = self.moved = 0.0
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._interrupted = False

    @contextmanager
    def running(self) -> Iterator[None]:
        worker = threading.Thread(target=self._work, daemon=True)
        worker.start()
        with super().running():
            yield
        self._ended.set()
        worker.join()

    # --- What tests do

    def submit(self, kind: str = "KSampler") -> Job:
        """A job of somebody's."""
        return self._add({"1": {"class_type": kind, "inputs": {}}})

    def wait(self, job: Job, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while job.status in ("pending", "in_progress"):
            assert time.monotonic() < end, job
            time.sleep(0.01)

    # --- What ComfyUI does

    def _add(self, graph: dict[str, Any], name: str = "") -> Job:
        with self._lock:
            job = Job(name or str(uuid.uuid4()), graph, self.number)
            self.number += 1
            self.jobs[job.name] = job
            return job

    def _of(self, *statuses: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.status in statuses]

    def _work(self) -> None:
        while not self._ended.wait(0.01):
            with self._lock:
                waiting = self._of("pending")
                if not waiting or not self.be.works:
                    continue
                job = waiting[0]
                job.status, job.begin = "in_progress", int(time.time() * 1000)
                self.since = self.moved = time.monotonic()
                self.steps[job.name] = []
                self._interrupted = False
            self._run(job)

    def _run(self, job: Job) -> None:
        end = time.monotonic() + self.be.seconds
        while (time.monotonic() < end or self.be.stuck) and not self._ended.is_set() and not self._interrupted:
            if not self.be.stuck:
                self.moved = time.monotonic()
            time.sleep(0.01)
        with self._lock:
            for node in job.graph.values():
                self._count(job, node["class_type"])
            job.status = "cancelled" if self._interrupted else "failed" if self.be.fails else "completed"
            job.error = "RuntimeError" if self.be.fails else ""
            job.end = int(time.time() * 1000)

    def _count(self, job: Job, kind: str) -> None:
        computes = kind in ("KSampler", "VAEDecode")
        done = 0 if self.be.on_cpu or not computes else 180
        row = self.classes.setdefault(kind, {"seconds": 0.0, "runs": 0, "operations": 0, "fallbacks": 0})
        row["seconds"] += 0.05
        row["runs"] += 1
        row["operations"] += done
        row["fallbacks"] += computes and done == 0
        self.steps[job.name].append({"class_type": kind, "seconds": 0.05, "operations": done})

    def answer(self, verb: str, path: str, asked: dict[str, str], body: Any) -> Any:
        if self.be.answer:
            return self._misbehave()
        with self._lock:
            parts = path.strip("/").split("/")
            method = getattr(self, f"_{verb.lower()}_{parts[-1] if parts[0] == 'api' else parts[0]}", None)
            if method is None or (parts[0] == "api" and not self.be.jobs_api):
                return 404, {"error": "not found"}
            return method(parts, asked, body)

    def _misbehave(self) -> Any:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        if self.be.answer == "slow":
            time.sleep(3)
        return {
            "slow": head + b"Content-Length: 2\r\n\r\n{}",
            "garbage": b"\x00\x01\x02 what is HTTP?\r\n\r\n",
            "html": head + b"Content-Length: 14\r\n\r\n<html></html>\n",
            "status": b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
            "list": head + b"Content-Length: 2\r\n\r\n[]",
            "lies": head
            + b"Content-Length: 60\r\n\r\n"
            + b'{"system": {"ram_total": "x", "ram_free": 1}, "devices": []}',
            "huge": head + b"Content-Length: 99999999999\r\n\r\n{",
            "cut": head + b"Content-Length: 500\r\n\r\n{",
        }.get(self.be.answer, b"")

    def _get_system_stats(self, *_: Any) -> Any:
        device = {"name": f"{self.be.device}:0 emulated Arc", "type": self.be.device, "index": 0}
        device |= {"vram_total": 12 * GIB, "vram_free": self.be.vram_free}
        device |= {"torch_vram_total": GIB, "torch_vram_free": GIB}
        if self.be.lost:
            device["lost"] = "The Intel GPU is lost."
        system = {"os": "linux", "ram_total": 64 * GIB, "ram_free": 32 * GIB, "comfyui_version": "0.33.0"}
        system |= {"python_version": "3.11.7 (main)", "pytorch_version": "2.13.0+xpu", "argv": ["main.py"]}
        return 200, {"system": system, "devices": [device]}

    def _get_jobs(self, _parts: Any, asked: dict[str, str], _body: Any) -> Any:
        statuses = [status.strip().lower() for status in asked.get("status", "").split(",") if status.strip()]
        if wrong := [status for status in statuses if status not in STATUSES]:
            return 400, {"error": f"Invalid status value(s): {', '.join(wrong)}"}
        limit = asked.get("limit")
        if limit is not None and not (limit.isdigit() and int(limit) > 0):
            return 400, {"error": "limit must be a positive integer"}
        jobs = [job for job in reversed(self.jobs.values()) if not statuses or job.status in statuses]
        told = [
            {"id": job.name, "status": job.status, "priority": job.number, "create_time": job.begin}
            | ({"execution_start_time": job.begin, "execution_end_time": job.end} if job.end else {})
            for job in jobs[: int(limit) if limit else None]
        ]
        pages = {"offset": 0, "limit": int(limit) if limit else None, "total": len(jobs)}
        return 200, {"jobs": told, "pagination": {**pages, "has_more": len(told) < len(jobs)}}

    def _get_queue(self, *_: Any) -> Any:
        rows = {status: [[job.number, job.name, job.graph, {}, []] for job in self._of(status)] for status in STATUSES}
        return 200, {"queue_running": rows["in_progress"], "queue_pending": rows["pending"]}

    def _post_queue(self, _parts: Any, _asked: Any, body: Any) -> Any:
        for name in body.get("delete", ()):
            if name in self.jobs and self.jobs[name].status == "pending":
                del self.jobs[name]
        return 200, {}

    def _post_interrupt(self, _parts: Any, _asked: Any, body: Any) -> Any:
        running = self._of("in_progress")
        if running and body.get("prompt_id", running[0].name) == running[0].name:
            self._interrupted = True
        return 200, {}

    def _post_history(self, _parts: Any, _asked: Any, body: Any) -> Any:
        for name in body.get("delete", ()):
            if name in self.jobs and self.jobs[name].end:
                del self.jobs[name]
        return 200, {}

    def _get_history(self, parts: list[str], _asked: Any, _body: Any) -> Any:
        jobs = [job for job in self.jobs.values() if job.end and (len(parts) < 2 or job.name == parts[1])]
        return 200, {job.name: self._historic(job) for job in jobs}

    def _historic(self, job: Job) -> dict[str, Any]:
        end = {"completed": "success", "failed": "error", "cancelled": "interrupted"}[job.status]
        data = {"prompt_id": job.name, "timestamp": job.end}
        if job.error:
            data |= {"node_id": "2", "node_type": "KSampler", "exception_type": job.error}
            data |= {"exception_message": "it failed", "traceback": []}
        messages = [["execution_start", {"prompt_id": job.name, "timestamp": job.begin}], [f"execution_{end}", data]]
        seen = [name for name, node in job.graph.items() if node["class_type"] == "PatchforgeSeen"]
        told = {"patchforge": [{"finite": True, "mean": 0.1, "deviation": 0.9}]}
        return {
            "prompt": [job.number, job.name, job.graph, {}, []],
            "outputs": dict.fromkeys(seen, told) if job.status == "completed" else {},
            "status": {"status_str": "success" if end == "success" else "error", "messages": messages},
        }

    def _post_prompt(self, _parts: Any, _asked: Any, body: Any) -> Any:
        graph = body.get("prompt")
        if not isinstance(graph, dict) or not graph:
            return 400, {"error": {"type": "no_prompt", "message": "No prompt provided"}, "node_errors": {}}
        unknown = [node["class_type"] for node in graph.values() if node["class_type"].startswith("Patchforge")]
        if unknown and not self.be.pack:
            return 400, {"error": {"type": "missing_node_type", "message": f"no {unknown[0]}"}, "node_errors": {}}
        name = body.get("prompt_id") or str(uuid.uuid4())
        if str(uuid.UUID(name)) != name:
            return 400, {"error": {"type": "invalid_prompt_id", "message": "no UUID"}, "node_errors": {}}
        job = self._add(graph, name)
        return 200, {"prompt_id": job.name, "number": job.number, "node_errors": {}}

    def _get_patchforge(self, parts: list[str], asked: dict[str, str], _body: Any) -> Any:
        if not self.be.pack or parts[1:] != ["watch"]:
            return 404, {"error": "not found"}
        running, now = self._of("in_progress"), time.monotonic()
        told = {"seconds": now - self.since, "stalled": now - self.moved}
        return 200, {
            "worker": self.be.works,
            "running": {"prompt": running[0].name, **told} if running else None,
            "counter": "operations",
            "classes": self.classes,
            "nodes": self.steps.get(asked.get("prompt", ""), []),
        }


class FakeOllama(Web):
    """The Ollama. ``models``: name → bytes, and how many of them are on the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, tuple[int, int]] = {}
        self.raw: bytes = b""

    def answer(self, verb: str, path: str, asked: dict[str, str], body: Any) -> Any:
        if self.raw:
            return self.raw
        if (verb, path) == ("GET", "/api/version"):
            return 200, {"version": "0.31.2"}
        if (verb, path) == ("GET", "/api/ps"):
            told = [
                {"name": name, "model": name, "size": size, "size_vram": vram, "digest": "a" * 64}
                | {"expires_at": "2026-11-29T14:38:31.83753-07:00", "details": {"format": "gguf"}}
                for name, (size, vram) in self.models.items()
            ]
            return 200, {"models": told}
        return 404, {"error": "not found"}
