"""The comparison, with a probe that is a small script: each way to be different is reported, and nothing else is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchforge.errors import PatchforgeError
from patchforge.trial.comparison import figures
from patchforge.trial.comparison.against_upstream import differing, main, measure
from patchforge.trial.comparison.figures import SIDES, Comparison, MeasuredRun
from patchforge.trial.comparison.report import as_json, report
from patchforge.trial.comparison.runs import RunFailed, alternate
from patchforge.trial.model import JsonObject, TrialSide

UPSTREAM, PATCHED = TrialSide.UPSTREAM, TrialSide.PATCHED
DIGEST, OTHER = "a" * 64, "b" * 64


def record(
    side: TrialSide, *, seconds: float = 1.0, allocated: int = 1000, digest: str = DIGEST, **more: Any
) -> JsonObject:
    peaks = {"allocated": allocated, "reserved": 2000, "on_card": 3000}
    return {
        "hooks_imported": side == PATCHED,
        "device": {"type": "cuda", "name": "a card"},
        "versions": {"torch": "2.11"},
        "stages": {
            "sampling": {
                "sha256": [OTHER, digest, digest, digest],
                "seconds": [9.0, seconds, seconds],
                "peak_bytes": peaks,
            },
            "step": {"sha256": [], "seconds": [seconds / 20] * 40, "peak_bytes": {}},
            "decode": {"sha256": [OTHER, OTHER], "seconds": [0.5], "peak_bytes": peaks},
        },
        **more,
    }


def runs(
    pairs: int = 5, change: Callable[[TrialSide, int], JsonObject | None] = lambda _side, _pair: {}
) -> list[MeasuredRun]:
    """``change`` gives what is special about a run's record; None makes the run fail."""

    def probe(side: TrialSide, pair: int) -> JsonObject:
        special = change(side, pair)
        if special is None:
            raise RunFailed("exit status 1; CUDA error: out of memory")
        return record(side, **special)

    return alternate(probe, pairs)


def compare(done: list[MeasuredRun], **options: Any) -> Comparison:
    return figures.compare("sdxl", done, **options)


def only(comparison: Comparison) -> str:
    (problem,) = comparison.problems
    return problem


def test_equal_runs_are_the_same() -> None:
    comparison = compare(runs())
    assert comparison.same
    assert comparison.identical
    sampling = comparison.stages["sampling"]
    assert (sampling.time.median, sampling.noise, sampling.seconds[UPSTREAM]) == (1.0, 0.0, 1.0)
    assert sampling.memory["allocated"].most == 1.0


def test_sides_take_turns_and_so_does_who_goes_first() -> None:
    assert [(run.side, run.pair) for run in runs(3)] == [
        (UPSTREAM, 0),
        (PATCHED, 0),
        (PATCHED, 1),
        (UPSTREAM, 1),
        (UPSTREAM, 2),
        (PATCHED, 2),
    ]


def test_one_other_digest_among_ten_runs_is_reported() -> None:
    comparison = compare(runs(change=lambda side, pair: {"digest": OTHER} if (side, pair) == (PATCHED, 3) else {}))
    assert not comparison.identical
    assert only(comparison) == "sampling: outputs differ from upstream's"


def test_an_upstream_that_disagrees_with_itself_proves_nothing() -> None:
    comparison = compare(runs(change=lambda side, pair: {"digest": OTHER} if (side, pair) == (UPSTREAM, 0) else {}))
    assert not comparison.same
    assert "this case cannot tell" in only(comparison)


def test_a_slower_patched_tree_is_reported() -> None:
    comparison = compare(runs(change=lambda side, _pair: {"seconds": 1.02 if side == PATCHED else 1.0}))
    assert comparison.identical
    assert [problem.split(" (")[0] for problem in comparison.problems] == [
        f"{stage}: slower, time ratio 1.0200" for stage in ("sampling", "step")
    ]


