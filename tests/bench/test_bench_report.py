"""A benchmark as pages: the first line, what is not measured, hostile texts, plots; and what is submitted."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("matplotlib", reason="needs the extra benchmark")
pytest.importorskip("scipy", reason="needs the extra benchmark")

from patchforge import cli
from patchforge.bench.model import (
    CPU,
    CUDA,
    FILE,
    FORMAT,
    PATCHED,
    TORCH,
    UPSTREAM,
    Benchmark,
    Case,
    EnergyUse,
    MemoryUse,
    Quality,
    Times,
    read,
)
from patchforge.bench.report import CSV, HTML, MARKDOWN, headline, html, markdown, rows, table
from patchforge.bench.submission import SUFFIX, anonymous
from patchforge.cli import main
from patchforge.errors import Exit
from patchforge.trial.model import TrialVerdict
from tests.bench.examples import SAMPLER, benchmark, case, counts

WRONG = Quality(equal=False, largest=3, mean=0.2, psnr=52.1, ssim=0.9991, flip=0.012)


def times(factor: float, count: int = 16) -> Times:
    seconds = tuple(factor * (1 + 0.001 * (index % 5)) for index in range(count))
    return Times(seconds, {SAMPLER: seconds}, (factor,), steady=True)


def measured(factor: float = 1.0, count: int = 16, **more: Any) -> Benchmark:
    """Upstream in a second, patched in ``factor`` of that, the CPU in four."""
    return benchmark(
        case(side=CPU, times=times(4, count), parts={}),
        case(side=UPSTREAM, times=times(1, count)),
        case(side=PATCHED, times=times(factor, count), **more),
    )


def first(measured_run: Benchmark, before: Benchmark | None = None) -> str:
    return headline(measured_run, rows(measured_run, before), before)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1.0, "no change from upstream: 1.00 times upstream's time"),
        (1.2, "slower than upstream: 1.20 times upstream's time"),
        (0.8, "faster than upstream: 0.80 times upstream's time"),
    ],
)
def test_the_first_line_answers_both_questions(factor: float, said: str) -> None:
    line = first(measured(factor))
    assert line.startswith("txt2img takes ")
    assert " with v0.33.0 on emulated:b580; " in line
    assert said in line
    assert line.endswith(f"; {4 / factor:.2f} times as fast as the CPU.")


def test_the_first_line_and_the_table_say_the_same_of_a_case() -> None:
    measured = benchmark(
        case(side=CPU, times=times(1.0), parts={}),
        case(times=times(1.02)),
        case("upscale", side=CPU, times=times(1.0), parts={}),
        case("upscale", times=times(0.9)),
    )
    said = "txt2img is 0.98 times as fast as the CPU; over 2 cases it is 1.04 times as fast as the CPU."
    assert first(measured).endswith(said)
    (line,) = [
        line for line in markdown(measured).splitlines() if line.startswith("| workflows | txt2img | patched | fresh")
    ]
    assert "| 0.98 times |" in line


def test_another_device_is_called_by_its_name() -> None:
    measured = benchmark(case(side=CUDA, times=times(1.0), parts={}), case(times=times(4.0)))
    assert first(measured).endswith("; 0.25 times as fast as CUDA.")
    assert "| as fast as CUDA |" in markdown(measured)
    assert "--baseline cuda" in markdown(measured)
    assert "<th>as fast as CUDA</th>" in html(measured)


def test_it_is_measured_against_an_earlier_one() -> None:
    before = replace(measured(1.0), release="v0.32.0", date="2026-10-01T00:00:00+00:00")
    assert "slower than before: 1.50 times the time of v0.32.0 (2026-10-01)" in first(measured(1.5), before)


def test_what_torch_does_alone_is_no_change_of_the_release() -> None:
    """Of every release it is the same; here it took three times as long."""
    alone = replace(case("matmul", side="torch", times=times(1)), suite="tensor")
    before = replace(benchmark(case(times=times(1)), alone), release="v0.32.0")
    after = benchmark(case(times=times(0.8)), replace(alone, times=times(3)))
    assert "; faster than before: 0.80 times the time of v0.32.0" in first(after, before)
    assert "cases" not in first(after, before)
    assert "; slower than before: 3.00 times" in first(benchmark(after.cases[1]), benchmark(alone))


def scattered(count: int = 16) -> Times:
    """By ten percent and more: no change is not what they show."""
    seconds = tuple(0.95 + 0.25 * (number % 2) - 0.1 * (number % 3) for number in range(count))
    return Times(seconds, {SAMPLER: seconds}, (1.0,), steady=True)


def test_what_scatters_is_not_called_no_change() -> None:
    unclear = benchmark(case(side=UPSTREAM, times=times(1)), case(times=scattered()))
    assert "; too uncertain to say if it changed from upstream: " in first(unclear)
    both = benchmark(*several(1, 1).cases, case("2", side=UPSTREAM, times=times(1)), case("2", times=scattered()))
    assert first(both).endswith("; of 3 cases 1 too uncertain to say.")


def several(*factors: float) -> Benchmark:
    return benchmark(
        *(case(str(number), side=UPSTREAM, times=times(1)) for number, _ in enumerate(factors)),
        *(case(str(number), times=times(factor)) for number, factor in enumerate(factors)),
    )


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ((1, 1, 1), "; no change from upstream: 1.00 times upstream's time; of 3 cases none changed."),
        (
            (1, 1.5, 1),
            "; no change from upstream: 1.00 times upstream's time; of 3 cases 1 slower than upstream.",
        ),
        (
            (0.8, 1.5, 0.8),
            "times upstream's time; of 3 cases 1 slower than upstream, 2 faster than upstream.",
        ),
    ],
)
def test_it_says_in_how_many_cases(factors: Sequence[float], said: str) -> None:
    assert first(several(*factors)).endswith(said)


def test_another_precision_is_no_change_of_the_release() -> None:
    """It is faster than upstream in float32, which says nothing of the patches."""
    measured = benchmark(*several(1).cases, case("0", side="patched, fp16", times=times(0.5)))
    assert "no change from upstream: 1.00 times" in first(measured)
    (ratios, bars) = re.findall(r"<svg.*?</svg>", html(measured), re.DOTALL)
    assert "0.500" not in ratios
    assert "patched, fp16" in bars
    alone = benchmark(case(side="patched, fp16", times=times(0.5)))
    assert first(alone).startswith("txt2img takes 501 ms")


def test_columns_without_a_figure_are_left_out() -> None:
    page = html(benchmark(case(times=times(1))))
    assert "ratio to" not in page
    assert "as fast as" not in page
    assert "<th>ratio to upstream</th>" in html(several(1))


def test_what_all_cases_have_in_common_is_said_once() -> None:
    measured = benchmark(case("sdxl (real size)", times=times(1)), case("dit (real size)", times=times(1)))
    assert "Time of workflows (real size): medians" in html(measured)
    (plot,) = re.findall(r"<svg.*?</svg>", html(measured), re.DOTALL)
    assert "real size" not in plot


def test_it_says_what_it_does_not_know() -> None:
    assert first(benchmark(case(parts={}))) == "v0.33.0 on emulated:b580: no time was measured."
    assert "whether it is faster than before was not measured" in first(benchmark(case(times=times(1))))
    assert "of too few runs to say whether that is a change" in first(measured(1.5, count=3))


def test_what_was_not_measured_is_never_nothing() -> None:
    lost = case("sdxl", verdict=TrialVerdict.CPU_FALLBACK, reason="node 5 did nothing", parts={})
    page = markdown(benchmark(lost, case(parts={SAMPLER: counts(synchronisations=None, peak_bytes=None)})))
    (line,) = [line for line in page.splitlines() if "node 5 did nothing" in line]
    assert line.count("not measured") == 4
    (line,) = [line for line in page.splitlines() if line.startswith("| workflows | txt2img | patched | 108")]
    assert line.endswith("| 108 | 8 | not measured | 210 | not measured |")


@pytest.mark.parametrize("page", [html, markdown])
def test_energy_memory_and_quality_are_shown(page: Any) -> None:
    use = EnergyUse("xe 0000:03:00.0 card", 3200.0, 32.0, 16)
    text = page(measured(energy=(use,), memory=(MemoryUse("RAM", 3 << 30),), pictures=2, steps=20, quality=WRONG))
    assert "xe 0000:03:00.0 card: 200 J a run, 100 J a picture, 10 J a step, 100 W" in text
    assert "RAM: 3072 MiB" in text
    assert "largest difference 3 of 255, PSNR 52.1 dB, SSIM 0.9991, FLIP 0.0120" in text
    assert "the CPU computed everything" in text
    assert "patchforge bench v0.33.0 --device emulated:b580 --suite workflows --baseline upstream --quick" in text


@pytest.mark.parametrize("page", [html, markdown])
def test_differences_are_listed_or_there_are_none(page: Any) -> None:
    assert "No difference in " in page(measured())
    other = measured(parts={SAMPLER: counts(allocations=211)})
    assert "allocations" in page(other)
    assert "figures differ between" in page(other)
    assert "Nothing is compared: only one side was measured" in page(benchmark(case(times=times(1))))


def test_the_page_needs_nothing_else_and_its_plots_are_svg() -> None:
    page = html(measured(1.2))
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 2
    for plot in plots:
        ET.fromstring(plot)
        assert "currentColor" in plot
    assert "1.200, slower" in plots[0]
    assert {"cpu", "upstream", "patched", "txt2img"} <= set(re.findall(r">([\w-]+)</text>", plots[1]))
    assert "<script" not in page
    assert re.findall(r"(?:src|href)=\"(?!#)", re.sub(r"xlink:href", "", page)) == []


def test_short_and_long_times_can_be_read_in_one_plot() -> None:
    measured = benchmark(case("a", times=times(0.01)), case("b", times=times(2)))
    assert "s, logarithmic" in html(measured)
    assert "logarithmic" not in html(several(1, 2))


def test_the_same_benchmark_gives_the_same_pages() -> None:
    assert html(measured()) == html(measured())


def test_texts_of_strangers_are_texts() -> None:
    hostile = "<script>alert(1)</script> | \x1b[31m **bold**"
    measured = benchmark(
        case(parts={}, verdict=TrialVerdict.FAILED, reason=hostile), machine=replace(benchmark().machine, cpu=hostile)
    )
    assert "<script>" not in html(measured)
    assert "\x1b" not in markdown(measured)
    (line,) = [
        line for line in markdown(measured).splitlines() if line.startswith("| workflows | txt2img | patched | failed")
    ]
    assert len(re.findall(r"(?<!\\)\|", line)) == 10


def test_the_table_has_a_figure_in_each_line() -> None:
    lines = list(csv.DictReader(table(measured(quality=WRONG)).splitlines()))
    chosen = [line for line in lines if line["side"] == PATCHED and line["figure"] == "psnr"]
    assert [(line["value"], line["unit"]) for line in chosen] == [("52.1", "dB")]
    runs = [line for line in lines if line["side"] == PATCHED and line["figure"].startswith("run ")]
    assert len(runs) == 16
    waits = [line["value"] for line in lines if line["figure"] == "wait, blocking copy" and line["part"] == SAMPLER]
    assert waits == ["7", "7"]


def written(folder: Path, measured_run: Benchmark) -> Path:
    folder.mkdir()
    (folder / FILE).write_bytes(FORMAT.dump(measured_run))
    return folder


def test_the_command_writes_beside_a_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = written(tmp_path / "one", measured()), tmp_path / "out"
    assert main(["bench", "report", str(folder), "--out", str(out)]) == Exit.OK
    assert "no change from upstream: 1.00 times upstream's time" in capsys.readouterr().out.splitlines()[0]
    assert {path.name for path in out.iterdir()} == {FILE, HTML, MARKDOWN, CSV, "SHA256SUMS"}
    assert main(["bench", "report", str(out), "--before", str(folder), "--json"]) == Exit.OK
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["written"]) == ("patchforge/bench-report/1", str(out))
    (out / HTML).write_text("edited")
    assert main(["bench", "report", str(out)]) == Exit.USAGE
    assert (out / HTML).read_text() == "edited"


def test_a_submission_says_nothing_of_its_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = case("sdxl", verdict=TrialVerdict.FAILED, reason="/home/somebody/ComfyUI/main.py", parts={})
    told = case(reason="/home/somebody", not_measured={"energy": "/home/somebody"}, times=times(1))
    folder = written(
        tmp_path / "one",
        benchmark(
            lost,
            told,
            versions={"torch": "2.13.0", "somebodys-package": "1"},
            machine=replace(benchmark().machine, system="Linux 6.1.0-somebodys-build"),
        ),
    )
    assert main(["bench", "submit", str(folder), "--out", str(tmp_path / "out")]) == Exit.OK
    (file,) = (tmp_path / "out").iterdir()
    assert file.name == f"v0.33.0-emulated-b580-2026-11-29{SUFFIX}"
    text = file.read_text()
    assert "somebody" not in text
    assert "10:00" not in text
    measured = read(file)
    assert [each.name for each in measured.cases] == ["txt2img"]
    assert measured.cases[0].times == told.times
    assert measured.machine.system == "Linux 6.1"
    assert main(["bench", "submit", str(folder), "--out", str(tmp_path / "out"), "--json"]) == Exit.OK  # over ours
    file.write_text("mine")
    assert main(["bench", "submit", str(folder), "--out", str(tmp_path / "out")]) == Exit.USAGE
    assert file.read_text() == "mine"
    file.write_bytes(FORMAT.dump(anonymous(read(folder))))
    assert main(["bench", "history", str(tmp_path / "out")]) == Exit.OK
    assert "1 benchmarks" in capsys.readouterr().out
    other = written(tmp_path / "other", benchmark(lost))
    assert main(["bench", "submit", str(other), "--out", str(tmp_path / "out")]) == Exit.UNCHECKED


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["bench", "--suite", "tensor,conv,sd"]),
        (["--quick", "v1"], ["bench", "--quick", "v1", "--suite", "tensor,conv,sd"]),
        (["run", "v1"], ["bench", "run", "v1", "--suite", "tensor,conv,sd"]),
        (["--suite=load"], ["bench", "--suite=load"]),
        (["--workflow", "sdxl"], ["bench", "--workflow", "sdxl"]),
        (["compare", "a"], ["bench", "compare", "a"]),
        (["--help"], ["bench", "--help"]),
    ],
)
def test_the_other_programs_are_doors(words: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []

    def run(line: list[str]) -> int:
        called.append(line)
        return 0

    monkeypatch.setattr(cli, "main", run)
    monkeypatch.setattr(sys, "argv", ["ipex-benchmark", *words])
    assert cli.ipex_benchmark() == 0
    monkeypatch.setattr(sys, "argv", ["comfyui-benchmark", *words])
    assert cli.comfyui_benchmark() == 0
    assert called[0] == expected
    assert called[1] == [word.replace("tensor,conv,sd", "workflows,batch,load") for word in expected]


def test_torch_alone_is_measured_by_the_cpu() -> None:
    measured = benchmark(
        Case("tensor", "matmul", CPU, TrialVerdict.FRESH, "", times=times(0.02)),
        Case("tensor", "matmul", TORCH, TrialVerdict.FRESH, "", times=times(0.005)),
    )
    assert first(measured).endswith("; 4.00 times as fast as the CPU.")
    assert "--baseline cpu" in markdown(measured)
