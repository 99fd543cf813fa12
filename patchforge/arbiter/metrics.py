"""What the arbiter did, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from patchforge.arbiter.card import Memory

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_PREFIX = "patchforge_arbiter_"


class Metrics:
    """Counters of one arbiter."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def name(of: str) -> str:
            return f"{_PREFIX}{of}"

        registry = self.registry
        self._let_on = Counter(name("requests"), "requests that were let on", ["side"], registry=registry)
        self._wait = Histogram(
            name("wait_seconds"), "from a request to its turn", ["side"], registry=registry, buckets=_SECONDS
        )
        self._over = Histogram(
            name("handover_seconds"),
            "from when the other side rested to when its memory was seen free",
            ["to"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._unloads = Counter(name("unloads"), "times that a side was asked to unload", ["side"], registry=registry)
        self._unseen = Counter(name("unseen"), "times that its memory was not seen free", ["side"], registry=registry)
        self._warmed = Counter(name("warmed"), "models that were loaded again", registry=registry)
        self._waiting = Gauge(name("waiting"), "requests that wait", ["side"], registry=registry)
        self._memory = Gauge(name("memory_bytes"), "memory of the card", ["kind"], registry=registry)
        self._up = Gauge(name("up"), "1 when the program answers as it should", ["side"], registry=registry)

    def let_on(self, side: str) -> None:
        self._let_on.labels(side).inc()

    def waited(self, side: str, seconds: float) -> None:
        self._wait.labels(side).observe(seconds)

    def handed_over(self, side: str, seconds: float) -> None:
        self._over.labels(side).observe(seconds)

    def unloaded(self, side: str) -> None:
        self._unloads.labels(side).inc()

    def unseen(self, side: str) -> None:
        self._unseen.labels(side).inc()

    def warmed(self) -> None:
        self._warmed.inc()

    def reach(self, side: str, how: str) -> None:
        self._up.labels(side).set(how == "there")

    def show(self, memory: Memory | None, waiting: Mapping[Any, int]) -> None:
        """How things are now."""
        for side, count in waiting.items():
            self._waiting.labels(str(side)).set(count)
        if memory is not None:
            self._memory.labels("total").set(memory.total)
            self._memory.labels("free").set(memory.free)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)