def test_on_an_xpu_differences_are_told_and_not_judged() -> None:
    worse = {"digest": OTHER, "seconds": 2.0, "allocated": 2000}
    comparison = compare(runs(change=lambda side, _pair: worse if side == PATCHED else {}), judged=False)
    assert comparison.same
    assert not comparison.identical
    text = report(comparison)
    assert "**Compared**, not judged: outputs differ, as they may on this device, in 10 of 10 runs." in text
    assert "| sampling | **differ** | 1.0000 s | 2.0000 s | 2.0000" in text
    failed = compare(runs(change=lambda side, _pair: None if side == PATCHED else {}), judged=False)
    assert not failed.same
    assert "**FAILED**" in report(failed)


def test_a_slowdown_within_the_noise_or_the_tolerance_is_not() -> None:
    noisy = {(UPSTREAM, 0): 1.0, (UPSTREAM, 1): 1.05, (UPSTREAM, 2): 1.0}
    drifting = compare(runs(3, lambda side, pair: {"seconds": noisy.get((side, pair), 1.02)}))
    assert drifting.same
    assert drifting.stages["sampling"].noise == pytest.approx(0.05)
    small = compare(runs(change=lambda side, _pair: {"seconds": 1.005 if side == PATCHED else 1.0}))
    assert small.same
    assert not compare(small.runs, tolerance=0.001).same


def test_the_ratio_is_taken_pair_by_pair() -> None:
    drift = [1.0, 2.0, 4.0]
    factor = [1.5, 1.1, 1.2]
    comparison = compare(
        runs(3, lambda side, pair: {"seconds": drift[pair] * (factor[pair] if side == PATCHED else 1.0)})
    )
    time = comparison.stages["sampling"].time
    assert (time.median, time.least, time.most) == pytest.approx((1.2, 1.1, 1.5))


def test_more_memory_is_reported() -> None:
    comparison = compare(runs(change=lambda side, _pair: {"allocated": 1100 if side == PATCHED else 1000}))
    assert comparison.problems == [
        f"{stage}: more memory (allocated), ratio 1.1000 (1.1000 to 1.1000); allowed is 1.0100"
        for stage in ("sampling", "decode")
    ]
    assert compare(runs(change=lambda side, _pair: {"allocated": 900 if side == PATCHED else 1000})).same


def test_memory_within_upstreams_own_spread_is_not() -> None:
    own = {(UPSTREAM, 1): 1030}
    moving = {(side, pair): {"allocated": own.get((side, pair), 1020)} for side in SIDES for pair in range(3)}
    moving[UPSTREAM, 0] = moving[UPSTREAM, 2] = {"allocated": 1000}
    assert compare(runs(3, lambda side, pair: moving[side, pair])).same
    moving[PATCHED, 0] = moving[PATCHED, 2] = {"allocated": 1040}
    assert "more memory (allocated)" in compare(runs(3, lambda side, pair: moving[side, pair])).problems[0]


def test_a_crash_is_reported_and_the_other_pairs_still_count() -> None:
    comparison = compare(runs(change=lambda side, pair: None if (side, pair) == (PATCHED, 2) else {}))
    assert comparison.identical
    assert "patched run 2 failed: exit status 1; CUDA error" in only(comparison)
    assert "NOT the same" in report(comparison, "v1")


def test_nothing_but_crashes_is_no_equality() -> None:
    comparison = compare(runs(4, lambda _side, _pair: None))
    assert not comparison.identical
    assert len(comparison.problems) == 3  # it gave up after the first pair
    assert "nothing to compare" in comparison.problems[-1]


def test_the_wrong_tree_is_reported() -> None:
    comparison = compare(runs(1, lambda _side, _pair: {"hooks_imported": False}))
    assert only(comparison) == "patched run 0: comfy.patchforge_xpu imported: False"


def test_other_surroundings_are_reported() -> None:
    moved = compare(runs(2, lambda _side, pair: {"device": {"type": "cuda", "name": f"card {pair}"}}))
    assert len(moved.problems) == 2
    assert "the first run's is {'type': 'cuda', 'name': 'card 0'}" in moved.problems[0]


def test_the_report_tells_equal_bytes_from_equal_ratios() -> None:
    text = report(replace(compare(runs()), facts={"driver": "580.1"}), "v9.9, sdxl")
    assert "**Same**: outputs bit-identical in 10 of 10 runs." in text
    assert "equal to the byte" in text
    assert "\n| step | - | 0.0500 s |" in text
    assert "driver 580.1; torch 2.11." in text
    swapped = compare(runs(2, lambda side, pair: {"allocated": 1000 + ((side == PATCHED) ^ (pair == 1))}))
    assert "1.0000 (0.9990 to 1.0010), 0.000 GiB" in report(swapped)


