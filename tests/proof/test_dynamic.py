"""The dynamic proof on miniature releases of our own. Each mutation is one that must not get past it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch", reason="the dynamic proof needs a CPU build of torch")
if torch.version.cuda or torch.version.hip:
    pytest.skip("the dynamic proof fakes accelerators over a CPU build of torch", allow_module_level=True)

from patchforge.errors import CheckFailed, Exit, NotChecked  # noqa: E402
from patchforge.proof import dynamic, probe, records  # noqa: E402
from patchforge.proof.comparison import DifferenceKind, RecordDifference, called  # noqa: E402
from patchforge.proof.dynamic import Prover  # noqa: E402
from patchforge.proof.judgement import ProofResult, ProofVerdict, ScenarioResult, declarer  # noqa: E402
from patchforge.proof.recording import canonical  # noqa: E402
from patchforge.proof.records import Record  # noqa: E402
from patchforge.proof.scenarios import FORCE, SCENARIOS, Group, Scenario  # noqa: E402

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}

OPTIONS = """\
args_parsing = False


def enable_args_parsing(enable=True):
    global args_parsing
    args_parsing = enable
"""

CLI_ARGS = """\
import argparse

import comfy.options

parser = argparse.ArgumentParser()
parser.add_argument("--cpu", action="store_true")
parser.add_argument("--cuda-device", type=int)
parser.add_argument("--deterministic", action="store_true")
args = parser.parse_args() if comfy.options.args_parsing else parser.parse_args([])
"""

CUDA_MALLOC = """\
import importlib.util
import os
import pathlib

folder = pathlib.Path(importlib.util.find_spec("torch").submodule_search_locations[0])
namespace = {}
exec((folder / "version.py").read_text(), namespace)
if "+cu" in namespace["__version__"]:
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "backend:cudaMallocAsync"
"""

MAIN = """\
from comfy.cli_args import args
import os

if __name__ == "__main__":
    if args.cuda_device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(args.cuda_device)
    import cuda_malloc

raise SystemExit("the probe runs the block above and nothing else")
"""

MANAGEMENT = """\
import torch

from comfy.cli_args import args

NUM_STREAMS = 2 if torch.version.cuda or torch.version.hip else 0
xpu_available = torch.xpu.is_available()


def is_intel_xpu():
    return xpu_available and not args.cpu


def get_torch_device():
    if args.cpu:
        return torch.device("cpu")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if is_intel_xpu():
        return torch.device("xpu", torch.xpu.current_device())
    return torch.device(torch.cuda.current_device())


def get_all_torch_devices(exclude_current=False):
    here = get_torch_device()
    kind = getattr(torch, here.type)
    count = kind.device_count() if here.type in ("cuda", "xpu") else 1
    every = [torch.device(here.type, number) for number in range(count)]
    return [device for device in every if not (exclude_current and device == here)]


def get_total_memory(dev=None):
    dev = dev or get_torch_device()
    if dev.type == "xpu":
        return torch.xpu.get_device_properties(dev).total_memory
    if dev.type == "cuda":
        return torch.cuda.get_device_properties(dev).total_memory
    return 1


def get_free_memory(dev=None):
    dev = dev or get_torch_device()
    if dev.type == "xpu":
        free = torch.xpu.get_device_properties(dev).total_memory - torch.xpu.memory_reserved(dev)
        return free
    if dev.type == "cuda":
        return torch.cuda.mem_get_info(dev)[0]
    return 1


def soft_empty_cache():
    if is_intel_xpu():
        torch.xpu.empty_cache()
    elif torch.cuda.is_available():
        torch.cuda.empty_cache()


def reads_minds(of_whom):
    return of_whom


