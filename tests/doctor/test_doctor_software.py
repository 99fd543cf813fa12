"""What another interpreter's torch says, also when it crashes or hangs, and what is made of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from patchforge.doctor.facts import Checkout, Facts, FactState, Finding, Gpu, InterpreterFacts
from patchforge.doctor.interpreter import question
from patchforge.doctor.software import findings, fits
from patchforge.errors import PatchforgeError
from tests.doctor.machines import (
    ANSWERS,
    B580,
    NVIDIA_CARD,
    about,
    facts,
    fake_torch,
    interpreter,
    machine,
    states,
)

CPU = {"version": "2.13.0+cpu", "xpu": False, "cuda": None, "hip": None}
CUDA = {"version": "2.13.0+cu130", "xpu": False, "cuda": "13.0", "hip": None}
XPU = {"version": "2.13.0+xpu", "xpu": True, "cuda": None, "hip": None}


def judged(torch: InterpreterFacts, *gpus: Gpu, checkout: Checkout | None = None) -> list[Finding]:
    return list(findings(Facts(machine(*gpus), torch, {}, checkout)))


def installed(**versions: str) -> dict[str, object]:
    names = {name.replace("_", "-"): version for name, version in versions.items()}
    return {"versions": {"torch": "2.13.0+xpu", **names}, "pins": {}}


def test_a_torch_in_order_has_nothing_wrong() -> None:
    assert set(states(list(findings(facts(B580)))).values()) == {FactState.OK}


def test_answers_of_a_whole_run(tmp_path: Path) -> None:
    heard = question(sys.executable, fake_torch(tmp_path))
    assert heard.end == ""
    assert heard.answers["torch"]["version"] == "2.13.0+xpu"
    assert heard.answers["device 0"]["name"] == "Imagined Arc"
    assert heard.answers["device 0"]["integrated"] is None  # this torch does not say
    assert heard.answers["memory 0"] == [11 << 30, 12 << 30]
    assert heard.answers["sums 0"] is True
    assert "float16" not in heard.errors["arithmetic 0"], "this torch of a few lines cannot even draw numbers"
    assert heard.answers["packages"]["versions"]["torch"] == "2.13.0+xpu"
    assert heard.answers["packages"]["pins"]["imagined-pack"] == "2.9.1"


@pytest.mark.parametrize(
    ("more", "end", "last"),
    [
        ("xpu.get_device_properties = lambda index: os.kill(os.getpid(), signal.SIGSEGV)", "signal 11", "device 0"),
        ("xpu.is_available = lambda: os._exit(127)", "status 127", "xpu available"),
        ("xpu.is_available = lambda: os._exit(0)", "status 0", "xpu available"),
        ("os.abort()", "signal 6", "torch"),
    ],
)
def test_a_crash_is_a_finding_that_names_the_question(tmp_path: Path, more: str, end: str, last: str) -> None:
    heard = question(sys.executable, fake_torch(tmp_path, more))
    assert (end in heard.end, heard.last) == (True, last)
    finding = about(
        [
            wrong_finding
            for wrong_finding in judged(heard, B580)
            if wrong_finding.state is FactState.WRONG and end in wrong_finding.text
        ],
        "torch",
    )
    assert last in finding.text
    assert ("Level Zero" in finding.do) == (last != "torch")


def test_a_hang_is_a_finding(tmp_path: Path) -> None:
    heard = question(sys.executable, fake_torch(tmp_path, "xpu.is_available = lambda: time.sleep(600)"), seconds=3)
    assert "did not end within 3 seconds" in heard.end
    assert heard.last == "xpu available"
    assert heard.answers["torch"]["version"] == "2.13.0+xpu"


def test_errors_are_answers_too(tmp_path: Path) -> None:
    more = """
        def _raise(index): raise RuntimeError("doesn't support querying the available free memory")
        xpu.mem_get_info = _raise
        print('{"of": 1'); print("[]"); print("warning: 100 %")
    """
    heard = question(sys.executable, fake_torch(tmp_path, more))
    assert heard.end == ""
    assert heard.errors["memory 0"].startswith("RuntimeError: doesn't support")
    warnings = [
        finding for finding in judged(heard, B580) if finding.subject == "xpu:0" and finding.state is FactState.WARNING
    ]
    assert "UR_L0_ENABLE_SYSMAN_ENV_DEFAULT" in warnings[0].do


def test_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    heard = question(sys.executable, fake_torch(tmp_path, "raise ImportError('libze_loader.so.1: cannot open')"))
    finding = about(judged(heard, B580), "torch")
    assert finding.state is FactState.WRONG
    assert "libze_loader.so.1" in finding.text
    assert "--python" in finding.do


def test_the_files_of_patchforge_are_not_in_the_way_of_an_import(tmp_path: Path) -> None:
    heard = question(sys.executable, fake_torch(tmp_path, "import words"))
    assert heard.errors["torch"].startswith("ModuleNotFoundError")


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PatchforgeError, match="is not there"):
        question(str(tmp_path / "python"), {})


@pytest.mark.parametrize(
    ("torch", "gpus", "cuda", "state"),
    [
        (CPU, (B580,), False, FactState.WRONG),
        (CUDA, (B580,), False, FactState.WRONG),
        (CUDA, (B580, NVIDIA_CARD), True, FactState.WARNING),
        (XPU, (B580,), False, FactState.OK),
        (CUDA, (NVIDIA_CARD,), True, FactState.OK),
        (CPU, (NVIDIA_CARD,), False, FactState.WARNING),
        (CPU, (), False, FactState.OK),
    ],
)
def test_the_build_of_torch(torch: dict[str, object], gpus: tuple[Gpu, ...], cuda: bool, state: FactState) -> None:
    heard = interpreter(torch=torch, cuda_available=cuda, xpu_available=torch is XPU, device_0=None)
    assert about(judged(heard, *gpus), "torch").state is state


@pytest.mark.parametrize(
    ("torch", "gpus", "system", "hinted"),
    [
        (CPU, (), "linux", True),
        (CUDA, (), "win32", True),
        (XPU, (), "linux", False),
        (CPU, (), "darwin", False),  # for which there is no XPU build
        (CUDA, (NVIDIA_CARD,), "linux", False),
    ],
)
def test_whoever_prepares_for_an_intel_gpu_is_told_of_its_torch(
    torch: dict[str, object], gpus: tuple[Gpu, ...], system: str, hinted: bool
) -> None:
    heard = interpreter(torch=torch, cuda_available=bool(gpus), xpu_available=None, device_0=None)
    found = about(list(findings(Facts(machine(*gpus, system=system), heard, {}, None))), "torch")
    assert found.state is FactState.OK
    assert ("XPU build" in found.do) == hinted
    none = interpreter({"torch": "ModuleNotFoundError: no"}, torch=None)
    lacks = about(list(findings(Facts(machine(*gpus, system=system), none, {}, None))), "torch")
    assert lacks.state is FactState.WRONG
    assert ("XPU build" in lacks.do) == (not gpus and system != "darwin")


def test_an_xpu_build_that_sees_no_xpu() -> None:
    blind = interpreter(xpu_available=False, device_0=None, memory_0=None, sums_0=None)
    assert about(judged(blind, B580), "XPU").state is FactState.WRONG
    assert about(judged(blind), "XPU").state is FactState.NOT_APPLICABLE


def test_an_error_of_a_device_is_wrong() -> None:
    lost = interpreter({"sums 0": "RuntimeError: 20 (UR_RESULT_ERROR_DEVICE_LOST)"}, sums_0=None)
    assert about(judged(lost, B580), "XPU: sums 0").state is FactState.WRONG
    assert states(judged(interpreter(sums_0=False), B580))["xpu:0"] is FactState.WRONG


@pytest.mark.parametrize("memory", [[13 << 30, 12 << 30], [-1, 12 << 30], [0, 0]])
def test_free_memory_that_cannot_be(memory: list[int]) -> None:
    assert states(judged(interpreter(memory_0=memory), B580))["xpu:0"] is FactState.WARNING


def test_an_emulated_device_is_called_so() -> None:
    device = {**ANSWERS["device 0"], "platform": "emulated XPU"}
    told = judged(interpreter(device_0=device))
    assert about(told, "emulated XPU").state is FactState.WARNING
    assert {finding.subject for finding in told if finding.subject.startswith("xpu:")} == {"xpu:0 (emulated)"}


@pytest.mark.parametrize(
    ("versions", "subject", "state"),
    [
        ({"intel_extension_for_pytorch": "2.8.10+xpu"}, "IPEX", FactState.WRONG),
        ({"intel_extension_for_pytorch": "2.13.0"}, "IPEX", FactState.WARNING),
        ({"triton_xpu": "3.7.2"}, "Triton", FactState.OK),
        ({"triton_xpu": "3.7.2", "pytorch_triton_xpu": "3.5.0"}, "Triton", FactState.WRONG),
        ({"triton_xpu": "3.7.2", "triton": "3.7.0"}, "Triton", FactState.WRONG),
        ({"triton": "3.7.0"}, "Triton", FactState.WARNING),
    ],
)
def test_packages_in_each_others_way(versions: dict[str, str], subject: str, state: FactState) -> None:
    assert about(judged(interpreter(packages=installed(**versions)), B580), subject).state is state


def test_triton_beside_a_cuda_build_is_as_it_should_be() -> None:
    assert "Triton" not in states(judged(interpreter(torch=CUDA, packages=installed(triton="3.7.0")), NVIDIA_CARD))


@pytest.mark.parametrize(
    ("wanted", "has", "fit"),
    [
        ("2.13.0", "2.13.0+xpu", True),
        ("2.13", "2.13.0+xpu", True),
        ("2.13.*", "2.13.0+xpu", True),
        ("2.1.*", "2.13.0+xpu", False),
        ("2.13.0+xpu", "2.13.0+xpu", True),
        ("2.13.0+cu130", "2.13.0+xpu", False),
        ("2.9.1", "2.13.0+xpu", False),
    ],
)
def test_what_a_pin_takes(wanted: str, has: str, fit: bool) -> None:
    assert fits(wanted, has) is fit


def test_requirements_that_would_replace_torch() -> None:
    pinned = {"versions": {"torch": "2.13.0+xpu"}, "pins": {"xformers": "2.9.1", "torchvision": "2.13.0"}}
    lines = ("torch", "torch>=2.4", "torch==2.13.0", "torch==2.9.0", "--extra-index-url https://example.org/whl/cu130")
    checkout = Checkout("ComfyUI", requirements={"custom_nodes/pack/requirements.txt": lines})
    texts = [
        finding.text
        for finding in judged(interpreter(packages=pinned), B580, checkout=checkout)
        if finding.subject == "requirement"
    ]
    assert len(texts) == 3
    assert "xformers" in texts[0]
    assert "torch==2.9.0" in texts[1]
    assert "cu130" in texts[2]


def test_companions_that_do_not_fit() -> None:
    errors = {"numpy": "RuntimeError: Numpy is not available", "torchvision": "RuntimeError: torchvision::nms"}
    worst = states(judged(interpreter(errors, packages=installed(torchvision="0.20.0")), B580))
    assert worst["numpy"] is worst["torchvision"] is FactState.WRONG
    assert "torchvision" not in states(judged(interpreter({"torchvision": "ModuleNotFoundError: no"}), B580))


def test_wrong_arithmetic_names_the_operation_and_the_flag() -> None:
    wrong = {"float16 linear": "all zero", "float16 matmul": "not finite"}
    broken = interpreter(arithmetic_0={"wrong": wrong, "do": "start with --xpu-precision bf16"})
    finding = next(wrong_finding for wrong_finding in judged(broken, B580) if wrong_finding.state is FactState.WRONG)
    assert finding.subject == "xpu:0"
    assert "float16 linear: all zero" in finding.text
    assert "--xpu-precision bf16" in finding.do
    untried = interpreter({"arithmetic 0": "RuntimeError: no kernel"}, arithmetic_0=None)
    assert FactState.UNKNOWN in {finding.state for finding in judged(untried, B580)}
