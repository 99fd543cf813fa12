"""Differences are right in every mode and frame, and what cannot be compared says why."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchforge.errors import CheckFailed
from patchforge.trial.model import Output
from patchforge.trial.verdicts.pictures import compare, compare_outputs, is_constant
from tests.trial.examples import PICTURE, encoded, flat, frame

MOVING = encoded(frame(), frame(9), kind="WEBP", lossless=True)


def test_equal_pictures_differ_in_nothing_whatever_their_metadata() -> None:
    other = encoded(frame(), compress_level=1, dpi=(72, 72))
    assert other != PICTURE
    difference = compare(PICTURE, other)
    assert (difference.largest, difference.mean) == (0, 0)


def test_the_largest_and_the_mean_are_levels() -> None:
    changed = frame()
    changed.putpixel((3, 4), tuple(value + 30 for value in changed.getpixel((3, 4))))  # type: ignore[union-attr]
    difference = compare(encoded(changed), PICTURE)
    assert difference.largest == 30
    assert difference.mean == pytest.approx(30 / 64)


def test_the_picture_shows_where_it_differs_most_at_full_brightness() -> None:
    changed = frame()
    changed.putpixel((3, 4), tuple(value + 3 for value in changed.getpixel((3, 4))))  # type: ignore[union-attr]
    shown = Image.open(BytesIO(compare(encoded(changed), PICTURE).picture))
    assert shown.format == "PNG"
    assert shown.getpixel((3, 4)) == (255, 255, 255)
    assert shown.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_a_difference_in_any_frame_is_found(kind: str) -> None:
    frames = [frame(shift) for shift in (0, 20, 40)]
    options = {"lossless": True} if kind == "WEBP" else {}
    same = encoded(*frames, kind=kind, **options)
    other = encoded(*frames[:2], frame(45), kind=kind, **options)
    assert compare(same, same).largest == 0
    difference = compare(other, same)
    assert difference.largest == 5
    assert difference.mean == pytest.approx(5 / 3)


def test_transparency_is_compared_too() -> None:
    clear, solid = frame().convert("RGBA"), frame().convert("RGBA")
    clear.putalpha(55)
    difference = compare(encoded(clear), encoded(solid))
    assert difference.largest == 200
    assert difference.mean == pytest.approx(50)
    shown = Image.open(BytesIO(difference.picture))
    assert shown.getpixel((0, 0)) == (255, 255, 255)
    assert compare(encoded(solid), PICTURE).largest == 0


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (encoded(frame(size=(8, 9))), "1 frame(s) of 8 x 9"),
        (MOVING, "2 frame(s) of 8 x 8"),
    ],
)
def test_other_sizes_and_frame_counts_are_named(other: bytes, found: str) -> None:
    with pytest.raises(CheckFailed, match="cannot be compared") as caught:
        compare(other, PICTURE)
    assert found in str(caught.value)
    assert "1 frame(s) of 8 x 8" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"not a picture", PICTURE[:60]])
def test_what_is_no_picture_says_so(data: bytes) -> None:
    with pytest.raises(CheckFailed, match="cannot be read"):
        compare(data, PICTURE)


def test_a_picture_that_claims_to_be_enormous_is_refused() -> None:
    huge = bytearray(encoded(Image.new("1", (1, 1))))
    huge[16:29] = struct.pack(">IIBBBBB", 10_000, 8_000, 1, 0, 0, 0, 0)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    with pytest.raises(CheckFailed, match="too large"):
        is_constant(bytes(huge))


def test_sixteen_bits_are_refused_not_cut() -> None:
    with pytest.raises(CheckFailed, match="more than 8 bits"):
        compare(encoded(Image.new("I;16", (8, 8), 40000)), PICTURE)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("data", [PICTURE, MOVING], ids=["png", "webp"])
@given(position=st.integers(0, 10_000), change=st.integers(1, 255))
@settings(deadline=None)
def test_a_damaged_picture_is_read_or_refused(data: bytes, position: int, change: int) -> None:
    damaged = bytearray(data)
    damaged[position % len(data)] ^= change
    with suppress(CheckFailed):
        compare(bytes(damaged), data)


@given(st.integers(0, 55), st.integers(0, 55))
@settings(deadline=None)
def test_the_difference_is_symmetric_and_no_more_than_its_largest(level: int, other: int) -> None:
    a, b = encoded(frame(level, (4, 4))), encoded(frame(other, (4, 4)))
    there, back = compare(a, b), compare(b, a)
    assert (there.largest, there.mean) == (back.largest, back.mean)
    assert 0 <= there.mean <= there.largest <= 255
    assert (there.largest == 0) == (level == other)


@pytest.mark.parametrize(
    ("data", "constant"),
    [
        (encoded(flat(0)), True),
        (encoded(flat(7), flat(90), kind="WEBP", lossless=True), True),
        (encoded(flat(7), frame(), kind="WEBP", lossless=True), False),
        (encoded(flat(127).convert("L")), True),
        (PICTURE, False),
    ],
)
def test_a_picture_of_one_colour_in_each_frame_is_constant(data: bytes, constant: bool) -> None:
    assert is_constant(data) is constant


def test_outputs_are_paired_by_node_and_order_and_the_worst_counts() -> None:
    ours = [Output("9", "a", PICTURE), Output("12", "b", encoded(frame(3))), Output("9", "c", encoded(frame(7)))]
    theirs = [Output("12", "x", PICTURE), Output("9", "y", PICTURE), Output("9", "z", PICTURE)]
    assert compare_outputs(ours, theirs).largest == 7


@pytest.mark.parametrize("theirs", [[], [Output("9", "a", PICTURE)] * 2, [Output("8", "a", PICTURE)]])
def test_other_files_cannot_be_compared(theirs: list[Output]) -> None:
    with pytest.raises(CheckFailed, match="not the same files"):
        compare_outputs([Output("9", "a", PICTURE)], theirs)


def test_no_files_at_all_are_not_equal() -> None:
    with pytest.raises(CheckFailed, match="not the same files"):
        compare_outputs([], [])
