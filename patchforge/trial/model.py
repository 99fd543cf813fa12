"""What a trial is about, as types: devices, workflows, executions, verdicts, judgements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from patchforge.documents import NOT_WRITTEN, form

JsonObject = dict[str, Any]

OWN_PACK = "patchforge_trial"  #: our nodes and observer, as a folder of ``custom_nodes``
AS_IT_COMES, CONVERTED = "as it comes", "converted"  #: the states in which a pack is tried


class TrialVerdict(StrEnum):
    """What a test shows. That a workflow succeeded is no proof; PASSED is for other tests than workflows."""

    PASSED = "passed"  #: a functional, API or recovery test held
    FRESH = "fresh"  #: computed now, on the named device, as its operation count shows, and equal to the reference
    CACHED = "cached"  #: a node that was to be computed came out of ComfyUI's cache
    CPU_FALLBACK = "cpu_fallback"  #: ran, but not where it should
    CAPACITY = "capacity"  #: the device has too little memory for it
    FAILED = "failed"  #: an error, no end in time, or a wrong result
    SKIPPED = "skipped"  #: not run; the reason says why (such as a node that the release does not have)


class TrialSide(StrEnum):
    """Which tree a run is of."""

    PATCHED = "patched"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Device:
    """Where a trial runs.

    ``kind`` is torch's device type (``xpu``, ``cuda``, ``mps``, ``cpu``). ``emulated`` is a preset of the emulated XPU
    (such as ``b580``), "" on real hardware; ``options`` are then the emulator's (``memory=600M;rng=cpu``).
    """

    kind: Annotated[str, form("[a-z]{1,20}", "a type of torch's devices, such as xpu")]
    emulated: Annotated[str, form("([a-z0-9][a-z0-9_-]{0,59})?", "a preset of the emulated XPU, such as b580")] = ""
    options: str = ""

    @property
    def real(self) -> str:
        """How evidence marks it: ``real`` or ``emulated``."""
        return "emulated" if self.emulated else "real"

    def __str__(self) -> str:
        return f"emulated:{self.emulated}" if self.emulated else self.kind


@dataclass(frozen=True, slots=True)
class NodeStep:
    """One node of a prompt, as the server saw it. ``operations`` were counted on the device while it ran."""

    node: str
    kind: str  #: its class_type
    cached: bool
    operations: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a prompt did not end well: the node, and what the server says of it."""

    node: str  #: "" when no node is to blame
    kind: str  #: class_type of the node
    error: str  #: the exception's type
    message: str
    traceback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """One file that a prompt left: the node that saved it and the file's bytes."""

    node: str
    name: str
    data: bytes = field(repr=False)


class Ending(StrEnum):
    """How a prompt ended."""

    SUCCESS = "success"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"
    REJECTED = "rejected"  #: /prompt did not take it
    GONE = "gone"  #: the server ended, or its worker did


@dataclass(frozen=True, slots=True)
class Execution:
    """One prompt from /prompt to its end."""

    prompt: str
    ending: Ending
    seconds: float
    steps: tuple[NodeStep, ...] = ()
    outputs: tuple[Output, ...] = ()
    failure: Failure | None = None
    log: tuple[str, ...] = ()  #: the server's log lines while it ran, the last ones


@dataclass(frozen=True, slots=True)
class Workflow:
    """A graph in ComfyUI's API format, and what a run of it must show.

    ``computes`` maps a node id to the least number of operations that it takes when it is computed on the device.
    """

    name: str
    title: str
    graph: Mapping[str, JsonObject] = field(repr=False)
    computes: Mapping[str, int]
    outputs: tuple[str, ...]  #: ids of the nodes that save something
    weights: tuple[str, ...] = ()  #: of the generated weights, by file name
    inputs: tuple[str, ...] = ()  #: of the generated input images, by file name
    dtype: str = ""  #: the type that it asks to compute in, where it does

    @property
    def kinds(self) -> frozenset[str]:
        """Every class_type that the graph uses."""
        return frozenset(str(node["class_type"]) for node in self.graph.values())


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """Two images compared: 8-bit levels, 0 to 255. ``picture`` is a PNG of the absolute difference, amplified."""

    largest: float
    mean: float
    picture: bytes = field(default=b"", repr=False, metadata=NOT_WRITTEN)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict of one test, with its reason in one line and the log lines that matter."""

    test: str  #: a workflow's name, or that of a functional, API or recovery test
    verdict: TrialVerdict
    reason: str
    seconds: float = 0.0
    steps: tuple[NodeStep, ...] = ()
    images: tuple[str, ...] = ()  #: files beside the evidence: result, reference, difference
    difference: ImageDifference | None = None
    log: tuple[str, ...] = ()
    digest: str = ""  #: sha256 over all files that a workflow left; "" where there are none

    @property
    def passed(self) -> bool:
        return self.verdict in {TrialVerdict.PASSED, TrialVerdict.FRESH}
