"""Node packs in a trial: what is read of them, what is put into ComfyUI, what evidence says, and the page of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from emulator import build
from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.nodes.pack_cache import PackStore
from patchforge.nodes.patched import PatchedPack
from patchforge.trial import packs
from patchforge.trial.model import AS_IT_COMES, CONVERTED, Device, TrialSide, TrialVerdict, Workflow
from patchforge.trial.pack_runner import PackTrial
from patchforge.trial.packs import TrialPack
from patchforge.trial.reports import evidence, pack_page, report
from patchforge.trial.reports.evidence import Evidence
from patchforge.trial.runner import TrialSettings
from patchforge.trial.server.environment import Environment
from patchforge.trial.workflows import library, pack_weights, weights
from tests.trial import examples
from tests.trial.miniature_server import Graph, files, missing
from tests.trial.support import COPY, release_of, workflow_of

SERVED = pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")
EMULATED = pytest.mark.skipif(
    bool(missing("torch") or build.missing()), reason=missing("torch") or build.missing() or ""
)
TORCH = pytest.mark.skipif(bool(missing("torch")), reason=f"needs {missing('torch')}")
CPU, B580 = Device("cpu"), Device("xpu", "b580", "rng=cpu")
ENVIRONMENT = Environment(Path(sys.executable), {"torch": "0"}, {"torch": "0"})
#: Computes on CUDA or on the CPU, and inverts a picture on the way.
INVERT = """
import torch


class Invert:
    FUNCTION = "invert"

    def invert(self, images):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        values = torch.tensor(list(images), dtype=torch.uint8).to(device)
        return (bytes((255 - values).cpu().tolist()),)


NODE_CLASS_MAPPINGS = {"Invert": Invert}
"""


def graph(kind: str) -> Graph:
    return {
        "1": {"class_type": "Noise", "inputs": {"seed": 7, "seconds": 0}},
        "2": {"class_type": kind, "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
    }


def folder_of(top: Path, name: str = "pack", **texts: str) -> Path:
    """A pack's folder; ``init`` is its ``__init__.py``, ``requirements`` its requirements."""
    names = {"init": "__init__.py", "requirements": "requirements.txt"}
    for key, text in texts.items():
        path = top / name / names.get(key, f"{key}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return top / name


def read(*folders: Path, without: tuple[str, ...] = (), **known: Workflow) -> list[TrialPack]:
    return [replace(pack, workflows=known) for pack in packs.read(folders, PackStore(None), without)]


# what is read


def test_a_pack_of_nobody_has_its_folders_name_and_no_workflows(tmp_path: Path) -> None:
    (pack,) = packs.read([folder_of(tmp_path, init=COPY)], PackStore(None))
    assert (pack.name, pack.revision, pack.workflows, pack.states) == ("pack", "", {}, (AS_IT_COMES,))
    assert pack.patch_digest == ""


def test_a_file_that_does_not_stand_its_check_is_tried_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: PatchedPack, _context: int = 0) -> None:
        if any(change.path == "bad.py" for change in self.converted.changes):
            raise CheckFailed("GNU patch refuses the patch")

    monkeypatch.setattr(PatchedPack, "check", refuse)
    (pack,) = packs.read([folder_of(tmp_path, init=INVERT, bad=INVERT)], PackStore(None))
    assert [*pack.patched.after] == ["__init__.py"]


def test_a_tracked_pack_is_known_by_its_repository(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "comfyui_controlnet_aux", init=INVERT, requirements="einops\nonnxruntime-gpu\n")
    (pack,) = packs.read([folder], PackStore(None))
    assert pack.name == "controlnet-aux"
    assert list(pack.workflows) == ["depth-anything", "canny"]
    assert pack.requirements == ("einops", "onnxruntime")  # as upstream/nodes/controlnet-aux.toml says
    assert pack.left_out == ("onnxruntime-gpu",)
    assert pack.states == (AS_IT_COMES, CONVERTED)


