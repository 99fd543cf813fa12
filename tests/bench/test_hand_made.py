"""What people did by hand, beside what the rules do: a clone with one such commit, and the same as a patch."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import hand_made

BEFORE = """\
NODE_CLASS_MAPPINGS = {}
import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
batch = 64 if other.type == "cuda" else 8
graph = torch.cuda.get_device_capability()
size = 1
"""
AFTER = """\
NODE_CLASS_MAPPINGS = {}
import torch

device = "xpu" if torch.xpu.is_available() else "cpu"
batch = 64 if other.type in ("cuda", "xpu") else 8
graph = torch.cuda.get_device_capability()
size = 2 if torch.xpu.is_available() else 1
"""


def git(clone: Path, *arguments: str) -> None:
    named = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(clone), *named, *arguments], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    clone = tmp_path / "pack"
    clone.mkdir()
    git(clone, "init", "-q")
    for text in (BEFORE, AFTER):
        (clone / "nodes.py").write_text(text, "utf-8")
        git(clone, "add", ".")
        git(clone, "commit", "-q", "-m", "a")
    return clone


def judged(source: str) -> Counter[str]:
    counted = Counter[str]()
    for clone, _, commit, diff in hand_made.fixes(source):
        done, files = hand_made.converted(clone, commit)
        counted.update(hand_made.judged(hunk, done, files) for hunk in hand_made.hunks(diff))
    return counted


def test_every_hunk_is_judged(clone: Path) -> None:
    assert judged(str(clone)) == {"converted": 1, "no device": 1}  # lines side by side are one hunk
    old = (clone / "nodes.py").read_text("utf-8")
    git(clone, "checkout", "-q", "HEAD~1")
    for at, line in enumerate(AFTER.splitlines()):
        lines = BEFORE.splitlines()
        lines[at] = line
        hunk = hand_made.Hunk("nodes.py", at + 1, (BEFORE.splitlines()[at],), (line,))
        done, files = hand_made.converted(str(clone), "HEAD")
        wanted = {3: "converted", 4: "person", 5: "person"}.get(at, "no device")
        assert hand_made.judged(hunk, done, files) == wanted
    assert old == AFTER


def test_a_patch_is_judged_by_the_commit_that_it_is_for(clone: Path, tmp_path: Path) -> None:
    patch = tmp_path / "a.patch"
    patch.write_bytes(
        subprocess.run(["git", "-C", str(clone), "diff", "HEAD~1"], check=True, capture_output=True).stdout
    )
    assert judged(f"{patch}@{clone}@HEAD~1") == judged(str(clone))
    assert judged(f"{patch}@{clone}@HEAD") == {"": 2}  # it does not fit


def test_a_line_that_names_cuda_and_has_no_row_is_silent(clone: Path) -> None:
    done, files = hand_made.converted(str(clone), "HEAD~1")
    hunk = hand_made.Hunk("nodes.py", 4, (BEFORE.splitlines()[3],), ("xpu",))
    silent = type(done)(done.pack, (), (), (), ())
    assert hand_made.judged(hunk, silent, files) == "silent"
