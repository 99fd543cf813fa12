from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from patchforge.errors import PatchforgeError
from patchforge.sources import Skipped, TarTree, tarball
from patchforge.vocabulary import Entry, git_blob_id

if TYPE_CHECKING:
    from pathlib import Path

Member = tuple[tarfile.TarInfo, bytes]
FILES = {"top/main.py": b"x = 1\r\n", "top/comfy/model.py": b"\x00\xff\n", "top/empty": b""}


def member(name: str, data: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def pack(path: Path, *members: Member, mode: Any = "w:gz") -> TarTree:
    with tarfile.open(path, mode) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return TarTree(path)


def plain(files: dict[str, bytes] = FILES) -> list[Member]:
    return [member(name, data) for name, data in files.items()]


@pytest.mark.parametrize(("name", "mode"), [("r.tar.gz", "w:gz"), ("r.tar", "w:")])
def test_top_folder_is_left_off(tmp_path: Path, name: str, mode: str) -> None:
    tree = pack(tmp_path / name, *plain(), mode=mode)
    assert list(tree.entries()) == ["comfy/model.py", "empty", "main.py"]
    assert tree.entries()["main.py"] == Entry("main.py", git_blob_id(b"x = 1\r\n"))
    assert tree.read("comfy/model.py") == b"\x00\xff\n"
    assert tree.commit == ""


def test_without_one_top_folder_paths_stay(tmp_path: Path) -> None:
    tree = pack(tmp_path / "r.tar", *plain({"./main.py": b"1", "./comfy/a.py": b"2"}), mode="w:")
    assert list(tree.entries()) == ["comfy/a.py", "main.py"]


def test_same_as_git_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for data, file in ((b"#!/bin/sh\n", "run.sh"), (b"a\r\nb", "crlf.py")):
        (tmp_path / file).write_bytes(data)
    (tmp_path / "run.sh").chmod(0o755)
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    archive = ["archive", "--prefix=ComfyUI-0.3.47/", "-o", "r.tar.gz", "HEAD"]
    subprocess.run(["git", "-C", tmp_path, *archive], check=True)
    head = subprocess.run(["git", "-C", tmp_path, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    tree = TarTree(tmp_path / "r.tar.gz")
    assert tree.commit == head.stdout.strip()
    assert tree.entries() == {
        "crlf.py": Entry("crlf.py", git_blob_id(b"a\r\nb")),
        "run.sh": Entry("run.sh", git_blob_id(b"#!/bin/sh\n"), 0o100755),
    }


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../outside.py", "top/../../outside.py", "top/..", "C:\\outside.py", "top\\..\\..\\x"]
)
def test_paths_outside_are_refused(tmp_path: Path, name: str) -> None:
    tree = pack(tmp_path / "r.tar.gz", *plain(), member(name, b"x"))
    with pytest.raises(PatchforgeError, match="names a path outside itself"):
        tree.entries()


def test_links_and_devices_are_set_aside_and_not_followed(tmp_path: Path) -> None:
    tree = pack(
        tmp_path / "r.tar.gz",
        *plain(),
        member("top/soft", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("top/hard", type=tarfile.LNKTYPE, linkname="top/main.py"),
        member("top/pipe", type=tarfile.FIFOTYPE),
        member("top/folder", type=tarfile.DIRTYPE),
    )
    assert tree.skipped == (Skipped("hard", "link"), Skipped("pipe", "not a file"), Skipped("soft", "link"))
    assert len(tree.entries()) == 3
    with pytest.raises(KeyError):
        tree.read("soft")


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    tree = pack(tmp_path / "r.tar.gz", *plain(), member("./top/main.py", b"other"))
    with pytest.raises(PatchforgeError, match=r"top/main\.py twice"):
        tree.entries()


def test_what_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarball, "MOST_BYTES", 5)
    with pytest.raises(PatchforgeError, match="more than 5 bytes"):
        pack(tmp_path / "r.tar.gz", *plain()).entries()


@pytest.mark.parametrize("keep", [10, 60, 4000])
@pytest.mark.parametrize("packed", [True, False])
def test_cut_short_is_refused(tmp_path: Path, keep: int, packed: bool) -> None:
    path = tmp_path / "r.tar"
    noise = bytes(range(256)) * 40
    pack(path, member("top/big.bin", noise), mode="w:")
    whole = gzip.compress(path.read_bytes(), 0) if packed else path.read_bytes()
    path.write_bytes(whole[:keep])
    with pytest.raises(PatchforgeError, match="cannot be read as a tarball"):
        TarTree(path).entries()


def test_absent_or_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>not found</html>")
    for name, why in (("page.html", "cannot be read as a tarball"), ("nothing.tar.gz", "is not there")):
        with pytest.raises(PatchforgeError, match=why):
            TarTree(tmp_path / name).entries()