def test_requirements_that_are_left_out(tmp_path: Path) -> None:
    lines = (
        "# all\n--extra-index-url https://example.org/cu128\nEinops>=0.8 # tensors\ncupy-cuda12x\nmediapipe\ntaichi\n"
    )
    folder = folder_of(tmp_path, init=COPY, requirements=lines)
    (pack,) = packs.read([folder], PackStore(None), ["MediaPipe"])
    assert pack.requirements == ("Einops>=0.8", "taichi")
    assert pack.left_out == ("--extra-index-url https://example.org/cu128", "cupy-cuda12x", "mediapipe")
    assert pack.facts["left_out"] == list(pack.left_out)


def test_the_revision_that_is_checked_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, init=COPY)
    git = ("git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "one"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    assert len(packs.read([folder], PackStore(None))[0].revision) == 40


def test_two_packs_of_one_name(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path / top, init=COPY) for top in ("one", "two")]
    with pytest.raises(PatchforgeError, match="two packs are called pack"):
        packs.read(folders, PackStore(None))


def test_a_pack_with_the_name_of_ours(tmp_path: Path) -> None:
    with pytest.raises(PatchforgeError, match="two packs are called patchforge_trial"):
        packs.read([folder_of(tmp_path, "patchforge_trial", init=COPY)], PackStore(None))


def test_digests_follow_the_files(tmp_path: Path) -> None:
    before = packs.read([folder_of(tmp_path, init=INVERT)], PackStore(None))[0]
    after = packs.read([folder_of(tmp_path, init=INVERT.replace("device", "where"))], PackStore(None))[0]
    assert before.digest != after.digest
    assert before.patch_digest != after.patch_digest != ""


def test_what_is_put_into_comfyui_and_taken_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, init=INVERT, other="x = 1\n")
    (folder / ".git").mkdir()
    (pack,) = packs.read([folder], PackStore(None))
    tree = tmp_path / "tree"
    there = pack.put_into(tree, AS_IT_COMES)
    assert there == tree / "custom_nodes" / "pack"
    assert {path.name for path in there.iterdir()} == {"__init__.py", "other.py"}
    assert (there / "__init__.py").read_text() == INVERT
    (there / "written").touch()
    pack.put_into(tree, CONVERTED)
    assert "torch.xpu.is_available()" in (there / "__init__.py").read_text()
    assert {path.name for path in there.iterdir()} == {"__init__.py", "other.py"}
    pack.take_from(tree)
    assert list((tree / "custom_nodes").iterdir()) == []
    assert (folder / "__init__.py").read_text() == INVERT


@pytest.mark.parametrize("name", sorted(path.name for path in packs.WORKFLOWS.iterdir()))
def test_workflows_of_packs_are_whole_and_their_files_are_generated(name: str) -> None:
    workflows = library.load(folder=packs.WORKFLOWS / name)
    assert set(workflows) == {path.stem for path in (packs.WORKFLOWS / name).glob("*.json")}
    known = {file.name for file in weights.WEIGHTS} | pack_weights.MODELS.keys()
    for workflow in workflows.values():
        assert set(workflow.weights) <= known
        assert set(workflow.inputs) <= set(weights.INPUTS)
        texts = {
            value for node in workflow.graph.values() for value in node["inputs"].values() if isinstance(value, str)
        }
        assert {Path(name).name for name in (*workflow.weights, *workflow.inputs)} <= texts
        assert workflow.computes
        assert all(workflow.graph[node]["class_type"].startswith("Save") for node in workflow.outputs)


def test_every_workflow_of_a_pack_has_a_name_of_its_own() -> None:
    names = [name for folder in packs.WORKFLOWS.iterdir() for name in library.load(folder=folder)]
    assert len(names) == len({*names, *library.load()}) - len(library.load())


