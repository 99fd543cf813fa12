"""Ours taken out of edited files without git: the merge gives what git's gives, or asks a person more often."""

import random
from pathlib import Path

import pytest

from patchforge.checkout.merge import merge
from patchforge.git.command import git

BASE = b"1\n2\n3\n4\n5\n6\n"


@pytest.mark.parametrize(
    ("mine", "other", "both"),
    [
        (b"1\nx\n3\n4\n5\n6\n", b"1\n2\n3\n4\ny\n6\n", b"1\nx\n3\n4\ny\n6\n"),
        (b"0\n" + BASE, BASE + b"7\n", b"0\n" + BASE + b"7\n"),
        (b"1\n2\n3\n", b"x\n2\n3\n4\n5\n6\n", b"x\n2\n3\n"),
        (b"1\nx\n3\n4\n5\n6\n", b"1\nx\n3\n4\n5\n6\n", b"1\nx\n3\n4\n5\n6\n"),
        (BASE, b"", b""),
        (b"1\nx\n3\n4\n5\n6\n", b"1\ny\n3\n4\n5\n6\n", None),
        (b"1\nx\n3\n4\n5\n6\n", b"1\n2\ny\n4\n5\n6\n", None),  # beside each other
        (BASE.rstrip(), b"1\n2\n3\n4\n5\ny\n", None),
    ],
)
def test_both_changes_or_none(mine: bytes, other: bytes, both: bytes | None) -> None:
    assert merge(BASE, mine, other) == merge(BASE, other, mine) == both


def test_no_other_result_than_gits(tmp_path: Path) -> None:
    chance, agreed = random.Random(7), 0

    def changed(lines: list[bytes]) -> list[bytes]:
        made = list(lines)
        for _ in range(chance.randint(0, 2)):
            at = chance.randint(0, len(made))
            made[at : at + chance.randint(0, 2)] = [b"new %d\n" % chance.randint(0, 3)] * chance.randint(0, 2)
        return made

    for _ in range(40):
        base = [b"%d\n" % chance.randint(0, 40) for _ in range(chance.randint(0, 20))]
        sides = [b"".join(lines) for lines in (changed(base), base, changed(base))]
        for name, data in zip("aob", sides, strict=True):
            (tmp_path / name).write_bytes(data)
        gits = git("merge-file", "-p", "a", "o", "b", folder=tmp_path)
        ours = merge(sides[1], sides[0], sides[2])
        assert ours is None or (gits.returncode, gits.stdout.encode()) == (0, ours), sides
        agreed += ours is not None
    assert agreed > 20
