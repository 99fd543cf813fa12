"""What the arbiter asks ComfyUI and Ollama, and what they answer. Each answer is a stranger's, and may be a lie."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from patchforge import web
from patchforge.errors import PatchforgeError

_SIZE = 32 << 20
_LIKELY = 1 << 50  #: bytes; more is not a card's memory
_MOST = 1000
_FOREVER = timedelta(days=365)


class Reach(StrEnum):
    """How a program answers. ``gone``: nobody listens; ``odd``: too late, or not with what it should be."""

    THERE = "there"
    GONE = "gone"
    ODD = "odd"


@dataclass(frozen=True, slots=True)
class Reserved:
    """ComfyUI's first device, in bytes: all, free for ComfyUI, in torch's hands, and free of these."""

    total: int
    free: int
    held: int
    kept: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that Ollama says is loaded, with bytes in all and on the card.

    ``expires`` in seconds from now, infinite for one that stays.
    """

    name: str
    size: int
    vram: int
    expires: float


class _Service:
    def __init__(self, address: str, seconds: float) -> None:
        web.origin(address)
        self.address = address.rstrip("/")
        self.reach = Reach.GONE
        self._seconds = seconds

    def _ask(self, verb: str, path: str, body: object = None, seconds: float = 0.0) -> Any:
        """The answer; None where there is none, and ``reach`` says why. Never raises."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        limits = web.Limits(_SIZE, seconds or self._seconds, redirects=0, patient=True)
        try:
            with web.opened(self.address + path, verb=verb, headers=headers, data=data, limits=limits) as answer:
                whole = answer.whole()
                self.reach = Reach.THERE if answer.status < 500 else Reach.ODD
                if answer.status != 200:
                    return None
            return web.parsed(whole, path) if whole else {}
        except PatchforgeError as error:
            self.reach = Reach.GONE if isinstance(error.__cause__, ConnectionRefusedError) else Reach.ODD
            return None

    def _get(self, path: str) -> Mapping[str, Any] | None:
        document = self._ask("GET", path)
        if isinstance(document, dict):
            return document
        if self.reach is Reach.THERE:
            self.reach = Reach.ODD
        return None


class SharedComfyUI(_Service):
    """ComfyUI's own API (server.py)."""

    def remaining(self) -> int | None:
        """Jobs that run or wait; None where that cannot be known. Nobody there has none."""
        document = self._get("/prompt")
        count = _mapping((document or {}).get("exec_info")).get("queue_remaining")
        if type(count) is int and 0 <= count < _LIKELY:
            return count
        self.reach = Reach.ODD if document is not None else self.reach
        return 0 if self.reach is Reach.GONE else None

    def memory(self) -> Reserved | None:
        """Memory of its first device; None where that is not a number, or no card."""
        devices = (self._get("/system_stats") or {}).get("devices")
        device = _mapping(devices[0]) if isinstance(devices, list) and devices else {}
        told = [device.get(name) for name in ("vram_total", "vram_free", "torch_vram_total", "torch_vram_free")]
        if device.get("type") == "cpu" or not all(type(size) is int and 0 <= size < _LIKELY for size in told):
            return None
        return Reserved(*told)  # type: ignore[arg-type]  # whole numbers, as was looked

    def running(self) -> list[object]:
        """The graphs that run."""
        listed = (self._get("/queue") or {}).get("queue_running")
        jobs = listed[:_MOST] if isinstance(listed, list) else []
        return [job[2] for job in jobs if isinstance(job, list) and len(job) > 2]

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of the models in one of its folders, by name; none in releases that do not tell."""
        document = self._ask("GET", f"/experiment/models/{folder}")
        rows = [row for row in document[:_MOST] if isinstance(row, dict)] if isinstance(document, list) else []
        return {str(row.get("name")): row["size"] for row in rows if type(row.get("size")) is int}

    def free(self) -> None:
        """Asks for its models to be unloaded. It answers before it has done so."""
        self._ask("POST", "/free", {"unload_models": True, "free_memory": True})


class SharedOllama(_Service):
    """Ollama's own API (docs/api.md of ollama/ollama)."""

    def loaded(self) -> tuple[Loaded, ...] | None:
        """What it says is loaded; None where that cannot be known. Nobody there has nothing."""
        document = self._get("/api/ps")
        rows = (document or {}).get("models")
        if not isinstance(rows, list):
            if document is not None:
                self.reach = Reach.ODD
            return () if self.reach is Reach.GONE else None
        return tuple(_loaded(row) for row in rows[:_MOST] if isinstance(row, dict) and isinstance(row.get("name"), str))

    def known(self) -> dict[str, int]:
        """Bytes of the models that it has, by name."""
        rows = (self._get("/api/tags") or {}).get("models")
        listed = [row for row in rows[:_MOST] if isinstance(row, dict)] if isinstance(rows, list) else []
        return {str(row.get("name")): _bytes(row.get("size")) for row in listed}

    def unload(self, name: str) -> None:
        """Asks for a model to be unloaded; an answer that it is giving comes to its end first."""
        self._ask("POST", "/api/generate", {"model": name, "keep_alive": 0, "stream": False})

    def load(self, name: str, keep: float, seconds: float) -> bool:
        """Loads a model for ``keep`` seconds; whether it is."""
        keep_alive = -1 if keep == float("inf") else f"{max(int(keep), 1)}s"
        body = {"model": name, "keep_alive": keep_alive, "stream": False}
        return self._ask("POST", "/api/generate", body, seconds) is not None


def texts(graph: object) -> Iterator[str]:
    """The texts that a graph's nodes are given."""
    for node in _mapping(graph).values():
        for value in _mapping(_mapping(node).get("inputs")).values():
            if isinstance(value, str):
                yield value


def follows(graph: object, text: str) -> bool:
    """Whether a graph has more texts behind this one, in a Create List of ComfyUI's: they come one after another."""
    nodes = _mapping(graph)

    def said(value: object) -> object:
        """A text that stands there, or in the node that a link leads to."""
        linked = isinstance(value, list) and len(value) == 2
        return _mapping(_mapping(nodes.get(str(value[0]))).get("inputs")).get("value") if linked else value  # type: ignore[index]

    lists = (_mapping(node) for node in nodes.values() if _mapping(node).get("class_type") == "CreateList")
    return any(text in [said(value) for value in _mapping(node.get("inputs")).values()][:-1] for node in lists)


def full_name(name: str) -> str:
    """A model's name with its tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _loaded(row: Mapping[str, Any]) -> Loaded:
    sizes = _bytes(row.get("size")), _bytes(row.get("size_vram"))
    return Loaded(full_name(row["name"][:500]), *sizes, _seconds_until(row.get("expires_at")))


def _seconds_until(text: object) -> float:
    """Seconds until a time; infinite for one that is far, 0 for none."""
    try:
        when = datetime.fromisoformat(str(text))
        left = (when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)
    except (ValueError, OverflowError):
        return 0.0
    return float("inf") if left > _FOREVER else max(left.total_seconds(), 0.0)


def _bytes(value: object) -> int:
    return value if type(value) is int and 0 <= value < _LIKELY else 0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