@TORCH
def test_models_of_a_pack_are_the_same_every_time(tmp_path: Path) -> None:
    pack = folder_of(tmp_path, init=COPY)
    model = "import torch\n\n\ndef IFNet(arch_ver):\n    return torch.nn.Linear(2, 2)\n"
    folder_of(pack, "vfi_models/rife", rife_arch=model)
    folder_of(tmp_path, "comfy", model_management="")
    name = "ckpts/rife/rife47.pth"
    made = []
    for out in (tmp_path / "one", tmp_path / "two"):
        command = [sys.executable, pack_weights.__file__, str(pack), str(out), name]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        made.append((out / name).read_bytes())
    assert made[0] == made[1]


# what is run


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary folders are gone afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


def run(
    top: Path, *found: TrialPack, device: Device = CPU, release: Mapping[str, bytes] | None = None, again: bool = False
) -> tuple[Evidence, list[str]]:
    """The packs in a miniature without torch, and what was told."""
    told: list[str] = []
    before = files(torch=False) if release is None else release
    settings = TrialSettings(device, top / "cache", top / "weights", {}, 60, 60, again, top / "logs")
    trial = PackTrial(release_of(before), ENVIRONMENT, settings, told.append, found)
    return trial.run_packs(top / "out"), told


def shown(collected: Evidence) -> dict[tuple[str, str], TrialVerdict]:
    return {
        (session.name, judgement.test): judgement.verdict
        for session in collected.sessions
        for judgement in session.judgements
    }


@SERVED
@pytest.mark.usefixtures("temporary")
def test_a_pack_is_run_beside_upstream_on_the_cpu(tmp_path: Path) -> None:
    (pack,) = read(folder_of(tmp_path, init=COPY), copy=workflow_of("copy", graph("Copy"), {"2": 1}, "3"))
    collected, _ = run(tmp_path, pack)
    kept = evidence.load(tmp_path / "out")
    assert kept is not None
    assert evidence.dump(kept) == evidence.dump(collected)
    reference, tried = collected.sessions
    assert (reference.side, reference.name, reference.arguments) == (TrialSide.UPSTREAM, "pack-reference", ("--cpu",))
    assert (tried.side, tried.name) == (TrialSide.PATCHED, "pack-as-it-comes")
    assert [judgement.reason for judgement in tried.judgements] == [
        "1 nodes",
        "computed on the CPU; equal to the reference",
    ]
    assert set(shown(collected).values()) == {TrialVerdict.PASSED, TrialVerdict.FRESH}
    assert tried.facts["pack"] == {**pack.facts, "state": AS_IT_COMES}
    report.write(tmp_path / "out", [collected])


@SERVED
@pytest.mark.usefixtures("temporary")
def test_a_pack_that_cannot_be_imported(tmp_path: Path) -> None:
    (pack,) = read(folder_of(tmp_path, init="import nothing_of_that_name\n"), copy=COPIED)
    collected, _ = run(tmp_path, pack)
    loads, copied = collected.sessions[1].judgements
    assert (loads.verdict, loads.reason) == (TrialVerdict.FAILED, "No module named 'nothing_of_that_name'; 0 nodes")
    assert (copied.verdict, copied.reason) == (TrialVerdict.SKIPPED, "the release has no node Copy")


COPIED = workflow_of("copy", graph("Copy"), {"2": 1}, "3")


@SERVED
@pytest.mark.usefixtures("temporary")
def test_a_pack_whose_nodes_cannot_be_described(tmp_path: Path) -> None:
    wrong = COPY + "\n\nclass Wrong:\n    INPUT_TYPES = None\n\n\nNODE_CLASS_MAPPINGS['Wrong'] = Wrong\n"
    (pack,) = read(folder_of(tmp_path, init=wrong))
    collected, _ = run(tmp_path, pack)
    loads = collected.sessions[1].judgements[0]
    assert (loads.verdict, loads.reason) == (TrialVerdict.FAILED, "nothing is known of Wrong; 1 nodes")


