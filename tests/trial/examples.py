"""Small runs, pictures and evidence for the tests of what is seen in a trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image

from patchforge.trial.model import (
    Device,
    Ending,
    Execution,
    Failure,
    Judgement,
    NodeStep,
    Output,
    TrialSide,
    TrialVerdict,
    Workflow,
)
from patchforge.trial.reports.evidence import Evidence, SessionResult

EMULATED = Device("xpu", "b580", "rng=cpu")
REAL = Device("xpu")
CPU = Device("cpu")

WORKFLOW = Workflow(
    "txt2img",
    "a picture from words",
    {
        "3": {"class_type": "KSampler", "inputs": {}},
        "8": {"class_type": "VAEDecode", "inputs": {}},
        "9": {"class_type": "SaveImage", "inputs": {}},
    },
    {"3": 100, "8": 20},
    ("9",),
)


def frame(shift: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """A picture of many colours; ``shift`` (up to 55) is added to every value."""
    values = bytes(5 * index % 200 + shift for index in range(size[0] * size[1] * len(mode)))
    return Image.frombytes(mode, size, values)


def flat(level: int) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (8, 8), (level, level, level))


def encoded(*frames: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    more = {"save_all": True, "append_images": frames[1:]} if len(frames) > 1 else {}
    frames[0].save(out, kind, **more, **options)
    return out.getvalue()


PICTURE = encoded(frame())


def execution(
    sampler: int = 100, decoder: int = 20, *, cached: Sequence[str] = (), picture: bytes = PICTURE, **changes: Any
) -> Execution:
    """A run of ``WORKFLOW`` that ended well."""
    nodes = (("3", "KSampler", sampler), ("8", "VAEDecode", decoder), ("9", "SaveImage", 0))
    steps = tuple(NodeStep(node, kind, node in cached, count, 0.1) for node, kind, count in nodes)
    done = Execution("1", Ending.SUCCESS, 1.0, steps, (Output("9", "a.png", picture),), log=("a line of the log",))
    return replace(done, **changes)


def failed(ending: Ending, error: str, message: str) -> Execution:
    failure = Failure("3", "KSampler", error, message, ('  File "a.py", line 1\n    b()\n',))
    return execution(ending=ending, outputs=(), failure=failure)


def judgement(
    test: str = "txt2img", verdict: TrialVerdict = TrialVerdict.FRESH, reason: str = "why", **more: Any
) -> Judgement:
    return Judgement(test, verdict, reason, 1.5, **more)


def session(side: TrialSide, *judgements: Judgement, name: str = "workflows", **changes: Any) -> SessionResult:
    facts = {"devices": [{"name": "Intel(R) Arc(TM) B580 Graphics", "total_memory": 12168724480}]}
    usual = SessionResult(
        name,
        side,
        "k" * 64,
        "2026-11-21T10:00:00Z",
        EMULATED,
        ("--force-fp32",),
        facts,
        {"torch": "2.13.0"},
        (),
        judgements,
    )
    return replace(usual, **changes)


def evidence(*sessions: SessionResult, release: str = "v0.32.0", device: Device = EMULATED) -> Evidence:
    return Evidence(release, "c" * 40, "d" * 64, device, sessions)
