"""Each rule of a verdict, which rule comes first, and what no order of events may bring about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchforge.errors import PatchforgeError
from patchforge.trial.model import Device, Ending, Execution, ImageDifference, Judgement, Output, TrialVerdict
from patchforge.trial.verdicts.judge import EXACT, Tolerance, judge, tolerance
from tests.trial.examples import CPU, EMULATED, PICTURE, REAL, WORKFLOW, encoded, execution, failed, flat, frame

OTHER = encoded(frame(5))


def judged(run: Execution, device: Device = EMULATED, reference: Execution | None = None, **more: object) -> Judgement:
    return judge(WORKFLOW, run, device=device, reference=reference, **more)  # type: ignore[arg-type]


def test_computed_and_equal_is_fresh() -> None:
    judgement = judged(execution(), reference=execution())
    assert judgement.verdict is TrialVerdict.FRESH
    assert judgement.reason == "120 operations on emulated:b580; equal to the reference"
    assert judgement.difference is not None
    assert judgement.steps == execution().steps
    assert judgement.log == ()


@pytest.mark.parametrize(
    ("reference", "said"), [(None, "no reference"), (failed(Ending.TIMEOUT, "", ""), "the reference ended as timeout")]
)
def test_fresh_without_a_reference_says_that_nothing_was_compared(reference: Execution | None, said: str) -> None:
    judgement = judged(execution(), reference=reference)
    assert judgement.verdict is TrialVerdict.FRESH
    assert f"{said}: the result was not compared" in judgement.reason


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("torch.OutOfMemoryError", "Allocation on device"),
        ("torch.cuda.OutOfMemoryError", ""),
        ("RuntimeError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("AcceleratorError", "CUDA error: out of memory"),
        ("RuntimeError", "Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
        ("RuntimeError", "level_zero backend failed with error: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)"),
        ("RuntimeError", "UR_RESULT_ERROR_OUT_OF_HOST_MEMORY"),
        ("RuntimeError", "something\nThis error means you ran out of memory on your GPU."),
    ],
)
def test_out_of_memory_is_capacity_with_the_node(error: str, message: str) -> None:
    judgement = judged(failed(Ending.ERROR, error, message))
    assert judgement.verdict is TrialVerdict.CAPACITY
    assert judgement.reason.startswith("node 3 (KSampler) ran out of memory: ")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("RuntimeError", "UR_RESULT_ERROR_DEVICE_LOST"),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied"),
        ("NotOutOfMemoryErrorAtAll", "the paper ran out"),
    ],
)
def test_other_errors_are_failures_with_node_and_log(error: str, message: str) -> None:
    judgement = judged(failed(Ending.ERROR, error, message))
    assert judgement.verdict is TrialVerdict.FAILED
    assert judgement.reason == f"node 3 (KSampler) failed: {error}: {message}"
    assert judgement.log == ('  File "a.py", line 1', "    b()", "a line of the log")


def test_out_of_memory_in_the_log_alone_excuses_nothing() -> None:
    run = replace(failed(Ending.ERROR, "ValueError", "wrong"), log=("XPU out of memory, retrying with tiles",))
    assert judged(run).verdict is TrialVerdict.FAILED


@pytest.mark.parametrize("ending", [Ending.GONE, Ending.TIMEOUT, Ending.REJECTED, Ending.INTERRUPTED])
def test_a_worker_that_ended_or_hangs_failed_even_after_out_of_memory(ending: Ending) -> None:
    judgement = judged(failed(ending, "torch.OutOfMemoryError", "XPU out of memory"))
    assert judgement.verdict is TrialVerdict.FAILED
    assert "at node 3 (KSampler): torch.OutOfMemoryError" in judgement.reason


def test_an_end_without_a_failure_has_a_reason() -> None:
    assert judged(execution(ending=Ending.TIMEOUT)).reason == "the prompt did not end in time"
    assert judged(execution(ending=Ending.ERROR)).reason == "the prompt failed"


def test_a_cached_node_is_cached() -> None:
    judgement = judged(execution(0, cached="3"), reference=execution())
    assert (judgement.verdict, judgement.reason) == (TrialVerdict.CACHED, "node 3 (KSampler) came out of the cache")


def test_a_cached_node_that_need_not_be_computed_is_nothing() -> None:
    assert judged(execution(cached="9")).verdict is TrialVerdict.FRESH


def test_a_node_partly_cached_is_cached() -> None:
    run = execution()
    assert judged(replace(run, steps=(*run.steps, replace(run.steps[0], cached=True)))).verdict is TrialVerdict.CACHED


def test_cached_comes_before_the_files_and_operations_that_are_therefore_missing() -> None:
    assert judged(execution(0, 0, cached="38", outputs=())).verdict is TrialVerdict.CACHED


def test_too_few_operations_are_a_fallback_with_node_count_and_minimum() -> None:
    judgement = judged(execution(99), reference=execution())
    assert judgement.verdict is TrialVerdict.CPU_FALLBACK
    assert judgement.reason == "node 3 (KSampler) did 99 operations on emulated:b580, at least 100 expected"


def test_operations_of_a_node_in_several_steps_add_up() -> None:
    run = execution(60)
    assert judged(run).verdict is TrialVerdict.CPU_FALLBACK
    assert judged(replace(run, steps=(*run.steps, replace(run.steps[0], operations=40)))).verdict is TrialVerdict.FRESH


def test_a_fallback_explains_a_difference_and_names_it() -> None:
    judgement = judged(execution(0, picture=OTHER), reference=execution())
    assert judgement.verdict is TrialVerdict.CPU_FALLBACK
    assert "differs from the reference by up to 5 levels" in judgement.reason


def test_on_the_cpu_nothing_is_counted() -> None:
    judgement = judged(execution(0, 0), CPU)
    assert judgement.verdict is TrialVerdict.FRESH
    assert judgement.reason.startswith("computed on the CPU; ")
    assert judged(execution(0, 0, cached="3"), CPU).verdict is TrialVerdict.CACHED
    assert judged(execution(0, 0, outputs=()), CPU).verdict is TrialVerdict.FAILED


def test_a_node_that_was_not_seen_did_not_run() -> None:
    run = execution()
    judgement = judged(replace(run, steps=run.steps[1:]))
    assert (judgement.verdict, judgement.reason) == (TrialVerdict.FAILED, "node 3 (KSampler) was not seen to run")


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ((), "node 9 (SaveImage) left no file"),
        ((Output("5", "b.png", PICTURE),), "node 9 (SaveImage) left no file"),
        ((Output("9", "a.png", b""),), "a.png of node 9: the picture cannot be read"),
        (
            (Output("9", "a.png", PICTURE), Output("9", "b.png", encoded(flat(0)))),
            "b.png of node 9 has a single colour",
        ),
    ],
)
def test_missing_and_stub_results_fail_before_they_are_a_fallback(outputs: tuple[Output, ...], said: str) -> None:
    for operations in (0, 100):
        judgement = judged(execution(operations, outputs=outputs), reference=execution())
        assert judgement.verdict is TrialVerdict.FAILED
        assert said in judgement.reason


def test_a_result_that_other_seeds_do_not_change_is_a_stub() -> None:
    same = judged(execution(), varied=execution(picture=encoded(frame(), compress_level=1)))
    assert same.verdict is TrialVerdict.FAILED
    assert "depends on nothing" in same.reason
    assert judged(execution(), varied=execution(picture=OTHER)).verdict is TrialVerdict.FRESH


@pytest.mark.parametrize(
    ("allowed", "verdict"),
    [
        (EXACT, TrialVerdict.FAILED),
        (Tolerance(5, 5), TrialVerdict.FRESH),
        (Tolerance(4, 5), TrialVerdict.FAILED),
        (Tolerance(5, 4.9), TrialVerdict.FAILED),
    ],
)
def test_both_figures_of_the_tolerance_count(allowed: Tolerance, verdict: TrialVerdict) -> None:
    judgement = judged(execution(picture=OTHER), reference=execution(), tolerance=allowed)
    assert judgement.verdict is verdict
    assert "differs from the reference by up to 5 levels, 5 on average" in judgement.reason


def test_a_difference_that_is_given_is_used() -> None:
    judgement = judged(execution(), reference=execution(), difference=ImageDifference(9, 1))
    assert judgement.verdict is TrialVerdict.FAILED
    assert judged(execution(), difference=ImageDifference(float("nan"), float("nan"))).verdict is TrialVerdict.FAILED


def test_a_result_that_cannot_be_compared_failed() -> None:
    judgement = judged(execution(picture=encoded(frame(size=(4, 4)))), reference=execution())
    assert judgement.verdict is TrialVerdict.FAILED
    assert "expected: 1 frame(s) of 8 x 8 found: 1 frame(s) of 4 x 4" in judgement.reason


def test_a_workflow_that_counts_nothing_shows_nothing() -> None:
    judgement = judge(replace(WORKFLOW, computes={}), execution(), device=REAL)
    assert judgement.verdict is TrialVerdict.FAILED


def test_exact_is_for_the_cpu_and_the_emulator_only() -> None:
    assert tolerance(EMULATED) == tolerance(CPU, dtype="bf16") == EXACT
    assert tolerance(REAL) == tolerance(REAL, exact=False, dtype="fp32") != EXACT
    assert tolerance(EMULATED, exact=False) == tolerance(REAL, dtype="bf16")
    with pytest.raises(PatchforgeError, match="int3"):
        tolerance(REAL, dtype="int3")


def test_coarser_types_may_differ_by_more_but_not_by_an_unrelated_picture() -> None:
    found = [tolerance(REAL, dtype=dtype) for dtype in ("fp32", "fp16", "bf16", "fp8")]
    assert found == sorted(found, key=lambda allowed: (allowed.largest, allowed.mean))
    assert found[0] == found[1], "GPUs convolve fp32 as TF32, whose mantissa is fp16's"
    assert len(set(found)) == 3
    assert all(one.mean < 85 / 4 for one in found)


ENDINGS = st.sampled_from(Ending)
COUNTS = st.integers(0, 250)
CACHED = st.sets(st.sampled_from("389"))
OUTPUTS = st.sampled_from([(), (Output("9", "a", PICTURE),), (Output("9", "a", OTHER),), (Output("9", "a", b"x"),)])
REFERENCES: st.SearchStrategy[Execution | None] = st.sampled_from([None, execution(), failed(Ending.ERROR, "E", "m")])
DEVICES = st.sampled_from([EMULATED, REAL, CPU])
RUNS: Callable[..., st.SearchStrategy[Execution]] = lambda **fixed: st.builds(  # noqa: E731
    lambda sampler, decoder, cached, outputs, ending: execution(
        sampler, decoder, cached=tuple(cached), outputs=outputs, ending=ending
    ),
    **{"sampler": COUNTS, "decoder": COUNTS, "cached": CACHED, "outputs": OUTPUTS, "ending": ENDINGS} | fixed,
)


@given(RUNS(), DEVICES, REFERENCES)
@settings(deadline=None)
def test_fresh_needs_all_of_it(run: Execution, device: Device, reference: Execution | None) -> None:
    judgement = judged(run, device, reference)
    if not judgement.passed:
        assert judgement.reason
        return
    assert judgement.verdict is TrialVerdict.FRESH
    assert run.ending is Ending.SUCCESS
    assert run.outputs
    steps = {step.node: step for step in run.steps}
    assert not any(steps[node].cached for node in WORKFLOW.computes)
    assert device is CPU or all(steps[node].operations >= least for node, least in WORKFLOW.computes.items())
    assert reference is None or reference.ending is not Ending.SUCCESS or run.outputs[0].data == PICTURE


@given(RUNS(), DEVICES, REFERENCES, st.integers(0, 500))
@settings(deadline=None)
def test_more_operations_never_make_it_worse(
    run: Execution, device: Device, reference: Execution | None, more: int
) -> None:
    steps = tuple(replace(step, operations=step.operations + more) for step in run.steps)
    before, after = judged(run, device, reference), judged(replace(run, steps=steps), device, reference)
    if before.verdict is not TrialVerdict.CPU_FALLBACK:
        assert after.verdict is before.verdict


@given(RUNS(ending=st.just(Ending.SUCCESS)), DEVICES, REFERENCES, st.sampled_from("38"))
@settings(deadline=None)
def test_a_cached_node_is_never_fresh(run: Execution, device: Device, reference: Execution | None, node: str) -> None:
    steps = tuple(replace(step, cached=step.cached or step.node == node) for step in run.steps)
    assert judged(replace(run, steps=steps), device, reference).verdict is TrialVerdict.CACHED


@given(RUNS(), DEVICES, REFERENCES)
@settings(deadline=None)
def test_a_verdict_depends_on_its_arguments_only(run: Execution, device: Device, reference: Execution | None) -> None:
    assert judged(run, device, reference) == judged(run, device, reference)
