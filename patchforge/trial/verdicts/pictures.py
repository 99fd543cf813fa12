"""Pictures as bytes, compared in 8-bit levels (0 to 255). PNG and WEBP; animated ones frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from PIL import Image, ImageChops, ImageSequence

from patchforge.errors import CheckFailed
from patchforge.trial.model import ImageDifference, Output

_FORMATS = ("PNG", "WEBP")  #: what ComfyUI's own nodes save, animations too
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})  #: of 8 bits or fewer
_PIXELS = 1 << 26
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def compare(result: bytes, reference: bytes) -> ImageDifference:
    """The absolute difference over all frames and channels; transparency is a channel where one of the two has it.

    CheckFailed when one cannot be read, or when sizes or numbers of frames differ. ``picture`` is a PNG of the frame
    that differs most, multiplied so that its largest difference is 255.
    """
    pairs = _pairs(frames(result), frames(reference))
    differences = [ImageChops.difference(ours, theirs) for ours, theirs in pairs]
    counts = [_level_counts(each) for each in differences]
    largest = [max((level for level, count in enumerate(each) if count), default=0) for each in counts]
    worst = largest.index(max(largest))
    total = sum(level * count for each in counts for level, count in enumerate(each))
    mean = total / sum(map(sum, counts))
    return ImageDifference(float(largest[worst]), mean, _amplified(differences[worst], largest[worst]))


def compare_outputs(result: Sequence[Output], reference: Sequence[Output]) -> ImageDifference:
    """The worst difference between two runs of one workflow: node by node, in order. CheckFailed as ``compare``."""
    ours, theirs = _by_place(result), _by_place(reference)
    if ours.keys() != theirs.keys() or not ours:
        raise CheckFailed(
            "result and reference are not the same files",
            expected=", ".join(f"{data.name} of node {data.node}" for data in theirs.values()) or "at least one",
            found=", ".join(f"{data.name} of node {data.node}" for data in ours.values()) or "none",
        )
    differences = [compare(output.data, theirs[place].data) for place, output in ours.items()]
    return max(differences, key=lambda difference: (difference.largest, difference.mean))


def is_constant(data: bytes) -> bool:
    """Whether no frame has more than one colour. CheckFailed when it cannot be read."""
    return all(low == high for frame in frames(data) for low, high in _extrema(frame))


def _by_place(outputs: Sequence[Output]) -> dict[tuple[str, int], Output]:
    places: dict[tuple[str, int], Output] = {}
    for output in outputs:
        index = sum(node == output.node for node, _ in places)
        places[output.node, index] = output
    return places


def frames(data: bytes) -> list[Image.Image]:
    """Every frame, as RGB, or RGBA where it has transparency. CheckFailed when it cannot be read."""
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if image.mode not in _MODES:
                raise CheckFailed(
                    "the picture has more than 8 bits", expected=", ".join(sorted(_MODES)), found=image.mode
                )
            if image.width * image.height > _PIXELS:
                found = f"{image.width} x {image.height}"
                raise CheckFailed("the picture is too large", expected=f"at most {_PIXELS} pixels", found=found)
            return [_plain(frame) for frame in ImageSequence.Iterator(image)]
    except _UNREADABLE as error:
        found = f"{len(data)} bytes, {type(error).__name__}"  # the error's own text names an address in memory
        raise CheckFailed("the picture cannot be read", expected=" or ".join(_FORMATS), found=found) from error


def _plain(frame: Image.Image) -> Image.Image:
    return frame.convert("RGBA" if frame.has_transparency_data else "RGB")


def _pairs(ours: list[Image.Image], theirs: list[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
    if [each.size for each in ours] != [each.size for each in theirs]:
        raise CheckFailed("the pictures cannot be compared", expected=_shape(theirs), found=_shape(ours))
    mode = "RGBA" if any(each.mode == "RGBA" for each in [*ours, *theirs]) else "RGB"
    return [(mine.convert(mode), other.convert(mode)) for mine, other in zip(ours, theirs, strict=True)]


def _shape(frames: list[Image.Image]) -> str:
    width, height = frames[0].size
    return f"{len(frames)} frame(s) of {width} x {height}"


def _level_counts(difference: Image.Image) -> list[int]:
    """How many values have each level, all channels together."""
    channels = difference.histogram()
    return [sum(channels[level::256]) for level in range(256)]


def _extrema(frame: Image.Image) -> list[tuple[float, float]]:
    return [channel.getextrema() for channel in frame.split()]  # type: ignore[misc]


def _amplified(difference: Image.Image, largest: int) -> bytes:
    """Colours as they differ; a difference in transparency shows as grey."""
    colours = difference.convert("RGB")
    if difference.mode == "RGBA":
        transparency = difference.getchannel("A")
        colours = ImageChops.lighter(colours, Image.merge("RGB", [transparency] * 3))
    table = [min(255, round(level * 255 / max(largest, 1))) for level in range(256)]
    out = BytesIO()
    colours.point(table * 3).save(out, "PNG")
    return out.getvalue()
