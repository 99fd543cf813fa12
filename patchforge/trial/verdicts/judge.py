"""What a run shows: a pure function from what was seen to a judgement. A run that succeeded is not proof."""

from __future__ import annotations

import re
from dataclasses import dataclass

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.trial.model import Device, Ending, Execution, ImageDifference, Judgement, TrialVerdict, Workflow
from patchforge.trial.verdicts import pictures

_LOG_LINES = 30
_ALLOCATIONS = 4  #: on hardware allocations are counted, and many operations need none: a fourth of them is asked for

# torch.OutOfMemoryError and torch.cuda.OutOfMemoryError; CUDA, HIP, XPU and MPS; Unified Runtime and its older names
# (pytorch#177714, pytorch#190972); ComfyUI's own advice since v0.17.0.
_OUT_OF_MEMORY = re.compile(
    r"\bOutOfMemoryError\b"
    r"|\b(?:CUDA|HIP|XPU|MPS backend) out of memory|\b(?:CUDA|HIP) error: out of memory"
    r"|\b(?:UR_RESULT|ZE_RESULT|PI|CUDA)_ERROR_OUT_OF_(?:DEVICE_MEMORY|HOST_MEMORY|RESOURCES|MEMORY)\b"
    r"|\bAllocation is out of device memory|\bcan NOT allocate memory block|\bran out of memory on your GPU",
    re.IGNORECASE,
)
_ENDINGS = {
    Ending.INTERRUPTED: "the prompt was interrupted",
    Ending.TIMEOUT: "the prompt did not end in time",
    Ending.REJECTED: "/prompt refused the workflow",
    Ending.GONE: "the server or its worker ended",
}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a result may be from its reference: 8-bit levels, the largest and the mean over all values."""

    largest: float = 0.0
    mean: float = 0.0


EXACT = Tolerance()
_HARDWARE = {
    "fp32": Tolerance(8, 1.25),
    "fp16": Tolerance(8, 1.25),
    "bf16": Tolerance(64, 10),
    "fp8": Tolerance(128, 20),
}


def tolerance(device: Device, *, exact: bool = True, dtype: str = "") -> Tolerance:
    """What may differ from the CPU's fp32 result, in figures that were not tuned on Intel hardware.

    ``exact``: the run had flags that make it compute as the reference did (fp32, the same attention). Then the CPU and
    the emulated XPU, whose kernels are the CPU's, may differ in nothing. Elsewhere it depends on ``dtype``, the type
    computed in (fp32, fp16, bf16, fp8); "" stands for fp32 when ``exact`` and for bf16, the coarsest that ComfyUI
    chooses by itself, when not. fp32 has the figures of fp16: GPUs convolve it as TF32, whose mantissa is fp16's.

    The mean allows ten unit roundoffs u of the full range of 255 levels, as if about a hundred roundings in a row added
    up like a random walk. fp16 (u = 2^-11): 1.25. bf16 (u = 2^-8): 10. fp8 e4m3 (u = 2^-4) gives 159, which would pass
    anything (two unrelated pictures of noise differ by 85 on average), hence 20. The largest of a million normally
    distributed errors is about six times their mean, hence the other figure. PatchforgeError for another ``dtype``.
    """
    if exact and (device.emulated or device.kind == "cpu"):
        return EXACT
    dtype = dtype or ("fp32" if exact else "bf16")
    if dtype not in _HARDWARE:
        raise PatchforgeError(f"no tolerance for {dtype!r}", expected=", ".join(_HARDWARE), do="add one to the table")
    return _HARDWARE[dtype]


def judge(
    workflow: Workflow,
    execution: Execution,
    *,
    device: Device,
    reference: Execution | None = None,
    difference: ImageDifference | None = None,
    tolerance: Tolerance = EXACT,
    varied: Execution | None = None,
) -> Judgement:
    """The verdict on one run of a workflow: the first of these that holds.

    1. It did not end well: CAPACITY when the error of a node is out of memory, else FAILED. A server that ended, or an
       end that did not come, is FAILED whatever came before.
    2. A node of ``computes`` came out of the cache: CACHED. It explains missing files and operations.
    3. A node of ``computes`` was not seen, a file is missing, unreadable or of a single colour, or equals that of
       ``varied``, a run with other seeds: FAILED. A stub is not a run on the wrong device.
    4. A node of ``computes`` did fewer operations on the device than it takes: CPU_FALLBACK. It explains a difference,
       and the reason names that too. On ``cpu`` nothing is counted.
    5. It differs from ``reference`` by more than ``tolerance``, or cannot be compared with it: FAILED.
    6. FRESH. Without a reference, or with one that did not end well, the reason says that nothing was compared.

    ``difference`` is computed here when it is None and there is a reference; the judgement has it.
    """
    difference, differs = _compared(execution, reference, difference, tolerance)
    judged = (
        _ended_badly(execution)
        or _cached(workflow, execution)
        or _nothing_made(workflow, execution, varied)
        or _fallback(workflow, execution, device, differs)
        or ((TrialVerdict.FAILED, differs) if differs else None)
        or (TrialVerdict.FRESH, _fresh(workflow, execution, device, reference, difference))
    )
    log = () if judged[0] is TrialVerdict.FRESH else _log(execution)
    return Judgement(
        workflow.name, *judged, seconds=execution.seconds, steps=execution.steps, difference=difference, log=log
    )


_Found = tuple[TrialVerdict, str]


def _compared(
    execution: Execution, reference: Execution | None, difference: ImageDifference | None, allowed: Tolerance
) -> tuple[ImageDifference | None, str]:
    """The difference, where both runs ended well, and how it is too large; "" when it is not."""
    if difference is None and reference and {execution.ending, reference.ending} == {Ending.SUCCESS}:
        try:
            difference = pictures.compare_outputs(execution.outputs, reference.outputs)
        except CheckFailed as error:
            return None, " ".join(str(error).split())
    return difference, _differs(difference, allowed)


def _ended_badly(execution: Execution) -> _Found | None:
    if execution.ending is Ending.SUCCESS:
        return None
    failure = execution.failure
    said = f"{failure.error}: {failure.message}" if failure else ""
    node = f"node {failure.node} ({failure.kind})" if failure and failure.node else ""
    verdict = TrialVerdict.FAILED
    if execution.ending is not Ending.ERROR:
        what = _ENDINGS[execution.ending] + (f", at {node}" if node else "")
    elif _OUT_OF_MEMORY.search(said):
        verdict, what = TrialVerdict.CAPACITY, f"{node or 'the prompt'} ran out of memory"
    else:
        what = f"{node or 'the prompt'} failed"
    return verdict, f"{what}: {_line(said)}" if said else what


def _cached(workflow: Workflow, execution: Execution) -> _Found | None:
    nodes = [step.node for step in execution.steps if step.cached and step.node in workflow.computes]
    return (TrialVerdict.CACHED, f"{_names(workflow, nodes)} came out of the cache") if nodes else None


def _nothing_made(workflow: Workflow, execution: Execution, varied: Execution | None) -> _Found | None:
    seen = {step.node for step in execution.steps}
    if unseen := [node for node in workflow.computes if node not in seen]:
        return TrialVerdict.FAILED, f"{_names(workflow, unseen)} was not seen to run"
    made = {output.node for output in execution.outputs}
    if missing := [node for node in workflow.outputs if node not in made]:
        return TrialVerdict.FAILED, f"{_names(workflow, missing)} left no file"
    try:
        for output in execution.outputs:
            if pictures.is_constant(output.data):
                return TrialVerdict.FAILED, f"{output.name} of node {output.node} has a single colour: a stub result"
    except CheckFailed as error:
        return TrialVerdict.FAILED, f"{output.name} of node {output.node}: {' '.join(str(error).split())}"
    if varied is not None and _same(execution, varied):
        return TrialVerdict.FAILED, "the result is the same with other seeds: it depends on nothing, a stub result"
    return None


def _same(execution: Execution, varied: Execution) -> bool:
    try:
        return pictures.compare_outputs(execution.outputs, varied.outputs).largest == 0
    except CheckFailed:
        return False


def _fallback(workflow: Workflow, execution: Execution, device: Device, differs: str) -> _Found | None:
    if device.kind == "cpu":
        return None
    if not workflow.computes:
        return TrialVerdict.FAILED, "the workflow names no node to count operations of: nothing shows where it ran"
    counts = _counts(workflow, execution)
    share = 1 if device.emulated else _ALLOCATIONS
    expected = {node: max(1, least // share) for node, least in workflow.computes.items()}
    short = [
        f"{_names(workflow, [node])} did {counts[node]} operations on {device}, at least {least} expected"
        for node, least in expected.items()
        if counts[node] < least
    ]
    return (TrialVerdict.CPU_FALLBACK, "; ".join([*short, *([differs] if differs else [])])) if short else None


def _differs(difference: ImageDifference | None, tolerance: Tolerance) -> str:
    if difference is None or (difference.largest <= tolerance.largest and difference.mean <= tolerance.mean):
        return ""
    return (
        f"differs from the reference by up to {difference.largest:g} levels, {difference.mean:.4g} on average; "
        f"allowed are {tolerance.largest:g} and {tolerance.mean:g}"
    )


def _fresh(
    workflow: Workflow,
    execution: Execution,
    device: Device,
    reference: Execution | None,
    difference: ImageDifference | None,
) -> str:
    total = sum(_counts(workflow, execution).values())
    where = "computed on the CPU" if device.kind == "cpu" else f"{total} operations on {device}"
    if difference is None:
        ended = "no reference" if reference is None else f"the reference ended as {reference.ending}"
        return f"{where}; {ended}: the result was not compared"
    if difference.largest == 0:
        return f"{where}; equal to the reference"
    return (
        f"{where}; differs from the reference by up to {difference.largest:g} levels, {difference.mean:.4g} on average"
    )


def _counts(workflow: Workflow, execution: Execution) -> dict[str, int]:
    """Operations per node of ``computes``; a node that ran in several steps has their sum."""
    counts = dict.fromkeys(workflow.computes, 0)
    for step in execution.steps:
        if step.node in counts:
            counts[step.node] += step.operations
    return counts


def _names(workflow: Workflow, nodes: list[str]) -> str:
    return ", ".join(f"node {node} ({workflow.graph[node]['class_type']})" for node in dict.fromkeys(nodes))


def _log(execution: Execution) -> tuple[str, ...]:
    """The traceback of the failure and the last lines of the server's log."""
    traceback = execution.failure.traceback if execution.failure else ()
    lines = [line for entry in traceback for line in entry.splitlines()]
    return (*lines[-_LOG_LINES:], *execution.log[-_LOG_LINES:])


def _line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
