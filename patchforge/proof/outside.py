"""The proof that nothing but the edits differs: every other byte of a patched file is upstream's."""

from __future__ import annotations

from collections.abc import Sequence

from patchforge.errors import CheckFailed
from patchforge.vocabulary import FileChange, Segment, split_lines


def bytes_outside_edits_equal(change: FileChange) -> None:
    """CheckFailed unless ``change``'s segments make ``after`` of ``before``, and ``before`` of ``after`` again.

    The second half is what the claim is about: every byte outside the edits is upstream's.
    """
    before, after = split_lines(change.before or b""), split_lines(change.after)
    parts = change.segments
    if change.before is None and not parts:
        parts = (Segment(0, 0, tuple(after)),)
    undone: list[Segment] = []
    position = shift = 0
    for part in parts:
        if not (position + bool(undone) <= part.start <= part.end <= len(before)):
            problem = "segments are out of order, touch, or end behind the file"
            raise CheckFailed(f"{change.path}:{part.start + 1}: {problem}")
        start = part.start + shift
        undone.append(Segment(start, start + len(part.lines), tuple(before[part.start : part.end])))
        shift += len(part.lines) - (part.end - part.start)
        position = part.end
    _check_same(change.path, _spliced(before, parts), after)
    _check_same(change.path, _spliced(after, undone), before)


def _spliced(lines: Sequence[bytes], parts: Sequence[Segment]) -> list[bytes]:
    out: list[bytes] = []
    position = 0
    for part in parts:
        out += [*lines[position : part.start], *part.lines]
        position = part.end
    return [*out, *lines[position:]]


def _check_same(path: str, found: Sequence[bytes], expected: Sequence[bytes]) -> None:
    if list(found) == list(expected):
        return
    pairs = enumerate(zip(found, expected, strict=False))
    at = next((i for i, (line, other) in pairs if line != other), min(len(found), len(expected)))
    shown = [repr(side[at]) if at < len(side) else "the end of the file" for side in (expected, found)]
    raise CheckFailed(f"{path}:{at + 1}: bytes outside the edits differ", expected=shown[0], found=shown[1])