@SERVED
@pytest.mark.usefixtures("temporary")
def test_what_is_done_is_not_run_again_unless_it_changes(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path, name, init=COPY) for name in ("one", "two")]
    before, _ = run(tmp_path, *read(*folders))
    assert [session.name for session in before.sessions] == [
        "one-reference",
        "one-as-it-comes",
        "two-reference",
        "two-as-it-comes",
    ]
    again, told = run(tmp_path, *read(*folders))
    assert again == before
    assert told == ["one: done before", "two: done before"]
    folder_of(tmp_path, "two", init=COPY + "# another\n")
    changed, told = run(tmp_path, *read(*folders))
    assert changed.sessions[:2] == before.sessions[:2]
    assert told[0] == "one: done before"
    assert [session.key for session in changed.sessions[2:]] != [session.key for session in before.sessions[2:]]
    _, told = run(tmp_path, *read(folders[0]), again=True)
    assert "one: done before" not in told


@SERVED
@pytest.mark.usefixtures("temporary")
def test_an_interrupted_run_goes_on_with_the_pack_that_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Path:
        raise KeyboardInterrupt

    folders = [folder_of(tmp_path, name, init=COPY) for name in ("one", "two")]
    first, second = read(*folders)
    put = TrialPack.put_into
    with monkeypatch.context() as changed:
        changed.setattr(TrialPack, "put_into", lambda *given: (put if given[0].name == "one" else interrupted)(*given))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, first, second)
    left = evidence.load(tmp_path / "out")
    assert left is not None
    assert [session.name for session in left.sessions] == ["one-reference", "one-as-it-comes"]
    collected, told = run(tmp_path, first, second)
    assert told[0] == "one: done before"
    assert len(collected.sessions) == 4


@EMULATED
@pytest.mark.usefixtures("temporary")
def test_a_pack_for_cuda_falls_back_to_the_cpu_and_the_converted_one_does_not(tmp_path: Path) -> None:
    known = workflow_of("invert", graph("Invert"), {"2": 1}, "3")
    (pack,) = read(folder_of(tmp_path, init=INVERT), invert=known)
    collected, _ = run(tmp_path, pack, device=B580, release=files())
    assert shown(collected) == {
        ("pack-reference", "loads"): TrialVerdict.PASSED,
        ("pack-reference", "invert"): TrialVerdict.FRESH,
        ("pack-as-it-comes", "loads"): TrialVerdict.PASSED,
        ("pack-as-it-comes", "invert"): TrialVerdict.CPU_FALLBACK,
        ("pack-converted", "loads"): TrialVerdict.PASSED,
        ("pack-converted", "invert"): TrialVerdict.FRESH,
    }
    lines = pack_page.tried([collected])
    assert [line.cell for line in lines] == ["1 nodes", "cpu_fallback → fresh"]
    assert not any(line.worse for line in lines)
    assert lines[1].reasons[1][2].endswith("equal to the reference; the same bytes as it comes")


# the page


def evidence_of(release: str = "v0.32.0", device: Device = examples.EMULATED, **facts: object) -> Evidence:
    """A pack that the conversion makes fresh."""
    pack = {
        "name": "pack",
        "folder": "Pack",
        "revision": "e" * 40,
        "files": "f" * 64,
        "patch": "a" * 64,
        "rules": "b" * 64,
        "sites": {"converted": 3, "left": 1, "person": 2},
        "left_out": ["cupy"],
        **facts,
    }
    loads = examples.judgement("loads", TrialVerdict.PASSED, "4 nodes")
    tried = [
        (TrialSide.UPSTREAM, "reference", AS_IT_COMES, TrialVerdict.FRESH, "computed on the CPU"),
        (TrialSide.PATCHED, "as-it-comes", AS_IT_COMES, TrialVerdict.FAILED, "node 2 failed: no | device"),
        (TrialSide.PATCHED, "converted", CONVERTED, TrialVerdict.FRESH, "505 operations; equal to the reference"),
    ]
    return examples.evidence(
        *(
            examples.session(
                side,
                loads,
                examples.judgement("depth", verdict, reason),
                name=f"pack-{name}",
                facts={"python": "3.11.0", "torch": "2.13.0", "pack": {**pack, "state": state}},
            )
            for side, name, state, verdict, reason in tried
        ),
        release=release,
        device=device,
    )


