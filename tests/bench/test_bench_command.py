"""``patchforge bench`` on a folder of a miniature release: what it writes and says, and its exit status."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from emulator import build
from patchforge.bench import places, workflows
from patchforge.bench.model import FILE, FORMAT, PATCHED, UPSTREAM, read
from patchforge.cli import main, parser
from patchforge.commands import test as trials
from patchforge.commands.bench import run as command
from patchforge.errors import Exit, PatchforgeError, SystemFault
from patchforge.project import load_project, release_index
from patchforge.trial.model import Device, TrialVerdict
from patchforge.trial.server import devices
from patchforge.trial.server.environment import Environment
from tests.bench.examples import benchmark
from tests.support import engine_of
from tests.trial.miniature_server import files, missing
from tests.trial.support import TXT2IMG

pytestmark = pytest.mark.skipif(bool(missing("torch")), reason=f"needs {missing('torch')}")
EMULATED = pytest.mark.skipif(bool(build.missing()), reason=build.missing() or "")


FEW = ("--suite", "workflows", "--pairs", "0")


LACKING = [name for name in ("scipy", "skimage", "flip_evaluator") if find_spec(name) is None]
WHOLE = pytest.mark.skipif(bool(LACKING), reason=f"needs the extra benchmark: {', '.join(LACKING)}")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on a release that behaves as ``modes`` say; the exit status, and where it wrote."""
    monkeypatch.setattr(command, "make_engine", lambda _: engine_of(()))
    monkeypatch.setattr(trials, "generated_models", lambda *_: Path("nowhere"))
    monkeypatch.setattr(trials, "existing", lambda python: Environment(python, {"torch": "0"}, {}))
    monkeypatch.setattr(command, "load", lambda: {TXT2IMG.name: TXT2IMG})

    def run(*arguments: str, modes: tuple[str, ...] = ()) -> tuple[int, Path]:
        release = tmp_path / "release"
        for path, data in {**files(*modes), "comfyui_version.py": b'__version__ = "9.0.0"\n'}.items():
            (release / path).parent.mkdir(parents=True, exist_ok=True)
            (release / path).write_bytes(data)
        status = main(["bench", str(release), "--no-venv", "--out", str(tmp_path / "out"), *FEW, *arguments])
        return status, next((tmp_path / "out").glob("*"), tmp_path)

    return run


