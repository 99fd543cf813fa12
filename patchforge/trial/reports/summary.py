"""What a reader wants first: does this device work, how well, what failed, and on what that was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from patchforge.trial.model import Judgement, TrialSide, TrialVerdict
from patchforge.trial.reports.evidence import Evidence, SessionResult

_SHOWN = 6  #: failures that the first line names
_GIB = 1 << 30

#: What each verdict means; docs/trials.md says the same.
EXPLAINED: Mapping[TrialVerdict, str] = {
    TrialVerdict.FRESH: "Computed now, on the named device, as the device's own count of operations shows, "
    "and equal to the CPU's result as far as stated.",
    TrialVerdict.PASSED: "A test that is not a workflow held.",
    TrialVerdict.CACHED: "A node that was to be computed came out of ComfyUI's cache.",
    TrialVerdict.CPU_FALLBACK: "It ran, but not where it should: a node did fewer operations on the device "
    "than it takes.",
    TrialVerdict.CAPACITY: "The device ran out of memory.",
    TrialVerdict.FAILED: "An error, no end in time, no result, a result of one colour, or one that differs "
    "from the CPU's.",
    TrialVerdict.SKIPPED: "Not run, with the reason (a node or a flag that the release does not have).",
}


def headline(evidences: Sequence[Evidence]) -> list[str]:
    """Sentences: whether it works, how much of it, what failed, and what the patches change."""
    ran = _ran(evidences)
    passed = sum(judgement.passed for _, judgement in ran)
    who, what = _device(evidences), f"ComfyUI {', '.join(of.release for of in evidences)}"
    if not ran:
        return [f"Nothing was run of {what} on {who}."]
    verb, part = ("runs", " in part") if _computes(ran) else ("does not run", "")
    part = "" if passed == len(ran) else part
    how = f"all {passed}" if passed == len(ran) > 1 else f"{passed} of {len(ran)}"
    said = [f"{who[:1].upper()}{who[1:]} {verb} {what}{part}: {how} tests pass."]
    if failing := list(dict.fromkeys(judgement.test for _, judgement in ran if not judgement.passed)):
        more = f", and {len(failing) - _SHOWN} more" if len(failing) > _SHOWN else ""
        said.append(f"Failed: {', '.join(failing[:_SHOWN])}{more}.")
    return said


def how_well(evidences: Sequence[Evidence], better: int, worse: int) -> list[str]:
    """The same in numbers: against the CPU, and what the patches change where upstream ran as well."""
    differences = [judgement.difference for _, judgement in _ran(evidences) if judgement.difference is not None]
    equal = sum(difference.largest == 0 for difference in differences)
    said = (
        [f"Of {len(differences)} results that were compared with the CPU's, {equal} are equal."] if differences else []
    )
    if both_ran(evidences):
        said.append(f"Tests that pass only with the patches: {better}; only without them: {worse}.")
    return said


def failing(evidences: Sequence[Evidence]) -> list[tuple[str, str, Judgement]]:
    """Release, session and judgement of what did not pass."""
    return [(where[0], where[1], judgement) for where, judgement in _ran(evidences) if not judgement.passed]


def both_ran(evidences: Sequence[Evidence]) -> bool:
    """Whether a test of upstream's own tree ran beside the patched one; the CPU's reference is none."""
    tried = {(each.name, each.side) for evidence in evidences for each in evidence.sessions if each.judgements}
    return any((name, TrialSide.UPSTREAM) in tried for name, side in tried if side is TrialSide.PATCHED)


def surroundings(evidences: Sequence[Evidence]) -> list[tuple[str, str]]:
    """On what it was seen: device, memory, driver, torch, Python, days, times. Values that differ are all told."""
    sessions = [session for session in _sessions(evidences) if session.side is TrialSide.PATCHED] or _sessions(
        evidences
    )
    devices = [device for each in sessions for device in _devices(each)]
    seconds = sum(judgement.seconds for each in sessions for judgement in each.judgements)
    days = sorted({each.date[:10] for each in sessions})
    texts_of = {
        "device": (
            str(evidence.device) if evidence.device.emulated else f"{evidence.device} (real)" for evidence in evidences
        ),
        "name": (str(device["name"]) for device in devices if device.get("name")),
        "memory": (
            f"{device[key] / _GIB:.1f} GiB"
            for device in devices
            for key in ("total", "total_memory")
            if device.get(key)
        ),
        "driver": (str(device["driver"]) for device in devices if device.get("driver")),
        "torch": (each.versions.get("torch") or str(each.facts.get("torch") or "") for each in sessions),
        "Python": (each.versions.get("python") or str(each.facts.get("python") or "") for each in sessions),
        "tested": iter([" to ".join(dict.fromkeys((days[0], days[-1])))] if days else []),
        "time": iter([f"{seconds / 60:.1f} minutes in tests" if seconds else ""]),
        "patchforge": (evidence.patchforge for evidence in evidences),
    }
    told = ((name, ", ".join(dict.fromkeys(text for text in texts if text))) for name, texts in texts_of.items())
    return [(name, text) for name, text in told if text]


def _ran(evidences: Sequence[Evidence]) -> list[tuple[tuple[str, str], Judgement]]:
    """Release, session, and what ran there of the patched tree; of upstream's where no other did."""
    judged = [
        (each.side, (evidence.release, each.name), judgement)
        for evidence in evidences
        for each in evidence.sessions
        if each.device.kind == evidence.device.kind
        for judgement in each.judgements
        if judgement.verdict is not TrialVerdict.SKIPPED
    ]
    side = TrialSide.PATCHED if any(of is TrialSide.PATCHED for of, _, _ in judged) else TrialSide.UPSTREAM
    return [(where, judgement) for of, where, judgement in judged if of is side]


def _computes(ran: Sequence[tuple[tuple[str, str], Judgement]]) -> bool:
    """Whether some workflow came out right; without workflows, whether anything passed."""
    workflows = [
        judgement
        for _, judgement in ran
        if judgement.verdict is not TrialVerdict.PASSED and (judgement.steps or judgement.images)
    ]
    return (
        any(workflow.passed for workflow in workflows) if workflows else any(judgement.passed for _, judgement in ran)
    )


def _device(evidences: Sequence[Evidence]) -> str:
    """As a person would call it; the first that a session names, since other sessions may have others."""
    device = evidences[0].device
    named = chain.from_iterable(_devices(each) for each in _sessions(evidences))
    name = next((str(device["name"]) for device in named if device.get("name")), str(device))
    name = name.replace("(R)", "").replace("(TM)", "")
    return f"an emulated {name}" if device.emulated else name


def _sessions(evidences: Sequence[Evidence]) -> list[SessionResult]:
    return [each for evidence in evidences for each in evidence.sessions if each.device.kind == evidence.device.kind]


def _devices(session: SessionResult) -> Iterator[Mapping[str, Any]]:
    devices = session.facts.get("devices")
    yield from (device for device in devices if isinstance(device, Mapping)) if isinstance(devices, list) else ()
