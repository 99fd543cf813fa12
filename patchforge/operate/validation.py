"""Whether an update may stay: the machine, a sample on the GPU, and how long it takes against the last good time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchforge import outputs
from patchforge.bench.statistics import unpaired
from patchforge.doctor.facts import FactState, Finding
from patchforge.documents import Format
from patchforge.errors import Damaged
from patchforge.operate.asking import Unusable
from patchforge.operate.health import Health, HealthProbe, Look

#: How much longer than last time is an alarm: two runs of a server on two days are not made in turns.
LARGE = 1.2
_AGAIN = 2.0  # seconds between looks at a server that starts
_ABSENT = frozenset({"refused", "timeout", "broken"})  #: kinds of Unusable for a server that does not answer
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
    """One thing that was looked at. ``ok`` None: it could not be, which is never the update's fault."""

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
    """Waits until the server is ready. One that answers what patchforge cannot read may be: None."""
    end = clock() + timeout
    while True:
        check, _ = _looked("ready", look, HealthProbe.READY)
        if check.ok:
            return check
        if clock() > end:
            return replace(check, reason=f"{check.reason}, after {timeout:g} s")
        time.sleep(min(_AGAIN, timeout))


def deep(look: Look) -> Check:
    """One sample. A server that is busy with somebody's job is not looked at: None."""
    return _looked("deep", look, HealthProbe.DEEP)[0]


def doctor(findings: Sequence[Finding], *, is_ready: bool | None, samples: bool | None) -> Check:
    """What doctor says of ComfyUI's own Python, after what was seen of the server: ``ok`` of both checks.

    A server that samples on its device has refuted what only might be in its way. That the device computes wrongly is
    seen by doctor alone. Where nothing else speaks against the update, neither does an opinion.
    """
    wrong = [finding for finding in findings if finding.state is FactState.WRONG]
    measured = [finding for finding in wrong if finding.subject.startswith("xpu:")]
    if not wrong:
        return Check("doctor", ok=True, reason="nothing wrong")
    if measured or False in (is_ready, samples):
        return Check("doctor", ok=False, reason=_told(measured or wrong))
    if samples:
        return Check("doctor", ok=True, reason=f"ComfyUI samples all the same; {_told(wrong)}")
    return Check("doctor", ok=None, reason=_told(wrong))


def _told(findings: Sequence[Finding]) -> str:
    return "; ".join(
        f"{finding.subject}: {finding.text}" + (f" (to do: {finding.do})" if finding.do else "") for finding in findings
    )


def _looked(name: str, look: Look, probe: HealthProbe) -> tuple[Check, Health | None]:
    """A look as a check. None for an answer that only says that patchforge cannot, or must not, read it."""
    try:
        health = look.seen(probe)
    except Unusable as error:
        ok = False if error.kind in _ABSENT or error.status >= 500 else None
        nobody = " (nobody listens there: ComfyUI has not started, or at another address)"
        return Check(name, ok=ok, reason=look.says(error) + nobody * (error.kind == "refused")), None
    return Check(name, ok=None if health.busy else health.ok, reason=health.reason), health


def measure(look: Look, runs: int, good: Good | None) -> tuple[Check, Measured | None]:
    """Samples again and again, and compares the times with those of the last good validation."""
    seconds: list[float] = []
    operations, device = 0, ""
    for number in range(runs + _WARM_UP):
        check, health = _looked("benchmark", look, HealthProbe.DEEP)
        if health is None or not check.ok:
            return check, None
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
    """Whether nothing was found that speaks against the update, and a sample was seen, whatever else could not be."""
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
