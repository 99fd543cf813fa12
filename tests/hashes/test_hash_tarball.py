"""Tarballs while they stream: order, modes, names, and everything a cut or hostile one can be (pitfalls 1, 9, 10)."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import of_clone, of_tarball, tarball
from tests.hashes.test_judges import ENVIRONMENT, archived, git, head, judged, plain_hash, repository
from tests.support import ROOT

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
    archive = of_tarball(io.BytesIO(packed(work, f"--format={kind}")), "here", head(work))
    assert archive.hash == judged(archived(work, tmp_path / "out")) == of_clone(work, head(work)).hash
    assert archive.files == len(FILES) - 1


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
        ([("t/../../x", REG, b"x")], "no folder can hold"),
        ([("t//x", REG, b"x")], "no folder can hold"),
        ([("/t/x", REG, b"x")], "not a tarball as GitHub makes them"),
        ([("../x", REG, b"x")], "not a tarball as GitHub makes them"),
        ([("t/x", REG, b"x"), ("t/x", REG, b"y")], "the same path twice"),
        ([("t/x", REG, b"x"), ("t/./x", DIR, "")], "no folder can hold"),
        ([("t/l", SYM, "/etc"), ("t/l/x", REG, b"x")], "as a folder"),
        ([("t/x", FIFO, "")], "a device"),
        ([("t/x", REG, b"x"), ("t/y", LNK, "t/x")], "a hard link"),
        ([("t/x", REG, b"x"), ("u/x", REG, b"x")], "t, u/x"),
        ([("t", REG, b"x")], "found: t"),
        ([("t/b", REG, b"x"), ("t/a", REG, b"x")], "(?s)a path after 'b'.*can be unpacked"),
        ([("t/a.x", REG, b"x"), ("t/b", REG, b"x"), ("t/a/y", REG, b"x")], "a path after 'b'"),
        ([], "found: nothing"),
    ],
)
def test_hostile_tarballs_are_refused(members: list[tuple[str, bytes, bytes | str]], found: str) -> None:
    with pytest.raises(PatchforgeError, match=found):
        of_tarball(made(*members), "here")


@pytest.mark.parametrize(
    ("place", "bad"), [(124, b"-1"), (124, b"\x80\0\0\0"), (257, b"ustar  "), (124, b"9" * 11), (100, b"x")]
)
def test_a_damaged_header_is_refused(place: int, bad: bytes) -> None:
    data = made(("t/x", REG, b"x")).getvalue()
    with pytest.raises(PatchforgeError, match="cannot be read as a tarball"):
        of_tarball(io.BytesIO(data[:place] + bad + data[place + len(bad) :]), "here")


@pytest.mark.parametrize("bad", [b"0 ", b"99999 ", b"x "])
def test_a_damaged_extended_header_is_refused(bad: bytes) -> None:
    data = made(("t/" + "x" * 300, REG, b"x")).getvalue()
    assert data[156:157] == b"x"
    with pytest.raises(PatchforgeError, match="cannot be read as a tarball"):
        of_tarball(io.BytesIO(data[:512] + bad + data[512 + len(bad) :]), "here")


def test_an_extended_header_may_not_fill_the_memory() -> None:
    info = tarfile.TarInfo("t/x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    with pytest.raises(PatchforgeError, match="too long a header"):
        of_tarball(io.BytesIO(info.tobuf(tarfile.PAX_FORMAT)), "here")


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
        archive = of_tarball(io.BytesIO(packed(work)), "here")
    finally:
        git(work, "config", "--unset", "tar.umask")
    assert archive == of_tarball(io.BytesIO(packed(work)), "here")


def in_gits_order(*paths: str) -> io.BytesIO:
    """A tarball with a file at each path, its own path in it, and the folders that they are in."""
    folders = {f"{folder}/" for path in paths for folder in PurePosixPath(path).parents[:-1]}
    ordered = sorted({*paths, *folders}, key=str.encode)
    entries = ((f"t/{path}", DIR if path in folders else REG, path.encode()) for path in ordered)
    return made(*((name, kind, data if kind == REG else "") for name, kind, data in entries))


NAMES = (
    st.text("a0-./ é", min_size=1, max_size=4)
    .map(lambda text: text.replace("/", "-"))
    .filter(lambda text: text not in {".", ".."})
)
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), min_size=1, max_size=14, unique=True)


def placed(folder: Path, paths: list[str]) -> list[str]:
    """The paths that can stand beside one another, as files below ``folder`` too."""
    files = [path for path in paths if not any(other.startswith(f"{path}/") for other in paths)]
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path, "utf-8")
    return files


@pytest.mark.parametrize("kept", [0, 2500, tarball._KEPT])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PATHS)
def test_what_gits_order_puts_later_is_waited_for(monkeypatch: pytest.MonkeyPatch, kept: int, paths: list[str]) -> None:
    """In memory, in the temporary file, and first the one and then the other."""
    monkeypatch.setattr(tarball, "_KEPT", kept)
    with tempfile.TemporaryDirectory() as folder:
        files = placed(Path(folder), paths)
        assert of_tarball(in_gits_order(*files), "here").hash == plain_hash(Path(folder))


@pytest.mark.parametrize("kept", [0, 5000, tarball._KEPT])
def test_folders_in_folders_wait_for_one_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: int) -> None:
    monkeypatch.setattr(tarball, "_KEPT", kept)
    monkeypatch.setattr(tarball, "CHUNK", 700)
    names = ("a", "a-", "a-b", "a.b.c", "b")
    paths = [f"{name}/{other}{end}" for name in names for other in names for end in ("/x", ".x", "-/y.z")]
    assert sorted(placed(tmp_path, paths)) == sorted(paths)
    assert of_tarball(in_gits_order(*paths), "here").hash == plain_hash(tmp_path)


def test_a_large_file_that_waits(tmp_path: Path) -> None:
    data = os.urandom(tarball._KEPT + 777)
    (tmp_path / "top" / "big").mkdir(parents=True)
    (tmp_path / "top" / "big.bin").write_bytes(data)
    (tmp_path / "top" / "big" / "x").write_bytes(b"x")
    tar = made(("t/big.bin", REG, data), ("t/big/x", REG, b"x"))
    assert of_tarball(tar, "here").hash == plain_hash(tmp_path / "top")


@pytest.mark.parametrize("name", ["d/{:06}", "{:06}.png", "a-b/{:06}.png", "a-b/c-d/{}-{}"])
def test_memory_does_not_grow_with_the_number_of_files(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for limit in ("_KEPT", "_BLOCK"):
        monkeypatch.setattr(tarball, limit, 1 << 16)

    def peak(count: int) -> int:
        stream = in_gits_order(*(name.format(number, number) for number in range(count)))
        tracemalloc.start()
        try:
            assert of_tarball(stream, "here").files == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(6000) < peak(1000) + (1 << 20)


def test_gzip_is_read_without_isal_too(work: Path) -> None:
    code = (
        "import sys; sys.modules['isal'] = None; from patchforge.hashes import of_tarball, tarball;"
        " assert tarball.gzip.__name__ == 'gzip'; print(of_tarball(sys.stdin.buffer, 'here').hash)"
    )
    packed_work = packed(work, "--format=tar.gz")
    done = subprocess.run([sys.executable, "-c", code], input=packed_work, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.decode().strip() == of_clone(work, head(work)).hash


@pytest.mark.parametrize("place", [-6, -2, 2000])
def test_a_damaged_gzip_is_refused(work: Path, place: int) -> None:
    """Its checksum, its size, or its middle."""
    data = bytearray(packed(work, "--format=tar.gz"))
    data[place] ^= 1
    with pytest.raises(PatchforgeError, match="cannot be read as a tarball"):
        of_tarball(io.BytesIO(bytes(data)), "here")


def test_names_that_differ_in_case_only_also_of_folders() -> None:
    clashing = ("t/A/x", "t/B/README", "t/B/readme", "t/a/x", "t/a/y", "t/c/a", "t/d/A")
    archive = of_tarball(made(*((name, REG, name.encode()) for name in clashing)), "here")
    assert [(note.kind, note.paths) for note in archive.notes] == [("case", ("B/readme", "a"))]
