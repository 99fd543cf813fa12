"""Evidence comes back as it was written, is bound to what it is about, and nothing doubtful is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchforge import atomic
from patchforge.atomic import write_tree
from patchforge.errors import Damaged, PatchforgeError
from patchforge.outputs import update_folder
from patchforge.trial.model import Device, ImageDifference, NodeStep, TrialSide, TrialVerdict
from patchforge.trial.reports import evidence as module
from patchforge.trial.reports.evidence import (
    EVIDENCE,
    FILE,
    Evidence,
    digest,
    dump,
    load,
    parse,
    picture_name,
    save,
    session_key,
)
from tests.trial.examples import EMULATED, PICTURE, REAL, encoded, evidence, frame, judgement, session

RESULT = picture_name(TrialSide.PATCHED, "workflows", "txt2img", "result", PICTURE)
JUDGED = judgement(
    steps=(NodeStep("3", "KSampler", False, 812, 0.25),),
    images=(RESULT,),
    difference=ImageDifference(2.0, 0.125),
    log=("a line", "mehr: ü"),
)
FULL = evidence(session(TrialSide.PATCHED, JUDGED), session(TrialSide.UPSTREAM, judgement(verdict=TrialVerdict.FAILED)))
Document = dict[str, Any]


def test_it_comes_back_as_it_was() -> None:
    assert parse(dump(FULL)) == FULL
    assert dump(parse(dump(FULL))) == dump(FULL)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
judgements = st.builds(
    judgement, texts, st.sampled_from(TrialVerdict), texts, log=st.lists(texts, max_size=2).map(tuple)
)
sessions = st.builds(
    lambda side, name, judged, options: session(side, *judged, name=name, device=Device("xpu", "two", options)),
    st.sampled_from(TrialSide),
    texts,
    st.lists(judgements, max_size=3),
    texts,
)


@given(st.lists(sessions, max_size=3))
@settings(deadline=None)
def test_whatever_texts_it_holds_it_comes_back(results: list[module.SessionResult]) -> None:
    assert parse(dump(evidence(*results))) == evidence(*results)


def test_the_file_is_bound_and_marked() -> None:
    document = json.loads(dump(FULL))
    assert document["format"] == 2
    assert document["marked"] == "emulated"
    assert document["manifest"] == "d" * 64
    assert json.loads(dump(evidence(device=REAL)))["marked"] == "real"


def test_the_picture_of_a_difference_is_no_json() -> None:
    shown = replace(JUDGED, difference=ImageDifference(2.0, 0.125, PICTURE))
    assert dump(evidence(session(TrialSide.PATCHED, shown))) == dump(evidence(session(TrialSide.PATCHED, JUDGED)))


def first(document: Document) -> Document:
    written: Document = document["sessions"][0]["judgements"][0]
    return written


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it.update(format=1), "of an older patchforge"),
        (lambda it: it.update(format=3), "of a newer patchforge"),
        (lambda it: it.pop("format"), "which format"),
        (lambda it: it.update(marked="real"), "marked wrongly"),
        (lambda it: it.pop("marked"), "marked wrongly"),
        (lambda it: it.pop("manifest"), "required field missing @ $.manifest"),
        (lambda it: it.update(release=32), "expected a text, found 32 @ $.release"),
        (lambda it: it.update(more=1), ", found more @ $"),
        (lambda it: first(it).update(verdict="fine"), "$.sessions[0].judgements[0].verdict"),
        (
            lambda it: first(it).update(seconds="1"),
            "expected a number, found '1' @ $.sessions[0].judgements[0].seconds",
        ),
        (lambda it: first(it)["steps"][0].update(cached=0), "expected true or false, found 0 @"),
        (lambda it: first(it)["steps"][0].update(operations=1.5), "expected a whole number, found 1.5 @"),
        (lambda it: first(it)["steps"][0].update(operations=True), "expected a whole number, found true @"),
        (lambda it: first(it)["difference"].update(picture=""), ", found picture @"),
        (lambda it: first(it).update(log="text"), "expected a list"),
        (lambda it: first(it).update(log=None), "judgements[0].log"),
        (lambda it: it["sessions"][0].update(side="left"), "$.sessions[0].side"),
        (lambda it: it["sessions"][0].update(facts=[]), "$.sessions[0].facts"),
        (lambda it: it["sessions"][0]["versions"].update(torch=2), "versions['torch']"),
        (lambda it: it.update(device="xpu"), "$.device"),
    ],
)
def test_what_is_not_as_declared_is_refused_with_its_place(change: Callable[[Document], object], said: str) -> None:
    document = json.loads(dump(FULL))
    change(document)
    with pytest.raises(Damaged) as caught:
        parse(json.dumps(document).encode())
    assert said in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"3", b"\xff", b"null"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        parse(data)


def test_a_finished_session_is_found_by_side_name_and_key() -> None:
    assert FULL.finished(TrialSide.PATCHED, "workflows", "k" * 64) == FULL.sessions[0]
    assert FULL.finished(TrialSide.UPSTREAM, "workflows", "k" * 64) == FULL.sessions[1]
    assert FULL.finished(TrialSide.PATCHED, "workflows", "other") is None
    assert FULL.finished(TrialSide.PATCHED, "defaults", "k" * 64) is None


def test_a_session_takes_the_place_of_an_earlier_one() -> None:
    again = session(TrialSide.PATCHED, judgement(verdict=TrialVerdict.CAPACITY), key="new")
    added = FULL.add(again)
    assert added.sessions == (again, FULL.sessions[1])
    assert added.finished(TrialSide.PATCHED, "workflows", "k" * 64) is None


def test_evidence_of_the_same_thing_merges_and_the_later_wins() -> None:
    later = evidence(session(TrialSide.UPSTREAM, key="new"), session(TrialSide.PATCHED, name="defaults"))
    merged = FULL.merge(later)
    assert merged.sessions == (FULL.sessions[0], *later.sessions)


@pytest.mark.parametrize(
    "other",
    [
        evidence(release="v0.33.0"),
        evidence(device=REAL),
        evidence(device=Device("xpu", "b580", "rng=device")),
        replace(evidence(), manifest="e" * 64),
        replace(evidence(), commit="a" * 40),
        replace(evidence(), patchforge="9"),
    ],
)
def test_evidence_of_something_else_does_not_merge(other: Evidence) -> None:
    with pytest.raises(Damaged, match="two different things"):
        FULL.merge(other)


def test_a_session_key_holds_every_condition_in_any_order() -> None:
    key = session_key(device=EMULATED, arguments=("--cpu",), versions={"a": "1", "b": "2"})
    assert key == session_key(versions={"b": "2", "a": "1"}, arguments=("--cpu",), device=EMULATED)
    assert key != session_key(device=REAL, arguments=("--cpu",), versions={"a": "1", "b": "2"})
    assert key != session_key(device=EMULATED, arguments=(), versions={"a": "1", "b": "2"})


def test_the_manifest_is_known_by_its_bytes() -> None:
    assert digest(b"{}\n") == "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"


def test_saved_evidence_is_loaded_with_its_pictures(tmp_path: Path) -> None:
    save(tmp_path / "run", FULL, {RESULT: PICTURE})
    assert load(tmp_path / "run") == FULL
    assert (tmp_path / "run" / RESULT).read_bytes() == PICTURE
    assert RESULT == "images/patched/workflows/txt2img-result.png"
    assert load(tmp_path / "none") is None


def test_pictures_and_reports_of_before_stay_and_unnamed_pictures_go(tmp_path: Path) -> None:
    save(tmp_path, FULL, {RESULT: PICTURE})
    update_folder(tmp_path, EVIDENCE, lambda files: {**files, "report.md": b"text"})
    save(tmp_path, FULL.add(session(TrialSide.PATCHED, name="defaults")), {})
    assert (tmp_path / RESULT).read_bytes() == PICTURE
    assert (tmp_path / "report.md").read_text("utf-8") == "text"
    save(tmp_path, FULL.add(session(TrialSide.PATCHED, judgement())), {})
    assert not (tmp_path / RESULT).exists()


def test_pictures_must_be_there_and_named(tmp_path: Path) -> None:
    with pytest.raises(PatchforgeError, match="are missing"):
        save(tmp_path / "run", FULL, {})
    with pytest.raises(PatchforgeError, match="no judgement names"):
        save(tmp_path / "run", FULL, {RESULT: PICTURE, "images/other.png": PICTURE})
    assert not (tmp_path / "run").exists()
    save(tmp_path / "run", FULL, {RESULT: PICTURE})
    (tmp_path / "run" / RESULT).unlink()
    with pytest.raises(Damaged, match="lacks pictures"):
        load(tmp_path / "run")


class Killed(BaseException):
    """Stands for the end of the process."""


def test_killed_at_any_step_the_evidence_is_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = FULL.add(session(TrialSide.PATCHED, replace(JUDGED, reason="another"), key="new"))
    changed = encoded(frame(9))
    states = set()
    for steps in range(60):
        folder = tmp_path / str(steps)
        save(folder, FULL, {RESULT: PICTURE})
        left = iter(range(steps))

        def step(_: str, left: Any = left) -> None:
            if next(left, None) is None:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(atomic, "write_tree", lambda *at, step, watch=step, **how: write_tree(*at, step=watch, **how))
            try:
                save(folder, newer, {RESULT: changed})
                ended = True
            except Killed:
                ended = False
        loaded = load(folder)
        assert (loaded, (folder / RESULT).read_bytes()) in [(FULL, PICTURE), (newer, changed)]
        states.add(loaded == newer)
        if ended:
            break
    assert ended
    assert states == {False, True}
    assert (tmp_path / "0" / FILE).read_bytes() == dump(FULL)