total_vram = get_total_memory()
"""

FILES = {
    "comfy/options.py": OPTIONS,
    "comfy/cli_args.py": CLI_ARGS,
    "comfy/model_management.py": MANAGEMENT,
    "cuda_malloc.py": CUDA_MALLOC,
    "main.py": MAIN,
    "requirements.txt": "torch\n",
}
MODULE = "comfy/model_management.py"
XPU_DEVICE = 'return torch.device("xpu", torch.xpu.current_device())'
XPU_FREE = "        return free\n"
CUDA_FREE = "torch.cuda.mem_get_info(dev)[0]"


def write(folder: Path, **changed: str) -> Path:
    """A miniature release; ``changed`` by file stem."""
    for path, text in FILES.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(changed.get(target.stem, text))
    return folder


class Remembering(Prover):
    """Takes each record of the miniature as it is once; of any other tree, every time."""

    known: ClassVar[dict[tuple[str, tuple[str, ...]], Record]] = {}

    def record(self, tree: Path, scenario: Scenario, extra: Sequence[str] = ()) -> Record:
        files = {path.relative_to(tree).as_posix(): path.read_text() for path in tree.rglob("*") if path.is_file()}
        if tree.name != "upstream" or files != FILES:
            return super().record(tree, scenario, extra)
        key = (scenario.name, tuple(extra))
        if key not in self.known:
            self.known[key] = super().record(tree, scenario, extra)
        return self.known[key]


@pytest.fixture(scope="module")
def prover() -> Iterator[Prover]:
    with Remembering(jobs=2) as prover:
        yield prover


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    return write(tmp_path / "upstream")


Mutate = Callable[..., Path]
Change = tuple[str, str, str]  #: file, text, what takes its place


@pytest.fixture
def mutate(tmp_path: Path) -> Mutate:
    """A patched tree in which ``old`` gave way to ``new`` in one file, or in several."""

    def build(*changes: Change) -> Path:
        tree = write(tmp_path / "patched")
        for path, old, new in changes:
            text = (tree / path).read_text()
            assert text.count(old) == 1
            (tree / path).write_text(text.replace(old, new))
        return tree

    return build


def one(result: ProofResult) -> ScenarioResult:
    (only,) = result.scenarios
    return only


def names(result: ScenarioResult) -> set[str]:
    return {difference.name for difference in result.undeclared}


# Equal trees


def test_a_tree_equals_itself_in_every_scenario(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    result = prover.prove(upstream, mutate(), {})
    verdicts = {item.scenario.name: item.verdict for item in result.scenarios}
    forced = {name for name, scenario in BY_NAME.items() if scenario.ours}
    assert {verdicts.pop(name) for name in forced} == {ProofVerdict.NOT_ASKED}
    assert set(verdicts.values()) == {ProofVerdict.EQUAL}
    assert set(verdicts) == {*BY_NAME} - forced
    assert result.holds
    assert all(item.answers >= 8 for item in result.scenarios if item.scenario.starts and not item.scenario.ours)
    assert result.scenarios[0].not_asked == {"reads_minds": "no values for parameter 'of_whom'"}


def test_two_interpreters_give_the_same_record(upstream: Path) -> None:
    scenario = BY_NAME["cuda-xpu"]
    assert dynamic.record(upstream, scenario) == dynamic.record(upstream, scenario)


def test_a_record_says_nothing_of_the_place_it_was_taken(prover: Prover, upstream: Path) -> None:
    record = prover.record(upstream, BY_NAME["cpu"])
    assert str(upstream) not in repr(record)
    assert record.import_error == "AssertionError: Torch not compiled with CUDA enabled"


@pytest.mark.parametrize(
    ("name", "device"), [("cuda", "cuda:0"), ("rocm", "cuda:0"), ("mps", "mps"), ("cpu-flag", "cpu"), ("xpu", "xpu:0")]
)
def test_each_machine_is_seen_as_what_it_is(prover: Prover, upstream: Path, name: str, device: str) -> None:
    record = prover.record(upstream, BY_NAME[name])
    assert record.answer("get_torch_device()") == f"device({device})"
    assert record.constants["NUM_STREAMS"] == ("2" if device == "cuda:0" else "0")


def test_calls_are_recorded_in_order_with_arguments(prover: Prover, upstream: Path) -> None:
    record = prover.record(upstream, BY_NAME["xpu"])
    question = next(item for item in record.questions if item.text == "get_free_memory(dev=device(xpu:1))")
    assert question.calls == (
        "torch.xpu.get_device_properties(device(xpu:1)) = properties(Intel(R) Arc(TM) B580 Graphics)",
        f"torch.xpu.memory_reserved(device(xpu:1)) = {3 * 2**30}",
    )
    assert question.answer == str(9 * 2**30)


def test_the_environment_after_mains_block(prover: Prover, upstream: Path) -> None:
    lines = {item.line: item for item in prover.record(upstream, BY_NAME["cuda"]).main}
    malloc = {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}
    assert lines["main.py"].environment == malloc
    assert lines["main.py --cuda-device 1"].environment == {**malloc, "CUDA_VISIBLE_DEVICES": "1"}
    assert lines["main.py --default-device 1"].lacking == ("--default-device",)
    assert lines["main.py --deterministic"].arguments["deterministic"] == "True"


# Mutations without an Intel GPU: nothing can declare them


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ((MODULE, CUDA_FREE, CUDA_FREE + " - 1"), "get_free_memory"),
        (
            (MODULE, CUDA_FREE, "torch.cuda.mem_get_info(torch.device(dev))[0] + 0 * torch.cuda.device_count()"),
            "call:torch.cuda.device_count",
        ),
        ((MODULE, "NUM_STREAMS = 2", "NUM_STREAMS = 3"), "constant:NUM_STREAMS"),
        ((MODULE, "total_vram =", "helper = 1\ntotal_vram ="), "name:helper"),
        ((MODULE, "total_vram =", "torch.backends.cudnn.enabled = False\ntotal_vram ="), "switch:cudnn.enabled"),
        (
            (MODULE, "elif torch.cuda.is_available()", "elif torch.xpu.device_count() == 0"),
            "call:torch.xpu.device_count",
        ),
        (("main.py", "    import cuda_malloc", "    os.environ['ZE_AFFINITY_MASK'] = '0'"), "env:ZE_AFFINITY_MASK"),
        (("main.py", "    import cuda_malloc", "    import cuda_malloc, torch"), "main:imports"),
        (("main.py", "    import cuda_malloc", "    args.deterministic = True"), "argument:deterministic"),
        (("main.py", "    import cuda_malloc", "    import cuda_maloc"), "main"),
    ],
)
def test_nothing_may_differ_on_cuda(prover: Prover, upstream: Path, mutate: Mutate, change: Change, name: str) -> None:
    result = one(prover.prove(upstream, mutate(change), {"*": "everything"}, [BY_NAME["cuda"]]))
    assert result.verdict is ProofVerdict.DIFFERS
    assert name in names(result)
    assert not result.holds


def test_our_runtime_module_is_the_one_new_name(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    tree = mutate((MODULE, "import torch\n", "import torch\nfrom comfy import patchforge_xpu\n"))
    (tree / "comfy" / "patchforge_xpu.py").write_text("")
    assert one(prover.prove(upstream, tree, {}, [BY_NAME["cuda"]])).verdict is ProofVerdict.EQUAL


def test_a_patched_tree_that_does_not_start_is_no_proof(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    tree = mutate((MODULE, "total_vram =", "from comfy import patchforge_xpu\ntotal_vram ="))
    result = one(prover.prove(upstream, tree, {"*": "everything"}, [BY_NAME["cuda"]]))
    assert result.verdict is ProofVerdict.NOT_PROVED
    assert "does not start" in result.problems[0]


def test_the_same_failure_in_both_trees_is_not_called_equal(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    broken = mutate((MODULE, "total_vram =", "raise OSError('no')\ntotal_vram ="))
    result = one(prover.prove(broken, broken, {}, [BY_NAME["cuda"]]))
    assert result.verdict is ProofVerdict.NOT_PROVED
    assert result.problems == ("neither tree starts: OSError: no",)


def test_a_host_without_accelerator_may_start_where_that_is_declared(
    prover: Prover, upstream: Path, mutate: Mutate
) -> None:
    old = "return torch.device(torch.cuda.current_device())"
    tree = mutate((MODULE, old, f'{old} if torch.cuda.is_available() else torch.device("cpu")'))
    plain = one(prover.prove(upstream, tree, {"import": "start", "*": "all"}, [BY_NAME["cpu"]]))
    declared = one(prover.prove(upstream, tree, {"cpu:import": "start"}, [BY_NAME["cpu"]]))
    assert (plain.verdict, declared.verdict) == (ProofVerdict.DIFFERS, ProofVerdict.DECLARED)
    assert declared.declared[0][1] == "start"


# With an Intel GPU: only what is declared, and never the CPU


def test_a_change_on_an_intel_gpu_must_be_declared(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    tree = mutate((MODULE, XPU_FREE, "        return min(free, torch.xpu.mem_get_info(dev)[0])\n"))
    scenarios = [BY_NAME["xpu"], BY_NAME["cuda"]]
    missing = prover.prove(upstream, tree, {"get_free_memory": "free"}, scenarios)
    assert not missing.holds
    assert missing.undeclared_names() == ("call:torch.xpu.mem_get_info",)
    full = prover.prove(upstream, tree, {"get_free_memory": "free", "call:torch.xpu.mem_*": "free"}, scenarios)
    assert [item.verdict for item in full.scenarios] == [ProofVerdict.DECLARED, ProofVerdict.EQUAL]
    assert "declared by free" in full.report()
    assert json.loads(json.dumps(full.as_data()))["holds"] is True


def test_a_hook_that_dies_where_the_driver_is_silent_is_seen(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    tree = mutate((MODULE, XPU_FREE, "        return torch.xpu.mem_get_info(dev)[0]\n"))
    result = one(prover.prove(upstream, tree, {}, [BY_NAME["xpu-silent"]]))
    assert any("doesn't support querying" in difference.after for difference in result.undeclared)


@pytest.mark.parametrize("name", ["xpu", "xpu-library", "xpu-integrated", "xpu-silent", "xpu-ipex"])
def test_an_intel_gpu_is_never_demoted(prover: Prover, upstream: Path, mutate: Mutate, name: str) -> None:
    tree = mutate((MODULE, XPU_DEVICE, 'return torch.device("cpu")'))
    result = one(prover.prove(upstream, tree, {"*": "everything"}, [BY_NAME[name]]))
    assert result.verdict is ProofVerdict.DEMOTED
    assert result.problems == ("get_torch_device() must be device(xpu:0) and is device(cpu)",)


def test_an_unchanged_demotion_is_caught_too(prover: Prover, mutate: Mutate) -> None:
    tree = mutate((MODULE, XPU_DEVICE, 'return torch.device("cpu")'))
    assert one(prover.prove(tree, tree, {}, [BY_NAME["xpu"]])).verdict is ProofVerdict.DEMOTED


FORCIBLE = (
    "comfy/cli_args.py",
    'parser.add_argument("--deterministic"',
    f'parser.add_argument("{FORCE}", action="store_true")\nparser.add_argument("--deterministic"',
)


def test_a_card_after_an_integrated_gpu_must_be_used(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    scenario = BY_NAME["xpu-mixed"]
    first = one(prover.prove(upstream, mutate(FORCIBLE), {"mixed:*": "all", "flag:*": "all"}, [scenario]))
    assert first.verdict is ProofVerdict.DEMOTED
    assert first.problems == ("get_torch_device() must be device(xpu:1) and is device(xpu:0)",)


def test_the_card_that_the_start_chose_is_current_in_every_question(
    prover: Prover, upstream: Path, mutate: Mutate
) -> None:
    tree = mutate(FORCIBLE, (MODULE, "total_vram =", "if xpu_available:\n    torch.xpu.set_device(1)\ntotal_vram ="))
    chosen = one(prover.prove(upstream, tree, {"mixed:*": "choice"}, [BY_NAME["xpu-mixed"]]))
    assert chosen.verdict is ProofVerdict.DECLARED, chosen.problems
    assert one(prover.prove(upstream, tree, {"mixed:*": "choice"}, [BY_NAME["xpu"]])).verdict is ProofVerdict.DEMOTED


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("raise SystemExit('patchforge: no XPU')", ProofVerdict.DECLARED),
        ("raise OSError('no')", ProofVerdict.DEMOTED),
        ("pass", ProofVerdict.DEMOTED),
    ],
)
def test_a_forced_xpu_that_is_not_there_must_stop_the_start(
    prover: Prover, upstream: Path, mutate: Mutate, body: str, verdict: ProofVerdict
) -> None:
    tree = mutate(FORCIBLE, (MODULE, "total_vram =", f"if args.force_intel_xpu:\n    {body}\ntotal_vram ="))
    result = one(prover.prove(upstream, tree, {"cpu:*": "all"}, [BY_NAME["cuda-forced"]]))
    assert result.verdict is verdict, result.problems


HELP = """
    if args.help_gpu:
        print("Chosen: {device}, because.")
        raise SystemExit(0)
