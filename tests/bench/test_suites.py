"""The suites, and torch's cases in their process: on the emulated XPU and on the CPU."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from emulator import build
from patchforge.bench import probe, suites, torch_cases
from patchforge.bench.model import CPU, TORCH, Case
from patchforge.bench.torch_cases import TorchProbe, TorchSide
from patchforge.cli import main
from patchforge.errors import CheckFailed, Exit, PatchforgeError
from patchforge.trial.model import Device, TrialVerdict
from patchforge.trial.server import devices
from patchforge.trial.workflows.library import load
from tests.trial.miniature_server import missing

needs_torch = pytest.mark.skipif(bool(missing("torch")), reason=f"needs {missing('torch')}")
EMULATED = pytest.mark.skipif(bool(build.missing()), reason=build.missing() or "")
KNOWN = load()


def test_the_workflows_have_the_names_that_people_look_for() -> None:
    names = [case.name for case in suites.of_server(["workflows"], KNOWN, quick=False)]
    assert {"txt2img-basic", "img2img-controlnet", "upscaling-4x", "animation-interpolation"} <= set(names)
    assert len(names) == len(set(names))
    assert "batch" not in names


def test_each_suite_has_cases_and_quick_has_few() -> None:
    every = [*suites.of_torch(suites.SUITES, quick=False), *of_server(suites.SUITES)]
    assert Counter(suite for suite, _ in every).keys() == set(suites.SUITES)
    assert len(every) == len(set(every))
    quick = [*suites.of_torch(suites.SUITES, quick=True), *of_server(suites.SUITES, quick=True)]
    assert set(quick) < set(every)
    assert {suite for suite, _ in quick} >= {"tensor", "conv", "sd", "workflows", "batch"}
    assert {suite for suite, _ in of_server(["load"])} == {"load"}


def of_server(names: list[str] | tuple[str, ...], *, quick: bool = False) -> list[tuple[str, str]]:
    return [(case.suite, case.name) for case in suites.of_server(names, KNOWN, quick=quick)]


@pytest.mark.parametrize("name", ["txt2img", "txt2img-basic"])
def test_a_workflow_is_found_by_either_name(name: str) -> None:
    (case,) = suites.of_server(["workflows"], KNOWN, quick=True, names=[name])
    assert case.name == "txt2img-basic"


def test_a_workflow_that_there_is_not() -> None:
    with pytest.raises(PatchforgeError, match="no workflow of these suites is called 'nonsense'"):
        suites.of_server(["workflows"], KNOWN, quick=False, names=["nonsense"])


def test_a_suite_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "v1", "--suite", "tensor,konv"]) == Exit.USAGE
    assert "no suite is called 'konv'" in capsys.readouterr().err


def test_cases_of_a_server_are_valid_graphs() -> None:
    for case in suites.of_server(suites.SUITES, KNOWN, quick=False):
        graph = case.workflow.graph
        links = [value[0] for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)]
        assert set(links) <= graph.keys(), case.name
        assert {*case.workflow.computes, *case.workflow.outputs} <= graph.keys()
    sizes = {
        case.name: node["inputs"]["batch_size"]
        for case in suites.of_server(["batch"], KNOWN, quick=False)
        for node in case.workflow.graph.values()
        if node["class_type"] == "EmptyLatentImage"
    }
    assert sizes == {"batch-1": 1, "batch-2": 2, "batch-4": 4, "batch-8": 8}


def side(folder: Path, device: Device, name: str = TORCH) -> TorchSide:
    return TorchSide(name, device, device, Path(sys.executable), folder / f"{name}.log", 120)


@EMULATED
@needs_torch
def test_every_case_is_fresh_on_the_emulated_device(tmp_path: Path) -> None:
    emulated = devices.choose("emulated", Path(sys.executable))
    cases = suites.of_torch(suites.SUITES, quick=False)
    alone = side(tmp_path, emulated)
    done = list(torch_cases.measure([alone], cases, 0, lambda _: None))
    assert [(case.name, case.verdict, case.reason) for case in done if case.verdict is not TrialVerdict.FRESH] == []
    assert [(case.suite, case.name) for case in done] == cases
    assert all(sum(case.counts["case"].operations.values()) for case in done)
    assert all(case.not_measured["times"] for case in done)
    assert alone.about["devices"][0]["name"] == "Intel(R) Arc(TM) B580 Graphics"


@needs_torch
def test_two_devices_take_turns(tmp_path: Path) -> None:
    sides = [side(tmp_path, Device(CPU), CPU), side(tmp_path, Device(CPU))]
    cases = list(torch_cases.measure(sides, [("tensor", "add-multiply-float32")], 2, lambda _: None))
    assert [case.side for case in cases] == [CPU, TORCH]
    for case in cases:
        assert case.times is not None
        assert len(case.times.seconds) == 2
        assert 0 < min(case.times.seconds) < 1
        assert case.counts["case"].synchronisations is None
        assert (case.counts["case"].allocations or 0) >= 2
    assert cases[0].counts == cases[1].counts


@needs_torch
def test_what_fails_and_what_ends_is_told(tmp_path: Path) -> None:
    with TorchProbe(side(tmp_path, Device(CPU))) as started:
        with pytest.raises(CheckFailed, match="KeyError"):
            started.ask("check", "nonsense")
        assert started.ask("check", "sum-float32")["error"] == 0
        started._process.kill()
        started._process.wait()
        with pytest.raises(CheckFailed, match="the process of torch ended"):
            started.ask("check", "sum-float32")


@needs_torch
def test_a_torch_without_the_device(tmp_path: Path) -> None:
    cases: list[Case] = list(
        torch_cases.measure([side(tmp_path, Device("xpu"))], [("tensor", "sum-float32")], 1, print)
    )
    assert [case.verdict for case in cases] == [TrialVerdict.FAILED]
    assert "ended" in cases[0].reason


def test_results_that_are_elsewhere_or_wrong_are_not_fresh() -> None:
    alone = side(Path(), Device("xpu"))
    seen = {"device": "xpu", "error": 0.01, "allowed": 0.02}
    assert torch_cases._judged(seen, alone)[0] is TrialVerdict.FRESH
    assert torch_cases._judged({**seen, "error": 0.03}, alone)[0] is TrialVerdict.FAILED
    assert torch_cases._judged({**seen, "error": float("nan")}, alone)[0] is TrialVerdict.FAILED
    assert torch_cases._judged({**seen, "device": "cpu"}, alone)[0] is TrialVerdict.CPU_FALLBACK


def test_every_case_of_torch_has_a_name_of_its_own() -> None:
    assert len({case.name for case in probe.CASES}) == len(probe.CASES)
