"""Tarballs while they stream: order, modes, names, and everything a cut or hostile one can be (pitfalls 1, 9, 10)."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import of_clone, of_tarball
from tests.hashes.test_judges import ENVIRONMENT, archived, git, head, judged, repository

FILES: dict[str, bytes | Path] = {
    "a/b": b"one",
    "a-b": b"two",
    "a.py": b"three",
    "run": b"#!/bin/sh\n",
    "link": Path("a/b"),
    "ü ' \" $": b"name",
    "long/" + "x" * 120 + "/" + "y" * 120: b"pax",
    "big": os.urandom(400_000),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("tar") / "work", FILES)


def packed(work: Path, *arguments: str, prefix: str = "repo-1/") -> bytes:
    command = ["git", "-C", str(work), "archive", f"--prefix={prefix}", *arguments, "HEAD"]
    return subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True).stdout


class Pipe(io.BytesIO):
    """Gives a few bytes at a time and cannot seek."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size, 1000) if size and size > 0 else 1000)


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_hash_is_that_of_the_unpacked_tree(work: Path, tmp_path: Path, kind: str) -> None:
    found = of_tarball(io.BytesIO(packed(work, f"--format={kind}")), "here", head(work))
    assert found.hash == judged(archived(work, tmp_path / "out")) == of_clone(work, head(work)).hash
    assert found.files == len(FILES) - 1


def test_a_pipe_will_do(work: Path) -> None:
    assert of_tarball(Pipe(packed(work, "--format=tar.gz")), "here") == of_tarball(
        io.BytesIO(packed(work, "--format=tar")), "here"
    )


@pytest.mark.parametrize("mode", ["w:bz2", "w:xz", "w:gz"])
def test_other_packers(work: Path, mode: str) -> None:
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=out, mode=mode) as made,  # type: ignore[call-overload]
        tarfile.open(fileobj=io.BytesIO(packed(work))) as given,
    ):
        for member in given:
            made.addfile(member, given.extractfile(member) if member.isreg() else None)
    assert of_tarball(io.BytesIO(out.getvalue()), "here").hash == of_clone(work, head(work)).hash


def test_the_name_of_the_top_folder_does_not_count(work: Path) -> None:
    names = ("repo-1/", "owner-repo-abcdef0/")
    assert len({of_tarball(io.BytesIO(packed(work, prefix=name)), "here").hash for name in names}) == 1


def test_a_tarball_cut_anywhere_is_refused(work: Path) -> None:
    plain, squeezed = packed(work, "--format=tar"), packed(work, "--format=tar.gz")
    cuts = [(squeezed, size) for size in (0, 5, 100, len(squeezed) // 2, len(squeezed) - 1)]
    cuts += [(plain, size) for size in (0, 700, len(plain) // 2)]
    for data, size in cuts:
        with pytest.raises(PatchforgeError, match="cannot be read as a tarball"):
            of_tarball(io.BytesIO(data[:size]), "here")


def test_a_tarball_cut_between_two_files_is_refused(work: Path) -> None:
    data = packed(work, "--format=tar")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        starts = [member.offset for member in archive][1:]
    for start in starts:  # Python's tarfile alone takes each for a whole tarball
        with pytest.raises(PatchforgeError, match="breaks off"):
            of_tarball(io.BytesIO(data[:start]), "here")
        with pytest.raises(PatchforgeError, match="breaks off"):
            of_tarball(io.BytesIO(gzip.compress(data[:start])), "here")


def test_a_tarball_of_another_commit_is_refused(work: Path) -> None:
    with pytest.raises(PatchforgeError, match="of another commit"):
        of_tarball(io.BytesIO(packed(work)), "here", "1" * 40)


def made(*members: tuple[str, bytes, bytes | str]) -> io.BytesIO:
    """A tarball of (name, type, content or link target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            data = content if isinstance(content, bytes) else b""
            info.size, info.linkname = len(data), content if isinstance(content, str) else ""
            archive.addfile(info, io.BytesIO(data))
    return io.BytesIO(out.getvalue())


REG, DIR, LNK, SYM, FIFO = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ([("t/../../x", REG, b"x")], "outside itself"),
        ([("/t/x", REG, b"x")], "outside itself"),
        ([("t/x", REG, b"x"), ("t/x", REG, b"y")], "twice"),
        ([("t/x", REG, b"x"), ("t/./x", DIR, "")], "twice"),
        ([("t/l", SYM, "/etc"), ("t/l/x", REG, b"x")], "as a folder"),
        ([("t/x", FIFO, "")], "device"),
        ([("t/x", LNK, "t/y")], "hard link"),
        ([("t/x", REG, b"x"), ("u/x", REG, b"x")], "t, u"),
        ([("t", REG, b"x")], "found: t"),
    ],
)
def test_hostile_tarballs_are_refused(members: list[tuple[str, bytes, bytes | str]], found: str) -> None:
    with pytest.raises(PatchforgeError, match=found):
        of_tarball(made(*members), "here")


def test_a_hard_link_is_the_file_it_leads_to() -> None:
    one = of_tarball(made(("t/a", REG, b"x"), ("t/b", LNK, "t/a")), "here")
    assert one == of_tarball(made(("t/a", REG, b"x"), ("t/b", REG, b"x")), "here")


def test_an_empty_tarball_has_no_hash() -> None:
    with pytest.raises(CheckFailed, match="empty folder"):
        of_tarball(made(("t", DIR, "")), "here")


def test_only_the_owners_execute_bit_counts() -> None:
    def with_mode(mode: int) -> str:
        out, info = io.BytesIO(), tarfile.TarInfo("t/x")
        info.size, info.mode = 1, mode
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.addfile(info, io.BytesIO(b"x"))
        return of_tarball(io.BytesIO(out.getvalue()), "here").hash

    assert with_mode(0o677) == with_mode(0o600) != with_mode(0o700) == with_mode(0o777)


def test_a_users_umask_does_not_count(work: Path) -> None:
    git(work, "config", "tar.umask", "0077")
    try:
        found = of_tarball(io.BytesIO(packed(work)), "here")
    finally:
        git(work, "config", "--unset", "tar.umask")
    assert found == of_tarball(io.BytesIO(packed(work)), "here")


def test_memory_does_not_grow_with_the_number_of_files() -> None:
    """SQLite's own memory is not traced; its page cache is bounded (2 MB by default)."""

    def peak(count: int) -> int:
        stream = made(*((f"t/{number % 7}/{number:08}", REG, b"x") for number in reversed(range(count))))
        tracemalloc.start()
        try:
            assert of_tarball(stream, "here").files == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(6000) < peak(300) + (1 << 19)


def test_names_that_differ_in_case_only_also_of_folders() -> None:
    clashing = ("t/A/x", "t/B/readme", "t/B/README", "t/a/x", "t/a/y", "t/c/a", "t/d/A")
    found = of_tarball(made(*((name, REG, name.encode()) for name in clashing)), "here")
    assert [(note.kind, note.paths) for note in found.notes] == [("case", ("B/readme", "a"))]
