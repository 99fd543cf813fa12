"""How near pictures are to those of the CPU in float32: in bits, in levels, and as eyes see it.

PSNR and SSIM are scikit-image's. The perceptual measure is FLIP (Andersson et al. 2020, NVIDIA's own implementation):
how much somebody notices who switches between both pictures, 0 to 1; it has no weights that would be downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patchforge.bench.model import Quality
from patchforge.errors import CheckFailed
from patchforge.trial.model import Output
from patchforge.trial.verdicts import pictures

_WINDOW = 7  # pixels; SSIM looks at squares of that size


def quality(made: Sequence[Output], reference: Sequence[Output]) -> Quality:
    """The worst over all pictures of a run. CheckFailed where the two are not pictures of the same sizes."""
    difference = pictures.compare_outputs(made, reference)
    if difference.largest == 0:
        return Quality(equal=True, largest=0.0, mean=0.0, psnr=None, ssim=1.0, flip=0.0)
    pairs = [pair for ours, theirs in zip(made, reference, strict=True) for pair in _arrays(ours.data, theirs.data)]
    ssim = [_ssim(*pair) for pair in pairs]
    return Quality(
        equal=False,
        largest=difference.largest,
        mean=difference.mean,
        psnr=min(_psnr(*pair) for pair in pairs if (pair[0] != pair[1]).any()),
        ssim=None if None in ssim else min(value for value in ssim if value is not None),
        flip=max(_flip(*pair) for pair in pairs),
    )


def _arrays(made: bytes, reference: bytes) -> list[tuple[Any, Any]]:
    """Both as arrays of height, width and RGB, 8 bits each, frame by frame."""
    import numpy as np  # noqa: PLC0415 - the extra ``benchmark``

    ours, theirs = pictures.frames(made), pictures.frames(reference)
    if len(ours) != len(theirs):
        raise CheckFailed("the pictures have not as many frames", expected=str(len(theirs)), found=str(len(ours)))
    return [
        (np.asarray(left.convert("RGB")), np.asarray(right.convert("RGB")))
        for left, right in zip(ours, theirs, strict=True)
    ]


def _psnr(made: Any, reference: Any) -> float:
    """Decibels; the higher, the nearer."""
    from skimage.metrics import peak_signal_noise_ratio  # noqa: PLC0415

    return float(peak_signal_noise_ratio(reference, made, data_range=255))


def _ssim(made: Any, reference: Any) -> float | None:
    """1 for equal pictures; None for pictures that are smaller than what it looks at."""
    from skimage.metrics import structural_similarity  # noqa: PLC0415

    if min(made.shape[:2]) < _WINDOW:
        return None
    return float(structural_similarity(reference, made, channel_axis=-1, data_range=255))


def _flip(made: Any, reference: Any) -> float:
    import flip_evaluator  # noqa: PLC0415

    ours, theirs = (picture.astype("float32") / 255 for picture in (made, reference))
    _, mean, _ = flip_evaluator.evaluate(theirs, ours, "LDR", applyMagma=False)
    return float(mean)