PROBE = """
import json, os, sys
tree, case, out = sys.argv[1:4]
name = os.path.basename(tree)
weights = sys.argv[sys.argv.index("--weights") + 1]
if "--make-weights" in sys.argv:
    open(os.path.join(weights, case + "-model.safetensors"), "w").close()
    json.dump({}, open(out, "w"))
    sys.exit()
assert os.path.exists(os.path.join(weights, case + "-model.safetensors"))
said = open(os.path.join(tree, "main.py")).read().strip()
if said == "crash":
    sys.exit("RuntimeError: CUDA error: device-side assert triggered")
if said == "hang":
    import time
    time.sleep(60)
digest = "c" * 64 if said == "differ" else "a" * 64
record = json.loads(RECORD)
if "--wait" in sys.argv:
    turns = int(sys.argv[sys.argv.index("--repeats") + 1])
    for turn in range(turns + 1):
        print("something else", "ready", sep="\\n", flush=True)
        if not sys.stdin.readline():
            sys.exit("nobody waits")
        if said == "late crash" and turn == 1:
            sys.exit("RuntimeError: CUDA error: device-side assert triggered")
        with open(os.path.join(weights, "turns"), "a") as order:
            order.write(name + "\\n")
    record["stages"]["sampling"]["seconds"] = [1.0 + turn for turn in range(turns)]
    record["stages"]["step"]["seconds"] = [(1.0 + turn) / 20 for turn in range(turns) for _ in range(19)]
    record["stages"]["decode"]["seconds"] = [0.5] * turns
    json.dump(record | {"hooks_imported": name == "patched"}, open(out, "w"))
    sys.exit()
record["hooks_imported"] = name == "patched"
record["stages"]["sampling"]["sha256"] = ["b" * 64, digest]
record["stages"]["sampling"]["seconds"] = [2.0 if said == "slow" else 1.0]
record["environment"] = sorted(name for name in os.environ if name.startswith("PATCHFORGE_"))
json.dump(record, open(out, "w"))
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The whole command with a probe that does what the patched tree's main.py says."""
    monkeypatch.setenv("PATCHFORGE_XPU_LEVEL", "O3")
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE.replace("RECORD", repr(json.dumps(record(UPSTREAM)))))
    trees = {side: tmp_path / side for side in SIDES}

    def run(patched: str, *more: str) -> int:
        for side, text in zip(SIDES, ("well", patched), strict=True):
            trees[side].mkdir(exist_ok=True)
            (trees[side] / "main.py").write_text(text + "\n")
        paths = [str(tree) for tree in trees.values()]
        outputs = ["--json", str(tmp_path / "out.json")]
        return main([*paths, "--runs", "2", "--python", sys.executable, *outputs, *more], probe=probe)

    return run


def test_the_command_passes_a_tree_that_does_the_same(command: Callable[..., int], tmp_path: Path) -> None:
    assert command("well", "--markdown", str(tmp_path / "out.md")) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["same"]
    assert result["identical"]
    assert result["facts"]["files"] == {}
    assert [run["record"]["environment"] for run in result["runs"]] == [[]] * 4
    assert "**Same**" in (tmp_path / "out.md").read_text()


@pytest.mark.parametrize(
    ("patched", "reported"),
    [
        ("differ", "sampling: outputs differ from upstream's"),
        ("slow", "sampling: slower, time ratio 2.0000"),
        ("crash", "CUDA error: device-side assert triggered"),
    ],
)
def test_the_command_reports(
    patched: str, reported: str, command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(patched) == 1
    result = json.loads((tmp_path / "out.json").read_text())
    assert not result["same"]
    assert any(reported in problem for problem in result["problems"])
    assert list(result["facts"]["files"]) == ["main.py"]
    assert reported in capsys.readouterr().out


def test_a_run_that_does_not_end_is_a_failure(command: Callable[..., int], tmp_path: Path) -> None:
    assert command("hang", "--timeout", "3", "--runs", "1") == 1
    assert "no end after 3 s" in (tmp_path / "out.json").read_text()


def test_a_folder_that_is_no_tree_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path)]) == 2
    assert "is not a ComfyUI tree" in capsys.readouterr().err