"""


@pytest.mark.parametrize(
    ("name", "device", "right"),
    [
        ("xpu", "xpu", True),
        ("xpu", "xpu:0", True),
        ("xpu", "xpu:1", False),
        ("xpu", "cpu", False),
        ("cpu", "nothing", True),
        ("cpu", "cpu", False),
        ("cuda", "cuda", True),
        ("cuda-no-driver", "cpu", False),
        ("xpu-cpu-flag", "cpu", True),
        ("xpu", "none,", False),
    ],
)
def test_help_must_say_what_the_start_does(  # noqa: PLR0917
    prover: Prover, upstream: Path, mutate: Mutate, name: str, device: str, right: bool
) -> None:
    flag = FORCIBLE[2].replace(FORCE, "--help-gpu")
    tree = mutate((*FORCIBLE[:2], flag), ("main.py", "    import cuda_malloc\n", HELP.format(device=device)[1:]))
    result = one(prover.prove(upstream, tree, {"*": "all", "cpu:*": "all"}, [BY_NAME[name]]))
    assert any("--help-gpu says" in problem for problem in result.problems) is not right, result.problems


PROPERTIES = "torch.cuda.get_device_properties(0)"


@pytest.mark.parametrize("asked", [f"{PROPERTIES}.is_integrated", f"{PROPERTIES}.shared_memory_per_block + 1"])
def test_what_torch_documents_of_a_device_is_answered(
    prover: Prover, upstream: Path, mutate: Mutate, asked: str
) -> None:
    tree = mutate((MODULE, "total_vram =", f"if NUM_STREAMS:\n    {asked}\ntotal_vram ="))
    result = one(prover.prove(tree, tree, {}, [BY_NAME["cuda"]]))
    assert result.verdict is ProofVerdict.EQUAL, result.problems


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (f"{PROPERTIES}.mood", "Properties.mood"),
        ("torch.cuda.no_such_function()", "torch.cuda.no_such_function"),
        ("torch.xpu.memory.no_such_function", "torch.xpu.memory.no_such_function"),
    ],
)
@pytest.mark.parametrize("where", ["import", "question"])
def test_what_the_fake_lacks_is_named_and_no_fault_of_the_trees(
    prover: Prover, mutate: Mutate, asked: str, named: str, where: str
) -> None:
    old = "total_vram =" if where == "import" else "def reads_minds"
    new = f"{asked}\n{old}" if where == "import" else f"def asks():\n    return {asked}\n\n\n{old}"
    tree = mutate((MODULE, old, new))
    result = one(prover.prove(tree, tree, {}, [BY_NAME["cuda"]]))
    assert result.verdict is ProofVerdict.NOT_FAKED
    assert named in result.problems[0]
    assert not result.holds


def test_a_releases_own_missing_attribute_is_its_own_fault(prover: Prover, mutate: Mutate) -> None:
    tree = mutate((MODULE, "total_vram =", "args.mood\ntotal_vram ="))
    assert one(prover.prove(tree, tree, {}, [BY_NAME["cuda"]])).verdict is ProofVerdict.NOT_PROVED


def test_a_call_without_a_chosen_answer_is_no_proof(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    tree = mutate((MODULE, XPU_FREE, "        torch.xpu.power_draw(dev)\n        return free\n"))
    result = one(prover.prove(upstream, tree, {"*": "everything"}, [BY_NAME["xpu"]]))
    assert result.verdict is ProofVerdict.NOT_FAKED
    assert "torch.xpu.power_draw(device(xpu:0)), which has no chosen answer" in result.problems[0]


def test_a_new_flag_counts_where_there_is_an_intel_gpu(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    last = 'parser.add_argument("--deterministic", action="store_true")\n'
    tree = mutate(("comfy/cli_args.py", last, f'{last}parser.add_argument("--default-device", type=int)\n'))
    xpu, cuda = prover.prove(upstream, tree, {}, [BY_NAME["xpu"], BY_NAME["cuda"]]).scenarios
    assert names(xpu) == {"flag:--default-device"}
    assert cuda.verdict is ProofVerdict.EQUAL


# CUDA and XPU in one build

FLAG = 'parser.add_argument("--deterministic", action="store_true")\n'
CHOOSE = (
    (
        MODULE,
        "xpu_available = torch.xpu.is_available()",
        "xpu_available = torch.xpu.is_available() and (not torch.cuda.is_available() or args.force_intel_xpu)",
    ),
    ("comfy/cli_args.py", FLAG, f'{FLAG}parser.add_argument("{FORCE}", action="store_true")\n'),
)
DUAL = [BY_NAME["cuda-xpu"], BY_NAME["cuda-xpu-forced"]]


def test_one_build_with_both_backends_follows_the_flag(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    plain, forced = prover.prove(upstream, mutate(*CHOOSE), {"*": "choose"}, DUAL).scenarios
    assert (plain.verdict, forced.verdict) == (ProofVerdict.DECLARED, ProofVerdict.DECLARED)
    assert {difference.name for difference, _ in forced.declared} == {"call:torch.cuda.is_available"}


def test_a_flag_without_effect_is_caught(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    plain, forced = prover.prove(upstream, mutate(CHOOSE[1]), {"*": "choose"}, DUAL).scenarios
    assert (
        plain.verdict is ProofVerdict.DEMOTED
    )  # upstream prefers the Intel GPU; with the flag in place CUDA comes first
    assert forced.verdict is ProofVerdict.EQUAL


def test_devices_of_the_other_backend_are_caught(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    mixed = (MODULE, "[torch.device(here.type, number)", '[torch.device("cuda", number)')
    _, forced = prover.prove(upstream, mutate(*CHOOSE, mixed), {"*": "choose"}, DUAL).scenarios
    assert forced.verdict is ProofVerdict.DEMOTED
    assert forced.problems == ("get_all_torch_devices() must be list(device(xpu:0)) and is list(device(cuda:0))",)


# What cannot be asked


def test_a_missing_package_is_named(prover: Prover, upstream: Path, mutate: Mutate) -> None:
    tree = mutate((MODULE, "import torch\n", "import torch\nimport a_package_that_nobody_has\n"))
    with pytest.raises(NotChecked, match="pip install a_package_that_nobody_has"):
        prover.prove(upstream, tree, {}, [BY_NAME["cuda"]])


def test_all_missing_packages_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch, upstream: Path) -> None:
    monkeypatch.setattr(probe, "_present", lambda module: module in {"numpy", "tqdm", "safetensors"})
    requires = probe._required("einops", ["comfy_kitchen"])
    assert requires == ["einops", "psutil", "PIL", "comfy_kitchen"]
    assert probe._required("", []) == []
    with pytest.raises(NotChecked) as error:
        records.checked({"requires": requires, "import_error": "no"}, upstream, BY_NAME["cuda"], "py")
    assert error.value.do == "py -m pip install einops psutil pillow comfy-kitchen"
    assert error.value.status == Exit.UNCHECKED
    assert dynamic._no_torch("py", "no", probe.absent()).do.endswith(" torch==2.13.0 psutil pillow einops")


def test_an_absence_that_a_release_would_swallow_is_named(
    upstream: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (upstream / "requirements.txt").write_text("torch\ncomfy-kitchen==0.2.31\n")
    monkeypatch.setattr(probe, "_present", lambda _module: False)
    assert probe.lacking_packages(upstream) == ["comfy_kitchen"]
    assert probe.lacking_packages(write(tmp_path / "older")) == []


def test_an_interpreter_that_is_not_there_is_named(upstream: Path) -> None:
    with pytest.raises(NotChecked, match="/nowhere/python"):
        dynamic.record(upstream, BY_NAME["cuda"], python="/nowhere/python")


def test_a_probe_that_dies_is_no_record(prover: Prover, mutate: Mutate) -> None:
    tree = mutate((MODULE, "total_vram =", "import os; os.kill(os.getpid(), 9)\ntotal_vram ="))
    with pytest.raises(CheckFailed, match="-9"):
        prover.record(tree, BY_NAME["cuda"])
    assert prover.record(write(tree), BY_NAME["cuda"]).import_error == ""


def test_the_probe_by_hand(upstream: Path) -> None:
    command = [sys.executable, "-I", probe.__file__]
    done = subprocess.run([*command, str(upstream), "xpu"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["scenario"] == "xpu"
    assert subprocess.run([*command, str(upstream), "abacus"], capture_output=True, check=False).returncode == 2


# The words


@pytest.mark.parametrize(
    ("group", "pattern", "declared"),
    [
        (Group.XPU, "get_free_memory", True),
        (Group.XPU, "get_*", True),
        (Group.XPU, "xpu:get_free_memory", True),
        (Group.XPU, "dual:get_free_memory", False),
        (Group.XPU, "cpu:get_free_memory", False),
        (Group.DUAL, "get_free_memory", True),
        (Group.DUAL, "dual:get_free_memory", True),
        (Group.CPU, "get_free_memory", False),
        (Group.CPU, "*", False),
        (Group.CPU, "cpu:get_free_memory", True),
        (Group.OTHER, "*", False),
        (Group.OTHER, "other:get_free_memory", False),
        (Group.OTHER, "cpu:*", False),
    ],
)
def test_which_names_hold_where(group: Group, pattern: str, declared: bool) -> None:
    difference = RecordDifference("any", group, DifferenceKind.ANSWER, "get_free_memory", "", "1", "2")
    assert (declarer(difference, {pattern: "t"}) == "t") is declared


def test_values_are_spelled_without_chance() -> None:
    assert canonical({"b": {3, 1}, "a": [torch.float16, torch.device("cpu")]}) == (
        "{'a': list(torch.float16, device(cpu)), 'b': {1, 3}}"
    )
    assert canonical(object()) == "<builtins.object>"
    assert canonical(ValueError("x")) == "ValueError: x"
    assert canonical(torch.ones(2)) == "Tensor((2,), torch.float32, cpu)"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("torch.xpu.mem_get_info(device(xpu:0)) = tuple(1, 2)", "torch.xpu.mem_get_info"),
        ("stream(xpu:0, current).wait_stream(stream(xpu:0, 1))", "stream.wait_stream"),
        ("patcher(cuda:0).partially_load(device(cuda:0), 1e+32, {})", "patcher.partially_load"),
    ],
)
def test_calls_are_declared_by_name(call: str, name: str) -> None:
    assert called(call) == name
