"""Bytes outside of edits: what the segments do not explain fails."""

from __future__ import annotations

import pytest

from patchforge.errors import CheckFailed
from patchforge.pipeline import PatchedRelease, check_untouched
from patchforge.proof.outside import bytes_outside_edits_equal
from patchforge.vocabulary import FileChange, Purpose, Segment
from tests.support import MemoryTree, engine_of, release

BEFORE = b"1\r\n2\r\n3"


def test_bytes_outside_the_edits() -> None:
    parts = (Segment(0, 0, (b"x\r\n",)), Segment(1, 2, (b"two\r\n", b"more\r\n")))
    bytes_outside_edits_equal(FileChange("a", BEFORE, b"x\r\n1\r\ntwo\r\nmore\r\n3", parts))
    bytes_outside_edits_equal(FileChange("a", None, b"1\n2", (Segment(0, 0, (b"1\n", b"2")),)))
    bytes_outside_edits_equal(FileChange("a", None, b"1\n2", ()))
    bytes_outside_edits_equal(FileChange("a", BEFORE, BEFORE, ()))


@pytest.mark.parametrize(
    ("after", "parts"),
    [
        (b"x\n1\n2\r\n3", (Segment(0, 0, (b"x\n",)),)),
        (b"x\n1\r\n2\r\n3\n", (Segment(0, 0, (b"x\n",)),)),
        (b"1\r\n2\r\n", ()),
        (b"x\n1\r\n2\r\n3", ()),
        (b"1\r\n2\r\n3x\n", (Segment(3, 3, (b"x\n",)),)),
        (b"1\r\n2\r\n3x\n", (Segment(4, 4, (b"x\n",)),)),
        (b"x\nx\n1\r\n2\r\n3", (Segment(0, 0, (b"x\n",)), Segment(0, 0, (b"x\n",)))),
    ],
)
def test_bytes_that_no_edit_explains(after: bytes, parts: tuple[Segment, ...]) -> None:
    with pytest.raises(CheckFailed, match=r"^a:\d+: "):
        bytes_outside_edits_equal(FileChange("a", BEFORE, after, parts))


def test_a_check_of_a_release_compares_them_too() -> None:
    before, after = b"import torch\nx = 1\n", b"import torch\nx  = 1\n"
    conversion = engine_of(()).convert(release("v9.0.0"), MemoryTree({"a.py": before}))
    honest = FileChange("a.py", before, after, (Segment(1, 2, (b"x  = 1\n",)),))
    check_untouched(PatchedRelease(conversion, {Purpose.DEVICE: [honest]}, ()))
    hidden = FileChange("a.py", before, after, (Segment(0, 1, (b"import torch\n",)),))
    with pytest.raises(CheckFailed, match="bytes outside the edits differ"):
        check_untouched(PatchedRelease(conversion, {Purpose.DEVICE: [hidden]}, ()))