def test_several_cases_with_the_folder_kept(command: Callable[..., int], tmp_path: Path) -> None:
    command("well")
    told: list[str] = []
    trees = {side: tmp_path / side for side in SIDES}
    folder, probe = tmp_path / "kept", tmp_path / "probe.py"
    measured = measure(
        trees, ["sdxl", "dit"], python=sys.executable, runs=1, folder=folder, tell=told.append, probe=probe
    )
    assert [comparison.case for comparison in measured] == ["sdxl", "dit"]
    assert all(comparison.same for comparison in measured)
    assert len(told) == 4
    assert json.loads(json.dumps(as_json(measured[0])))["stages"]["sampling"]["seconds"] == {
        "upstream": 1.0,
        "patched": 1.0,
    }
    assert (folder / "dit-patched-0.log").is_file()
    assert (folder / "dit-model.safetensors").is_file()
    with pytest.raises(PatchforgeError, match="sd1"):
        measure(trees, ["sd1"], python=sys.executable, probe=probe)


def test_two_processes_take_turns(command: Callable[..., int], tmp_path: Path) -> None:
    assert command("well", "--turns", "3", "--folder", str(tmp_path)) == 0
    order = (tmp_path / "turns").read_text().split()
    assert order == ["upstream", "patched", "patched", "upstream"] * 2
    result = json.loads((tmp_path / "out.json").read_text())
    runs = {(run["side"], run["pair"]): run["record"]["stages"] for run in result["runs"]}
    assert sorted(runs) == [(side, turn) for side in ("patched", "upstream") for turn in range(3)]
    assert [runs["upstream", turn]["sampling"]["seconds"] for turn in range(3)] == [[1.0], [2.0], [3.0]]
    assert runs["patched", 2]["step"]["seconds"] == [3.0 / 20] * 19
    assert runs["patched", 2]["sampling"]["peak_bytes"] == {"allocated": 1000}
    assert result["stages"]["sampling"]["noise"] == 2.0
    assert result["stages"]["sampling"]["time"]["most"] == 1.0


def test_a_crash_in_a_turn_is_reported_and_the_other_process_ends(command: Callable[..., int], tmp_path: Path) -> None:
    assert command("late crash", "--turns", "3") == 1
    problems = "\n".join(json.loads((tmp_path / "out.json").read_text())["problems"])
    assert "patched run 0 failed: exit status 1" in problems
    assert "CUDA error: device-side assert triggered" in problems
    assert "nobody waits" in problems


def test_a_turn_that_does_not_end_is_a_failure(command: Callable[..., int], tmp_path: Path) -> None:
    assert command("hang", "--turns", "1", "--timeout", "4") == 1
    problems = "\n".join(json.loads((tmp_path / "out.json").read_text())["problems"])
    assert "patched run 0 failed: exit status -9" in problems
    assert "it did not wait for a turn after 4 s" in problems


def test_weights_that_cannot_be_made_are_no_measurement(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "probe.py").write_text("raise SystemExit('no CUDA here')")
    assert command("well") == 2
    assert "no CUDA here" in capsys.readouterr().err


def test_zero_runs_are_refused(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("well", "--runs", "0") == 2
    assert "runs of at least 1" in capsys.readouterr().err


def test_files_are_named_with_the_ids_of_git(tmp_path: Path) -> None:
    for side, text in (("upstream", "a\n"), ("patched", "b\n")):
        (tmp_path / side / "__pycache__").mkdir(parents=True)
        (tmp_path / side / "__pycache__" / "x.pyc").write_text(side)
        (tmp_path / side / "x.py").write_text(text)
    (tmp_path / "patched" / "new.py").write_text("")
    assert differing(tmp_path / "upstream", tmp_path / "patched") == {
        "new.py": {"before": None, "after": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"},
        "x.py": {
            "before": "78981922613b2afb6025042ff6bd878ac1994e85",
            "after": "61780798228d17af2d34fce4cfbdf35556832472",
        },
    }
