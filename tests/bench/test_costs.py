"""What releases cost, kept beside their patches: from benchmarks, for tables and for pull requests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from patchforge.bench import costs
from patchforge.bench.compare import CountDifference
from patchforge.bench.model import CPU, FILE, FORMAT, PATCHED, UPSTREAM, Benchmark, Times
from patchforge.cli import main
from patchforge.errors import Damaged, Exit, NotChecked
from patchforge.rules import transforms
from patchforge.trial.model import Device, TrialVerdict
from tests.bench.examples import DECODER, SAMPLER, benchmark, case, counts
from tests.support import ROOT

WAITING = {SAMPLER: counts(synchronisations={"asked for": 165, "blocking copy": 7}), DECODER: counts()}
UPSTREAMS = {SAMPLER: counts(), DECODER: counts()}


def waiting(release: str = "v0.33.0", **changes: object) -> Benchmark:
    """Patched, it waits 164 times more than upstream."""
    cases = (case(side=UPSTREAM, parts=UPSTREAMS), case(parts=WAITING))
    return benchmark(*cases, **{"release": release, **changes})


def write(folder: Path, measured: Benchmark) -> Path:
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(FORMAT.dump(measured))
    return folder


def test_what_is_kept_is_about_the_release_alone() -> None:
    seconds = Times((1.0,), {}, (), steady=True)
    own = [case(side=UPSTREAM, reason="/home/somebody"), case(times=seconds, not_measured={"energy": "none"})]
    other = [case(side=f"{PATCHED}, fp16"), case(side=CPU), case("sdxl", verdict=TrialVerdict.FAILED, parts={})]
    measured = costs.recorded(benchmark(*own, *other, versions={"torch": "2.13.0", "somebodys": "1"}))
    assert [case.place for case in measured.cases] == [
        ("workflows", "txt2img", UPSTREAM),
        ("workflows", "txt2img", PATCHED),
    ]
    assert "somebody" not in FORMAT.dump(measured).decode()
    assert "a processor" not in FORMAT.dump(measured).decode()
    assert all(case.times is None and list(case.counts) == ["all nodes"] for case in measured.cases)
    assert measured.cases[1].counts["all nodes"].operations == {
        "float32 linear": 96,
        "float32 to": 12,
        "float32 conv2d": 30,
    }
    assert costs.recorded(measured) == measured
    assert costs.is_ours(FORMAT.dump(measured))
    assert not costs.is_ours(FORMAT.dump(benchmark()))


@pytest.mark.parametrize(
    "other",
    [
        benchmark(device=Device("xpu")),
        benchmark(case(side=UPSTREAM)),
        benchmark(case(verdict=TrialVerdict.CPU_FALLBACK, parts={})),
    ],
    ids=["hardware", "upstream alone", "not fresh"],
)
def test_what_cannot_be_kept_is_told(other: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(NotChecked, match="has no counts to keep"):
        costs.recorded(other)
    folders = str(write(tmp_path / "good", waiting())), str(write(tmp_path / "other", other))
    generated = tmp_path / "generated" / "comfyui"
    generated.mkdir(parents=True)
    assert main(["bench", "record", *folders, "--generated", str(generated)]) == Exit.UNCHECKED
    assert list(generated.parent.iterdir()) == [generated]


def test_counts_are_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "generated" / "comfyui").mkdir(parents=True)
    generated = ["--generated", str(tmp_path / "generated" / "comfyui")]
    write(tmp_path / "runs" / "a", waiting("v0.33.0"))
    write(
        tmp_path / "runs" / "b",
        replace(waiting("v0.4.0"), cases=(case(side=UPSTREAM, parts=UPSTREAMS), case(parts=UPSTREAMS))),
    )
    assert main(["bench", "record", str(tmp_path / "runs"), *generated, "--json"]) == Exit.OK
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], sorted(document["releases"])) == ("patchforge/bench-record/1", ["v0.33.0", "v0.4.0"])
    file = tmp_path / "generated" / "costs" / "comfyui" / "v0.33.0.json"
    assert str(file) in document["written"]
    assert main(["bench", "costs", *generated]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["release", "v0.4.0", "v0.33.0"]
    assert lines[1].split()[-3:] == ["nothing", "not", "measured"]
    assert "+164 wait, asked for (load-synchronize)" in lines[2]
    assert lines[2].count("+164 wait, asked for") == 2
    assert main(["bench", "costs", *generated, "--json"]) == Exit.OK
    (first, second) = json.loads(capsys.readouterr().out)["results"]
    assert (first["than"], first["more"], first["added"]) == ("", None, [])
    assert (second["than"], second["more"][0]["what"], second["figures"]["waits"]) == ("v0.4.0", "wait, asked for", 180)
    assert main(["bench", "costs", *generated, "--markdown"]) == Exit.OK
    page = capsys.readouterr().out
    figures = "216 | 16 | 180 | 420 | 1.0 MiB | +164 wait, asked for (load-synchronize)"
    assert f"| v0.33.0 | `dddddddddddd` | txt2img | {figures} |" in page
    assert "| v0.33.0 | v0.4.0 | txt2img | " in page
    file.write_text("mine")
    assert main(["bench", "record", str(tmp_path / "runs"), *generated]) == Exit.USAGE
    assert file.read_text() == "mine"
    with pytest.raises(Damaged):
        costs.load(tmp_path / "generated" / "comfyui", "v0.33.0")


def test_releases_of_other_conditions_are_not_compared() -> None:
    measured = costs.costs(
        [costs.recorded(waiting("v0.32.0", versions={"torch": "2.12.0"})), costs.recorded(waiting())]
    )
    assert [(difference.than, difference.more) for difference in measured] == [("", None)] * 2


@pytest.mark.parametrize(
    ("name", "problem"),
    [("v0.14.0.json", "is a folder where a file should be"), ("vnext.json", "is not named as a release")],
)
def test_what_is_not_such_a_file_is_not_passed_over(
    name: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "costs/comfyui" / name).mkdir(parents=True)
    assert main(["bench", "costs", "--generated", str(tmp_path / "comfyui")]) in (Exit.DATA, Exit.SYSTEM)
    assert problem in capsys.readouterr().err


def test_what_explains_a_difference_is_a_transform() -> None:
    assert {name for known in costs.EXPLAINED.values() for name in known} <= {rule.id for rule in transforms()}
    wait = CountDifference("workflows", "txt2img", "patched", "all nodes", "wait, asked for", 1, 2)
    assert costs.explained(wait, "v0.33.0") == "load-synchronize"
    assert costs.explained(wait, "v0.18.1") == "empty-cache, load-synchronize"
    assert costs.explained(wait, "v0.3.77") == "empty-cache"
    assert costs.explained(replace(wait, what="models"), "v0.33.0") == ""


def test_the_page_is_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "costs", "--markdown", "--generated", str(ROOT / "generated/comfyui")]) == Exit.OK
    assert (ROOT / "docs/costs.md").read_text("utf-8") == capsys.readouterr().out


@pytest.mark.parametrize("file", sorted((ROOT / "generated/costs/comfyui").iterdir()), ids=lambda file: file.stem)
def test_what_is_committed_is_as_it_was_written(file: Path) -> None:
    kept = costs.parse(file.read_bytes())
    assert kept is not None
    assert kept.release == file.stem
    added = costs.added(kept)
    assert not isinstance(added, str)
    assert all(costs.explained(difference, kept.release) for difference in added.differences)


def test_outside_of_a_checkout_it_says_where_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "costs"]) == Exit.USAGE
    assert "to do: check the path, or run this in a checkout of patchforge" in capsys.readouterr().err
