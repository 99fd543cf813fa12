"""Documents that pass between commands: each says the number of its format, and no other number or field is taken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypedDict

import pytest

from patchforge import manifest
from patchforge.documents import NOT_WRITTEN, OPTIONAL, Format, structured
from patchforge.errors import Damaged, Exit
from patchforge.nodes import manifest as pack_manifest
from patchforge.pins import pin_files
from patchforge.trial.model import Device, ImageDifference, Judgement, NodeStep, TrialSide, TrialVerdict
from patchforge.trial.reports import evidence
from patchforge.trial.reports.evidence import SessionResult
from tests.support import ROOT

PINS = ROOT / "upstream" / "pins"


def committed_manifest() -> bytes:
    return (min((ROOT / "generated/comfyui").glob("v*")) / manifest.NAME).read_bytes()


def committed_pack_manifest() -> bytes:
    return (min((ROOT / "generated/nodes").glob("*")) / manifest.NAME).read_bytes()


def evidence_of_one_session() -> bytes:
    device = Device("xpu", "b580", "memory=600M")
    steps, images = (
        (NodeStep("1", "KSampler", cached=False, operations=5, seconds=0.5),),
        ("images/patched/a/b-result.png",),
    )
    judged = Judgement(
        "a", TrialVerdict.FRESH, "equal", steps=steps, images=images, difference=ImageDifference(1.0, 0.5)
    )
    session = SessionResult(
        "a", TrialSide.PATCHED, "k", "2026-01-02", device, (), {"name": "x"}, {"torch": "2"}, (), (judged,)
    )
    return evidence.FORMAT.dump(evidence.Evidence("v1.0.0", "0" * 40, "1" * 64, device, (session,)))


#: What commands write and read, and a whole document of each.
DOCUMENTS: dict[str, tuple[Format[Any], Callable[[], bytes]]] = {
    "manifest": (manifest.FORMAT, committed_manifest),
    "manifest of a pack": (pack_manifest.FORMAT, committed_pack_manifest),
    "evidence": (evidence.FORMAT, evidence_of_one_session),
}
for kind in pin_files.kinds(PINS):
    DOCUMENTS[f"pins of {kind}"] = (pin_files.format_of(kind), (PINS / f"{kind}.json").read_bytes)
each_document = pytest.mark.parametrize("name", DOCUMENTS)

NUMBERS: dict[str, tuple[Any, str]] = {
    "none": (None, "does not say which format it has"),
    "a text": ("1", "does not say which format it has"),
    "true": (True, "does not say which format it has"),
    "a fraction": (1.0, "does not say which format it has"),
    "older": (0, "is of an older patchforge"),
    "negative": (-1, "is of an older patchforge"),
    "newer": (10**9, "is of a newer patchforge"),
}


@each_document
@pytest.mark.parametrize("number", NUMBERS)
def test_another_format_says_so_and_what_to_do(name: str, number: str, tmp_path: Path) -> None:
    layout, whole = DOCUMENTS[name]
    document = json.loads(whole())
    document["format"], problem = NUMBERS[number]
    with pytest.raises(Damaged, match=problem) as caught:
        layout.parse(json.dumps(document).encode(), "the file", do="make it anew")
    assert caught.value.status is Exit.DATA
    assert caught.value.do.endswith("make it anew")
    assert ("update patchforge" in caught.value.do) == (number == "newer")
    del document["format"]
    (tmp_path / "x.json").write_text(json.dumps(document))
    with pytest.raises(Damaged, match="does not say which format it has"):
        layout.read(tmp_path / "x.json")


@each_document
def test_a_document_is_read_and_written_as_it_is(name: str) -> None:
    layout, whole = DOCUMENTS[name]
    assert layout.dump(layout.parse(whole(), "the file")) == whole()


@each_document
def test_no_field_that_is_not_known_is_taken(name: str) -> None:
    layout, whole = DOCUMENTS[name]
    document = json.loads(whole())
    with pytest.raises(Damaged, match="is not what it should be"):
        layout.parse(json.dumps({**document, "more": None}).encode(), "the file")


# --- The mechanism ----------------------------------------------------------------------------------------------------


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    size: float = field(default=0.0, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class Whole:
    parts: tuple[Part, ...]
    pair: tuple[int, str]
    colour: Colour
    picture: bytes = field(default=b"", metadata=NOT_WRITTEN)


FORMAT = Format(Whole, 3)
GOOD: dict[str, Any] = {
    "format": 3,
    "parts": [{"name": "a"}, {"name": "b", "size": 1.5}],
    "pair": [1, "x"],
    "colour": "red",
}
BAD: dict[str, dict[str, Any]] = {
    "a text for a list": {"parts": "ab"},
    "an object for a list": {"parts": {}},
    "a short pair": {"pair": [1]},
    "a long pair": {"pair": [1, "x", 2]},
    "a pair of other kinds": {"pair": ["x", 1]},
    "another colour": {"colour": "blue"},
    "a colour that is a number": {"colour": 5},
    "a part of nothing": {"parts": [[]]},
    "a part with more": {"parts": [{"name": "a", "more": 1}]},
    "a name that is a number": {"parts": [{"name": 5}]},
    "a size that is a text": {"parts": [{"name": "a", "size": "1"}]},
    "a size that is true": {"parts": [{"name": "a", "size": True}]},
    "what is not written": {"picture": "x"},
}


def test_defaults_are_left_out_where_a_field_says_so() -> None:
    whole = Whole((Part("a"), Part("b", 1.5)), (1, "x"), Colour.RED, b"PNG")
    assert json.loads(FORMAT.dump(whole)) == GOOD
    assert FORMAT.parse(FORMAT.dump(whole), "x") == Whole(whole.parts, whole.pair, whole.colour)


@pytest.mark.parametrize("name", BAD)
def test_no_value_of_another_kind_is_taken(name: str) -> None:
    with pytest.raises(Damaged) as caught:
        FORMAT.parse(json.dumps({**GOOD, **BAD[name]}).encode(), "the file")
    assert "$" in caught.value.found


class Named(TypedDict):
    name: str


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class AllKinds:
    """A field of each kind that documents have."""

    inner: Inner
    maybe: Inner | None
    colour: Colour
    named: Named
    texts: tuple[str, ...]
    inners: tuple[Inner, ...]
    table: Mapping[str, Inner]
    colours: Mapping[Colour, tuple[str, ...]]
    numbers: Mapping[str, int]


WHOLE: dict[str, Any] = {
    "inner": {"size": 1},
    "maybe": None,
    "colour": "red",
    "named": {"name": "a"},
    "texts": ["a"],
    "inners": [{"size": 1}],
    "table": {"a": {"size": 1}},
    "colours": {"red": ["a"]},
    "numbers": {"a": 1},
}
STRANGE: tuple[Any, ...] = (5, 1.5, True, "words", [3], [[]], {"a": "b"}, {"a": []}, {"a": {"b": {}}})
#: What Python, or cattrs, says of its own.
NOT_FOR_PEOPLE = re.compile(r"attribute|NoneType|unknown error|invalid value|subscriptable|iterable|Inner|Colour|Named")


@pytest.mark.parametrize("place", ["$", *WHOLE])
def test_a_value_of_another_kind_is_told_in_words(place: str) -> None:
    """What was expected, what was found and where, whatever stands there."""
    structured(WHOLE, AllKinds, "a document")
    for strange in STRANGE:
        with pytest.raises(Damaged) as caught:
            structured(strange if place == "$" else {**WHOLE, place: strange}, AllKinds, "a document")
        found = caught.value.found
        assert not NOT_FOR_PEOPLE.search(found), found
        assert re.search("expected|missing", found), found
        assert place == "$" or f"$.{place}" in found
