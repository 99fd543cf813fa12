"""How large a commit's files are, before git writes them: what is small where it is packed can fill a disk."""

from __future__ import annotations

from pathlib import Path

from patchforge.errors import Damaged
from patchforge.git.command import run_git

MOST_BYTES = 4 << 30
MOST_FILES = 200_000


def check_size(folder: Path, commit: str = "HEAD") -> None:
    """Damaged when the files of a commit, in a clone of ours, are more than a pack's or a release's ever are."""
    listed = run_git("ls-tree", "-r", "-l", "-z", "--full-tree", commit, folder=folder).split("\0")
    sizes = [line.partition("\t")[0].rpartition(" ")[2] for line in listed if line]
    size = sum(int(text) for text in sizes if text.isdigit())
    if size > MOST_BYTES or len(sizes) > MOST_FILES:
        raise Damaged(
            f"the files of {commit} are not written: they would fill the disk",
            expected=f"at most {MOST_FILES} files with {MOST_BYTES} bytes",
            found=f"{len(sizes)} files with {size} bytes",
            do="clone it yourself, and name the folder",
        )
