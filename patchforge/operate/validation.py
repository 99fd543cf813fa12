"""Whether an update may stay: the machine, a sample on the GPU, and how long it takes against the last good time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchforge import outputs
from patchforge.bench.statistics import unpaired
from patchforge.documents import Format
from patchforge.errors import Damaged
from patchforge.operate.health import Health, HealthProbe, Look

#: How much longer than last time is an alarm: two runs of a server on two days are not made in turns.
LARGE = 1.2
_AGAIN = 2.0  # seconds between looks at a server that starts
_WARM_UP = 2
_DO = "remove it: the next validation that passes writes it again"


@dataclass(frozen=True, slots=True)
class Good:
    """The times of the last validation that passed, in seconds, and on what they were measured."""

    server: str
    device: str
    seconds: tuple[float, ...]
    operations: int
    when: float


GOOD = Format(Good, 1)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. ``ok`` None: it could not be, or there is nothing to compare with."""

    name: str
    ok: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class Measured:
    """Times of samples, and what they were compared with."""

    seconds: tuple[float, ...]
    operations: int
    device: str
    ratio: float | None
    regressed: bool


def ready(look: Look, timeout: float, clock: Callable[[], float] = time.monotonic) -> Check:
    """Waits until the server is ready."""
    end = clock() + timeout
    while True:
        health = look.look(HealthProbe.READY)
        if health.ok:
            return Check("ready", ok=True, reason=health.reason)
        if clock() > end:
            return Check("ready", ok=False, reason=f"{health.reason}, after {timeout:g} s")
        time.sleep(min(_AGAIN, timeout))


def deep(look: Look) -> tuple[Check, Health]:
    """One sample. A server that is busy with somebody's job is not looked at: None."""
    health = look.look(HealthProbe.DEEP)
    return Check("deep", ok=None if health.busy else health.ok, reason=health.reason), health


def measure(look: Look, runs: int, good: Good | None) -> tuple[Check, Measured | None]:
    """Samples again and again, and compares the times with those of the last good validation."""
    seconds: list[float] = []
    operations, device = 0, ""
    for number in range(runs + _WARM_UP):
        health = look.look(HealthProbe.DEEP)
        if health.busy or not health.ok:
            ok = None if health.busy else False
            return Check("benchmark", ok=ok, reason=health.reason), None
        operations, device = health.operations, health.device
        if number >= _WARM_UP:
            seconds.append(health.sampled)
    measured = Measured(tuple(seconds), operations, device, None, regressed=False)
    middle = sorted(seconds)[len(seconds) // 2]
    if good is None or good.device != device or not good.seconds:
        why = "no earlier one" if good is None else f"the last good one was on {good.device}"
        return Check("benchmark", ok=True, reason=f"{middle * 1000:.0f} ms; not compared: {why}"), measured
    ratio = unpaired(good.seconds, seconds)
    regressed = ratio.slower and ratio.ratio.median > LARGE
    reason = (
        f"{middle * 1000:.0f} ms, {ratio.ratio.median:.2f} times the last good time "
        f"({ratio.ratio.low:.2f} to {ratio.ratio.high:.2f})"
    )
    return Check("benchmark", ok=not regressed, reason=reason), Measured(
        tuple(seconds), operations, device, ratio.ratio.median, regressed
    )


def load(state: Path | None, name: str) -> Good | None:
    """The last good times; None where there are none."""
    file = _file(state, name)
    return GOOD.read(file, do=_DO) if file is not None and file.is_file() else None


def save(state: Path | None, name: str, good: Good) -> None:
    """Keeps good times, in the place of those before."""
    if (file := _file(state, name)) is not None:
        outputs.write_document(file, GOOD.dump(good), _is_good)


def passed(checks: Sequence[Check]) -> bool:
    """Whether nothing was found that speaks against the update, and a sample was seen."""
    sampled = any(check.name == "deep" and check.ok for check in checks)
    return sampled and all(check.ok is not False for check in checks)


def _is_good(data: bytes) -> bool:
    try:
        GOOD.parse(data, "")
    except Damaged:
        return False
    return True


def _file(state: Path | None, name: str) -> Path | None:
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    return state / f"good-{plain}.json" if state else None