def test_the_page_says_what_happened_where_and_why(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    pack_page.write(page, [evidence_of("v0.25.0"), evidence_of()])
    text = page.read_text()
    assert "| pack | 4 nodes | 4 nodes |" in text
    assert "| pack | depth | failed → fresh | failed → fresh |" in text
    assert "| pack | depth | as it comes | v0.25.0, v0.32.0 | failed | node 2 failed: no \\| device |" in text
    assert "| CPU |" not in text  # the CPU passed
    assert f"| pack | `{'e' * 10}` | `{'b' * 12}` | `{'a' * 12}` | 3 | 2 | cupy |" in text
    assert f"| v0.25.0 | `{'c' * 12}` | `{'d' * 12}` |" in text
    assert "evidence about code, not about hardware; python 3.11.0, torch 2.13.0, 2026-11-21" in text
    assert pack_page.table([evidence_of()])[1:] == [["pack", "loads", "4 nodes"], ["pack", "depth", "failed → fresh"]]


def test_a_page_keeps_all_other_text(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nBefore.\n\n<!-- begin: emulated:b580 -->\n<!-- end: emulated:b580 -->\n")
    pack_page.write(page, [evidence_of()])
    page.write_text(page.read_text() + "\nBehind \\1.\n")
    pack_page.write(page, [evidence_of(device=Device("cuda"))])
    pack_page.write(page, [evidence_of("v0.33.0")])
    text = page.read_text()
    assert text.startswith("# Title\n\nBefore.\n\n<!-- begin: emulated:b580 -->\n\nDevice: **emulated:b580**")
    assert "v0.32.0" in text.partition("<!-- begin: cuda -->")[2]
    assert "v0.32.0" not in text.partition("<!-- begin: cuda -->")[0]
    assert (
        text.index("<!-- end: emulated:b580 -->") < text.index("\nBehind \\1.\n") < text.index("<!-- begin: cuda -->")
    )
    pack_page.write(page, [evidence_of("v0.33.0")])
    assert page.read_text() == text


def test_pages_that_are_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Mine\n")
    with pytest.raises(PatchforgeError, match="not a page for the tables"):
        pack_page.write(page, [evidence_of()])
    assert page.read_text() == "# Mine\n"
    page.write_text("<!-- begin: emulated:b580 -->\n")
    with pytest.raises(PatchforgeError, match=r"cannot be written[\s\S]*each once"):
        pack_page.write(page, [evidence_of()])
    with pytest.raises(PatchforgeError, match="one device"):
        pack_page.markdown([evidence_of(), evidence_of(device=Device("cuda"))])
    with pytest.raises(PatchforgeError, match="different states of pack"):
        pack_page.markdown([evidence_of("v0.25.0"), evidence_of(files="0" * 64)])


def test_other_rules_that_make_the_same_patch_are_no_other_state() -> None:
    assert "v0.25.0" in pack_page.markdown([evidence_of("v0.25.0"), evidence_of(rules="0" * 64)])


def test_a_conversion_that_breaks_is_worse() -> None:
    good, bad = examples.judgement(), examples.judgement(verdict=TrialVerdict.FAILED)
    tried = pack_page.Tried("pack", "depth", "v0.32.0", good, good, bad)
    assert tried.worse
    assert tried.cell == "fresh → failed"
    assert not pack_page.Tried("pack", "depth", "v0.32.0", good, bad, bad).worse
    assert pack_page.Tried("pack", "depth", "v0.32.0").cell == "-"


def test_what_fails_on_the_cpu_too_is_said() -> None:
    good, bad = examples.judgement(), examples.judgement(verdict=TrialVerdict.FAILED)
    tried = pack_page.Tried("pack", "depth", "v0.32.0", bad, bad, good)
    assert tried.cell == "failed (CPU too) → fresh"
    assert tried.reasons == [("CPU", "failed", "why"), (AS_IT_COMES, "failed", "why"), (CONVERTED, "fresh", "why")]
