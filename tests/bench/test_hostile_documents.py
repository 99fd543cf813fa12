"""Benchmark documents of strangers: every reader refuses what cannot be, and nothing is written where it should not."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy", reason="needs the extra benchmark")
pytest.importorskip("ruptures", reason="needs the extra benchmark")

from patchforge import names
from patchforge.bench import costs, submission
from patchforge.bench.compare import against_upstream, compare
from patchforge.bench.history import benchmarks, history
from patchforge.bench.model import FILE, FORMAT, PATCHED, UPSTREAM, EnergyUse, MemoryUse, Quality, Times
from patchforge.bench.report import headline, markdown, rows, table
from patchforge.cli import main
from patchforge.errors import Damaged, Exit, NotChecked
from tests.bench.examples import SAMPLER, benchmark, case, counts

NAMES = [
    "v0.33.0/../../../pwn",
    "/tmp/pwn",
    "..",
    "",
    "v0.33.0\0",
    "v0." + "3" * 300,
    "v0.33.0\n",
    "C:x",
    "con",
    "vé.1",
]
READERS = [
    ["submit", "{}", "--out", "{out}"],
    ["record", "{}", "--generated", "{out}/comfyui"],
    ["report", "{}", "--out", "{out}"],
    ["history", "{folder}"],
    ["compare", "{}"],
]


def whole() -> dict[str, Any]:
    """A document that has a value in every field."""
    full: dict[str, Any] = {
        "times": Times((1.0, 1.1, 0.9), {SAMPLER: (0.5, 0.5, 0.5)}, (1.2,), steady=True),
        "energy": (EnergyUse("a card", 300.0, 3.0, 3),),
        "memory": (MemoryUse("RAM", 1 << 30),),
        "quality": Quality(equal=False, largest=3, mean=0.2, psnr=52.1, ssim=0.99, flip=0.01),
        "pictures": 1,
        "steps": 20,
        "parts": {SAMPLER: counts()},
    }
    document: dict[str, Any] = json.loads(FORMAT.dump(benchmark(case(side=UPSTREAM, **full), case(**full))))
    return document


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(whole())
    within: Any = document
    for key in path[:-1]:
        within = within[key]
    within[path[-1]] = value
    return document


def numbers(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where figures are in a document."""
    if isinstance(value, dict | list):
        items: Any = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from numbers(inner, (*path, key))
    elif type(value) in {int, float} and path != ("format",):
        yield path


