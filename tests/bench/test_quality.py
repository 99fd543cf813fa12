"""How near pictures are: measures that agree on what is better, against values that are known."""

from __future__ import annotations

import math
from io import BytesIO

import pytest

pytest.importorskip("skimage", reason="needs the extra benchmark")
pytest.importorskip("flip_evaluator", reason="needs the extra benchmark")

from PIL import Image, ImageFilter

from patchforge.bench.quality import quality
from patchforge.errors import CheckFailed
from patchforge.trial.model import Output


def picture(shift: int = 0, size: int = 32) -> Image.Image:
    values = bytes(
        (x * 7 + y * 5 + channel * 40) % 200 + shift for y in range(size) for x in range(size) for channel in range(3)
    )
    return Image.frombytes("RGB", (size, size), values)


def output(*images: Image.Image) -> list[Output]:
    frames = []
    for image in images:
        out = BytesIO()
        image.save(out, "PNG")
        frames.append(Output("9", "a.png", out.getvalue()))
    return frames


def test_equal_pictures() -> None:
    near = quality(output(picture()), output(picture()))
    assert (near.equal, near.largest, near.psnr, near.ssim, near.flip) == (True, 0, None, 1, 0)


def test_a_known_difference() -> None:
    """Every value is four levels off: PSNR is 20 log10(255 / 4)."""
    near = quality(output(picture(4)), output(picture()))
    assert (near.equal, near.largest, near.mean) == (False, 4, 4)
    assert near.psnr == pytest.approx(20 * math.log10(255 / 4))
    assert near.ssim is not None
    assert 0.9 < near.ssim < 1
    assert 0 < near.flip < 0.2


def test_the_measures_agree_on_what_is_nearer() -> None:
    near, far = (
        quality(output(made), output(picture())) for made in (picture(2), picture().filter(ImageFilter.GaussianBlur(3)))
    )
    assert near.psnr is not None
    assert far.psnr is not None
    assert near.psnr > far.psnr
    assert (near.ssim or 0) > (far.ssim or 0)
    assert near.flip < far.flip


def test_the_worst_picture_counts() -> None:
    near = quality(output(picture(), picture(8)), output(picture(), picture()))
    alone = quality(output(picture(8)), output(picture()))
    assert (near.largest, near.psnr, near.ssim, near.flip) == (alone.largest, alone.psnr, alone.ssim, alone.flip)


def test_pictures_too_small_for_a_window() -> None:
    near = quality(output(picture(1, 4)), output(picture(0, 4)))
    assert (near.ssim, near.largest) == (None, 1)


def test_other_sizes_and_nothing_cannot_be_compared() -> None:
    with pytest.raises(CheckFailed):
        quality(output(picture(0, 16)), output(picture()))
    with pytest.raises(CheckFailed):
        quality([], [])