@WHOLE
@EMULATED
def test_both_sides_are_measured_on_the_emulated_device(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = bench("--device", "emulated", "--baseline", "upstream", "--pairs", "3")
    said = capsys.readouterr()
    assert status == Exit.OK, said
    assert out.name == "v9.0.0-emulated-b580"
    measured = read(out)
    assert [(case.name, case.side, case.verdict) for case in measured.cases] == [
        ("txt2img-basic", UPSTREAM, TrialVerdict.FRESH),
        ("txt2img-basic", PATCHED, TrialVerdict.FRESH),
    ]
    assert measured.cases[0].counts == measured.cases[1].counts
    sampler = measured.cases[1].counts["2 KSampler"]
    assert sampler.operations["float32 mul"] >= 40
    assert sampler.copies["cpu to xpu"][0] == 3
    for case in measured.cases:
        assert case.times is not None
        assert len(case.times.seconds) == len(case.times.parts["2 KSampler"]) == 3
        assert min(case.times.parts["2 KSampler"]) > 0
        assert len(case.times.warm_up) >= 2
    assert measured.machine.gpus == ("Intel(R) Arc(TM) B580 Graphics emulated",)
    assert "equal to the reference" in said.out
    assert main(["bench", "compare", str(out)]) == Exit.OK
    compared = capsys.readouterr().out
    assert "no difference in" in compared
    assert "too few runs" in compared


@pytest.mark.parametrize("computes", [{"1": 0, **TXT2IMG.computes}, {"1": 0}], ids=["some of it", "all of it"])
def test_what_no_seed_decides_is_timed_with_the_rest(
    bench: Any, monkeypatch: pytest.MonkeyPatch, computes: dict[str, int]
) -> None:
    monkeypatch.setattr(command, "load", lambda: {TXT2IMG.name: replace(TXT2IMG, computes=computes)})
    status, out = bench("--device", "cpu", "--pairs", "2")
    (case,) = read(out).cases
    assert status == Exit.OK
    assert case.times is not None, case.not_measured
    assert min(case.times.parts["2 KSampler"]) > 0


def test_the_cpu_is_measured_by_itself(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = bench("--device", "cpu", "--json")
    document = json.loads(capsys.readouterr().out)
    assert (status, document["schema"]) == (Exit.OK, "patchforge/bench/1")
    (case,) = read(out).cases
    assert case.counts["2 KSampler"].synchronisations is None
    assert case.counts["2 KSampler"].allocations
    assert document["cases"][0]["counts"].keys() == case.counts.keys()


@pytest.mark.parametrize("named", [(), ("v0.3.47",), ("latest",)])
def test_torch_alone_needs_neither_a_release_nor_what_one_requires(
    named: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(command, "open_upstream", refused)
    monkeypatch.setattr(trials, "prepare", refused)
    monkeypatch.chdir(tmp_path)
    words = ("--suite", "tensor,conv,sd", "--quick", "--pairs", "0", "--device", "cpu", "--out", "out")
    assert main(["bench", *named, *words]) == Exit.OK
    (out,) = (tmp_path / "out").iterdir()
    measured = read(out)
    assert {case.suite for case in measured.cases} == {"tensor", "conv", "sd"}
    assert (measured.commit, measured.manifest) == ("", "")
    newest = str(max(release.version for release in release_index(load_project())))
    assert measured.release == ("v0.3.47" if "v0.3.47" in named else newest)


def test_the_cpu_is_a_baseline_when_it_is_asked_for(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = bench("--device", "cpu", "--baseline", "cpu", "--pairs", "2")
    assert status == Exit.USAGE
    assert "cpu is not a baseline for itself" in capsys.readouterr().err
    assert not (out / FILE).exists()


def test_an_earlier_benchmark_is_the_baseline(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = bench("--device", "cpu")
    earlier = tmp_path / "earlier"
    out.rename(earlier)
    assert bench("--device", "cpu", "--baseline", str(earlier))[0] == Exit.OK
    assert "no difference in " in capsys.readouterr().out
    measured = read(earlier)
    (case,) = measured.cases
    counts = {part: replace(counts, allocations=1) for part, counts in case.counts.items()}
    changed = replace(measured, cases=(replace(case, counts=counts),))
    (tmp_path / FILE).write_bytes(FORMAT.dump(changed))
    assert bench("--device", "cpu", "--baseline", str(tmp_path / FILE))[0] == Exit.FAILED
    assert "exact figures differ" in capsys.readouterr().out


def test_what_cannot_be_a_baseline_is_told_before_the_work(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, data in (("other", FORMAT.dump(benchmark())), ("damaged", b"{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).write_bytes(data)
    for named, status, said in (
        ("nowhere", Exit.USAGE, "there is no baseline 'nowhere'"),
        (tmp_path / "other", Exit.UNCHECKED, "they are of another device"),
        (tmp_path / "damaged", Exit.DATA, "is not JSON"),
    ):
        assert bench("--device", "cpu", "--baseline", str(named))[0] == status
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_baseline_that_this_torch_does_not_see(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "available", lambda _: [])
    assert bench("--device", "cpu", "--baseline", "cuda")[0] == Exit.UNCHECKED
    assert "sees no cuda device" in capsys.readouterr().err


def test_nothing_is_measured_of_a_run_that_is_not_fresh(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = bench("--device", "cpu", modes=("stub",))
    assert status == Exit.FAILED
    (case,) = read(out).cases
    assert (case.verdict, case.counts) == (TrialVerdict.FAILED, {})
    assert "not measured" in capsys.readouterr().out
    assert main(["bench", "compare", str(out), str(out)]) == Exit.UNCHECKED


def test_a_server_without_the_trial_pack(bench: Any) -> None:
    status, out = bench("--device", "cpu", modes=("no-packs",))
    assert status == Exit.FAILED
    assert [case.verdict for case in read(out).cases] == [TrialVerdict.FAILED]


def test_a_server_that_ends_says_why(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = b"import sys\nprint('starting')\nsys.exit('no such driver')\n"
    whole = files
    monkeypatch.setitem(globals(), "files", lambda *modes: {**whole(*modes), "main.py": ends})
    status, out = bench("--device", "cpu")
    assert status == Exit.FAILED
    assert read(out).cases[0].reason.endswith("no such driver")


def test_what_is_not_ours_is_not_written_over(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out" / "v9.0.0-cpu").mkdir(parents=True)
    (tmp_path / "out" / "v9.0.0-cpu" / FILE).write_text("mine")
    assert bench("--device", "cpu")[0] == Exit.USAGE
    assert (tmp_path / "out" / "v9.0.0-cpu" / FILE).read_text() == "mine"
    capsys.readouterr()


@pytest.mark.parametrize("words", [["v0.33.0", "--quick"], ["--quick", "v0.33.0"], ["--quick"], []])
def test_measuring_is_what_is_meant_where_nothing_is_named(words: list[str]) -> None:
    def found(*line: str) -> dict[str, Any]:
        return {name: value for name, value in vars(parser().parse_args(line)).items() if name != "run"}

    assert found("bench", *words) == found("bench", "run", *words)


def test_a_mistyped_action_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "comapre", "a"]) == Exit.USAGE
    assert "there is no command 'comapre'; did you mean compare?" in capsys.readouterr().err
    with pytest.raises(PatchforgeError, match="there is no option --quik; did you mean --quick"):
        parser().parse_args(["bench", "v1", "--quik"])


@WHOLE
@EMULATED
def test_other_precisions_are_sides_of_their_own(bench: Any) -> None:
    """The miniature computes in float32 whatever it is told, so all is equal."""
    status, out = bench("--device", "emulated", "--precision", "fp16", "--pairs", "1")
    assert status == Exit.OK
    measured = read(out)
    assert [case.side for case in measured.cases] == [PATCHED, f"{PATCHED}, fp16"]
    for case in measured.cases:
        assert case.quality is not None
        assert case.quality.equal
        assert [use.what for use in case.memory] == ["RAM of the process"]
        assert case.memory[0].peak > 1 << 20
        assert (case.pictures, case.steps) == (1, 2)


def test_a_precision_that_there_is_not(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--device", "cpu", "--precision", "fp8")[0] == Exit.USAGE
    assert "no precision is called 'fp8'" in capsys.readouterr().err


@pytest.fixture
def real_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one workflow has a model of real size, and the machine the memory for it."""
    known = replace(TXT2IMG, weights=("patchforge-sd15.safetensors",), computes={"2": 50, "3": 50})
    monkeypatch.setattr(command, "load", lambda: {known.name: known})
    monkeypatch.setattr(command, "available", lambda: 1 << 40)


@WHOLE
@EMULATED
def test_models_of_real_size_are_compared_in_one_step_and_measured_in_all(
    bench: Any, real_sizes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = bench("--device", "emulated", "--size", "real", "--pairs", "2")
    assert status == Exit.OK, capsys.readouterr()
    (case,) = read(out).cases
    assert case.name == "txt2img-basic (real size)"
    assert case.steps == 20
    assert case.reason.startswith("in 1 of its steps: ")
    assert case.quality is not None
    assert case.quality.equal
    assert case.counts["2 KSampler"].operations["float32 mul"] >= 400
    assert case.times is not None


@EMULATED
def test_models_of_real_size_that_differ_from_the_cpus_are_not_measured(
    bench: Any, real_sizes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--device", "emulated", "--size", "real", modes=("blind",))[0] == Exit.FAILED
    assert "in 1 of its steps" in capsys.readouterr().out


def test_levels_are_for_intel_gpus(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--device", "cpu", "--level", "O9")[0] == Exit.USAGE
    assert "no level is called 'O9'" in capsys.readouterr().err
    assert bench("--device", "cpu", "--level", "O2")[0] == Exit.USAGE
    assert "levels are for Intel GPUs" in capsys.readouterr().err


def test_each_precision_is_run_at_each_level() -> None:
    options = parser().parse_args(["bench", "v1", "--precision", "fp16", "--level", "O1,O2", "--level", "O2"])
    assert command._variants(options) == [
        ("fp32", ""),
        ("fp32", "O1"),
        ("fp32", "O2"),
        ("fp16", ""),
        ("fp16", "O1"),
        ("fp16", "O2"),
    ]


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        ((), 12),
        (("--quick",), 3),
        (("--baseline", "upstream"), 16),
        (("--baseline", "earlier.json"), 12),
        (("--precision", "fp16"), 16),
        (("--level", "O2", "--quick"), 3),
        (("--pairs", "5", "--quick"), 5),
        (("--pairs", "0"), 0),
    ],
)
def test_how_often_each_side_is_run(words: tuple[str, ...], pairs: int) -> None:
    assert command._pairs(parser().parse_args(["bench", "v1", *words])) == pairs


def test_a_level_is_a_flag_of_the_patched_tree(tmp_path: Path) -> None:
    def side(tree: Path) -> workflows.WorkflowSide:
        environment = Environment(Path("python"), {}, {})
        return workflows.WorkflowSide(
            "it", tree, Device("xpu"), environment, tmp_path / "log", 1, 1, precision="fp16", level="O2"
        )

    (tmp_path / "comfy" / "patchforge_xpu").mkdir(parents=True)
    (tmp_path / "comfy" / "cli_args.py").write_text('"--force-fp16" "--fp16-vae" "--cpu"')
    assert side(tmp_path).arguments == ("--force-fp16", "--fp16-vae")
    (tmp_path / "comfy" / "patchforge_xpu" / "options.py").write_text('"--xpu-level"')
    assert side(tmp_path).arguments == ("--force-fp16", "--fp16-vae", "--xpu-level=O2")
    assert not side(tmp_path).exact


def test_what_is_needed_is_told_before_the_work(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    status, out = bench("--device", "cpu", "--pairs", "1")
    assert status == Exit.UNCHECKED
    assert 'pip install ".[test,benchmark]"' in capsys.readouterr().err
    assert not (out / FILE).exists()
    assert bench("--device", "cpu")[0] == Exit.OK  # counts need nothing of it


def test_an_emulated_device_computes_as_the_reference_did(tmp_path: Path) -> None:
    """As ``patchforge test`` has it: attention is fused there, as on the CPU, where results are to be the same bits."""
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "cli_args.py").write_text('"--xpu-attention" "--force-fp32"')
    environment = Environment(Path("python"), {}, {})

    def side(device: Device, **more: Any) -> workflows.WorkflowSide:
        return workflows.WorkflowSide("it", tmp_path, device, environment, tmp_path / "log", 1, 1, **more)

    emulated = Device("xpu", "b580", "rng=cpu")
    assert side(emulated).arguments == ("--force-fp32", "--xpu-attention=fused")
    assert side(emulated, precision="bf16").arguments == ()
    assert side(Device("xpu")).arguments == ("--force-fp32",)


def test_the_shorthand_takes_every_option_of_run_first() -> None:
    """None is taken for a mistyped command, however near to one it is."""
    line = parser()
    line.parse_args(["bench", "v1"])
    whole_run = line.commands["bench"].commands["run"]
    tried = 0
    for action in whole_run.listed():
        for option in action.option_strings:
            if option in {"-h", "--help"}:
                continue
            value = str(next(iter(action.choices))) if action.choices else "64" if action.type else "tensor"
            words = [option] if action.nargs == 0 else [option, value]
            found, wanted = (vars(parser().parse_args(["bench", *line])) for line in (words, ["run", *words]))
            assert {**found, "run": ""} == {**wanted, "run": ""}, option
            tried += 1
    assert tried > 12


@pytest.mark.parametrize("folder", ["./report", "/tmp/record", "record.d"])
def test_a_path_is_no_mistyped_action(folder: str) -> None:
    assert parser().parse_args(["bench", folder]).release == folder


def test_where_nothing_can_be_written_is_told_before_the_work(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_measured", lambda *_: pytest.fail("it was measured"))
    (tmp_path / "file").touch()
    wrong = [("file", Exit.USAGE, f"{tmp_path / 'file'} is not a folder"), ("file/below", Exit.USAGE, "not a folder")]
    wrong += [("n" * 300, Exit.SYSTEM, "too long"), ("a/" + "n" * 300, Exit.SYSTEM, "too long")]
    if Path("/proc/self").exists():
        wrong.append(("/proc/x", Exit.SYSTEM, "/proc/x"))
    for place, status, said in wrong:
        assert bench("--device", "cpu", "--out", str(tmp_path / place))[0] == status, place
        assert said in capsys.readouterr().err
    (tmp_path / "locked").mkdir(mode=0o500)
    if not os.access(tmp_path / "locked", os.W_OK):  # who is root may write everywhere
        assert bench("--device", "cpu", "--out", str(tmp_path / "locked"))[0] == Exit.SYSTEM
    assert {path.name for path in tmp_path.iterdir()} == {"file", "locked", "release"}


@pytest.mark.parametrize("elsewhere", [True, False])
def test_what_was_measured_is_kept_where_it_cannot_be_written(
    elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "out"))

    monkeypatch.setattr(places, "write_folder", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("kept" if elsewhere else "nowhere")))
    (tmp_path / "kept").mkdir()
    if not elsewhere:
        monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(SystemFault, match="disk is full") as told:
        places.write(tmp_path / "out", benchmark())
    assert str(tmp_path / "out" / FILE) in told.value.problem
    found = list((tmp_path / "kept").iterdir())
    if elsewhere:
        assert read(found[0]) == benchmark()
        assert str(found[0]) in told.value.do
    else:
        assert found == []
        assert FORMAT.parse(capsys.readouterr().err.encode(), "it") == benchmark()