@pytest.mark.parametrize("reader", READERS, ids=lambda words: words[0])
@pytest.mark.parametrize(
    "place", [("release",), ("device", "kind"), ("device", "emulated"), ("date",)], ids=lambda place: place[-1]
)
def test_what_becomes_a_name_is_checked_by_every_reader(
    reader: list[str], place: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "a" / "b" / "in", tmp_path / "a" / "b" / "out"
    folder.mkdir(parents=True)
    file = folder / FILE
    for name in NAMES:
        if name == "" and place[-1] == "emulated":
            continue  # a real device
        if name == "con" and place[-1] in {"kind", "emulated"}:
            continue  # a word like others, and only a part of the name
        file.write_text(json.dumps(changed(place, name)))
        words = [word.format(file, folder=folder, out=out) for word in reader]
        assert main(["bench", *words]) == Exit.DATA, name
        said = capsys.readouterr().err
        assert f"@ $.{'.'.join(place)}" in said
        assert "expected" in said
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def texts(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where texts are in a document."""
    if isinstance(value, dict | list):
        items: Any = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from texts(inner, (*path, key))
    elif isinstance(value, str):
        yield path


def test_half_a_character_is_damaged_wherever_it_stands() -> None:
    places = list(texts(whole()))
    assert len(places) > 10
    for place in places:
        for half in ("\ud800", "x\udfff", "\udc00\ud800"):
            with pytest.raises(Damaged, match="is not JSON"):
                FORMAT.parse(json.dumps(changed(place, half)).encode(), "it")
    with pytest.raises(Damaged, match="is not JSON"):
        FORMAT.parse(json.dumps({**whole(), "\ud800": 1}, ensure_ascii=False).encode("utf-8", "surrogatepass"), "it")
    assert (
        FORMAT.parse(json.dumps(changed(("machine", "cpu"), "\U0001f600")).encode(), "it").machine.cpu == "\U0001f600"
    )


@pytest.mark.parametrize("reader", READERS, ids=lambda words: words[0])
def test_every_reader_says_so(reader: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / FILE).write_text(json.dumps(changed(("machine", "cpu"), "\ud800")))
    words = [word.format(folder / FILE, folder=folder, out=tmp_path / "out") for word in reader]
    assert main(["bench", *words]) == Exit.DATA
    assert "is not JSON" in capsys.readouterr().err


def test_names_made_of_documents_are_names_of_files_beside(tmp_path: Path) -> None:
    assert names.file_name("v0.33.0-xpu.json") == "v0.33.0-xpu.json"
    for name in ("a/b", "..", "/a", "a\0", "a" * 300, "con", ".git", "a:b", ""):
        with pytest.raises(Damaged):
            names.file_name(name)
    with pytest.raises(Damaged):
        submission.file_name(benchmark(release="v0.33.0/../../../pwn"))
    with pytest.raises(Damaged):
        costs.place(tmp_path, "../../pwn")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "value", ["-1", "0", "1e999", "-1e999", "NaN", "1" + "0" * 400, "5e-324", "1e308", "null", '"1"']
)
def test_no_figure_leads_to_a_mistake(value: str) -> None:
    """What is taken can be shown and compared; what is not is Damaged."""
    refused, told = 0, set[str]()
    for place in numbers(whole()):
        data = json.dumps(changed(place, "HERE")).replace('"HERE"', value).encode()
        try:
            measured = FORMAT.parse(data, "it")
        except Damaged as error:
            refused += 1
            told.add(error.found)
            continue
        against_upstream(measured)
        compare(measured, FORMAT.parse(json.dumps(whole()).encode(), "it"))
        history([measured])
        assert headline(measured, rows(measured, None), None)
        assert markdown(measured)
        assert table(measured)
        assert FORMAT.dump(submission.anonymous(measured))
    assert all(said.count("$.") == 1 for said in told) or value == "NaN"  # each says where
    assert refused > {"0": 3, "null": 30}.get(value, 40)


def test_lists_of_times_belong_together() -> None:
    document = whole()
    for seconds, said in (([], "one value or more"), ([1.0], "different numbers of times")):
        document["cases"][0]["times"]["seconds"] = seconds
        with pytest.raises(Damaged, match=said):
            FORMAT.parse(json.dumps(document).encode(), "it")
    twice = whole()
    twice["cases"].append(twice["cases"][0])
    with pytest.raises(Damaged, match="two of workflows txt2img upstream"):
        FORMAT.parse(json.dumps(twice).encode(), "it")


def test_all_of_it_is_taken_as_it_is() -> None:
    measured = FORMAT.parse(json.dumps(whole()).encode(), "it")
    assert [each.side for each in measured.cases] == [UPSTREAM, PATCHED]
    with pytest.raises(NotChecked):
        costs.recorded(FORMAT.parse(json.dumps(changed(("device", "emulated"), "")).encode(), "it"))


def test_copies_are_no_further_runs(tmp_path: Path) -> None:
    first = FORMAT.parse(json.dumps(whole()).encode(), "it")
    other = FORMAT.parse(json.dumps(changed(("date",), "2026-11-30T10:00:00+00:00")).encode(), "it")
    for number, measured in enumerate([first, other, first, first, other]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / FILE).write_bytes(FORMAT.dump(measured))
    assert benchmarks(tmp_path) == [first, other]
    told = submission.anonymous(first)
    (tmp_path / submission.file_name(told)).write_bytes(submission.rendered(told))
    assert benchmarks(tmp_path) == [first, other]
    (tmp_path / "0" / FILE).unlink()
    for copied in ("2", "3"):
        (tmp_path / copied / FILE).unlink()
    assert benchmarks(tmp_path) == [told, other]  # it stands for itself where what it was made of is not there
    assert [len(series.points) for series in history(benchmarks(tmp_path)).series] == [2, 2]
