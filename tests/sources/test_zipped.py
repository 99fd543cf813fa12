"""Releases as ZIP archives: GitHub's default download, and archives that strangers made."""

import io
import re
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge.cli import main
from patchforge.errors import Damaged, PatchforgeError
from patchforge.sources import FolderTree, Skipped, TarTree, ZipTree, open_files, zipped
from patchforge.vocabulary import Entry, git_blob_id
from tests.checkout.places import fill
from tests.support import miniature

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"top/main.py": b"x = 1\r\n", "top/comfy/model.py": b"\x00\xff\n", "top/empty": b""}


def member(name: str, mode: int = 0, system: int = 0) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr, made.create_system, made.compress_type = mode << 16, system, zipfile.ZIP_DEFLATED
    return made


def packed(*more: tuple[zipfile.ZipInfo, bytes], comment: str = "", files: dict[str, bytes] = FILES) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in [*((member(name), data) for name, data in files.items()), *more]:
            archive.writestr(info, data)
        archive.comment = comment.encode()
    return out.getvalue()


def tree(folder: Path, data: bytes) -> ZipTree:
    (folder / "r.zip").write_bytes(data)
    return ZipTree(folder / "r.zip")


def test_as_github_makes_them(tmp_path: Path) -> None:
    odd = [
        (member("top/run.sh", 0o100755, 3), b"#!/bin/sh\n"),
        (member("top/soft", 0o120777, 3), b"/etc/passwd"),
        (member("top/pipe", 0o010644, 3), b""),
        (member("top/folder/"), b""),
        (member("top/a\\b.py"), b""),
    ]
    made = tree(tmp_path, packed(*odd, comment=COMMIT))
    assert made.entries()["main.py"] == Entry("main.py", git_blob_id(b"x = 1\r\n"))
    assert made.entries()["run.sh"].mode == 0o100755
    assert sorted(made.entries()) == ["comfy/model.py", "empty", "main.py", "run.sh"]
    assert made.read("comfy/model.py") == b"\x00\xff\n"
    assert made.skipped == (
        Skipped("a\\b.py", "a backslash in its name"),
        Skipped("pipe", "not a file"),
        Skipped("soft", "link"),
    )
    assert made.commit == COMMIT


def test_the_same_as_git_archive(tmp_path: Path) -> None:
    """Git archive makes what GitHub gives, and both of its formats are one tree."""
    clone = fill(tmp_path / "clone", {"main.py": b"x = 1\n", "a/run.sh": b"#!/bin/sh\n"})
    (clone / "a/run.sh").chmod(0o755)
    (clone / "link").symlink_to("main.py")
    git = ["git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    for name in ("r.zip", "r.tar.gz"):
        subprocess.run([*git, "archive", "--prefix=top/", "-o", str(tmp_path / name), "HEAD"], check=True)
    archive, other = (open_files(tmp_path / name) for name in ("r.zip", "r.tar.gz"))
    assert isinstance(archive, ZipTree)
    assert isinstance(other, TarTree)
    assert archive.entries() == other.entries()
    assert archive.skipped == other.skipped
    assert archive.commit == other.commit != ""


def _encrypted(data: bytes) -> bytes:
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(signature) + at
        data = data[:place] + b"\x01" + data[place + 1 :]
    return data


def _bomb(data: bytes) -> bytes:
    """A member that says it is small."""
    at = data.index(b"PK\x01\x02") + 24
    return data[:at] + struct.pack("<I", 3) + data[at + 4 :]


def _shared(data: bytes) -> bytes:
    """Two members that are one, as in a bomb whose members lie in each other."""
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    return data[: second + 42] + data[first + 42 : first + 46] + data[second + 46 :]


HARM: dict[str, tuple[bytes, str]] = {
    "outside": (packed((member("../evil.py"), b"")), "names a path outside itself"),
    "absolute": (packed((member("/etc/evil.py"), b"")), "names a path outside itself"),
    "drive": (packed((member("C:/evil.py"), b"")), "names a path outside itself"),
    "twice": (packed((member("./top/main.py"), b"other")), r"top/main\.py twice"),
    "capitals": (packed((member("top/MAIN.py"), b"other")), "is not a release's archive"),
    "file and folder": (packed((member("top/main.py/x"), b"other")), "as a folder and as something else"),
    "password": (_encrypted(packed()), "it is locked with a password"),
    "says less": (_bomb(packed()), "cannot be read as a ZIP archive"),
    "shared": (_shared(packed()), "share their bytes|cannot be read"),
    "cut": (packed()[:-30], "cannot be read as a ZIP archive"),
    "before": (b"#!/bin/sh\n" + packed(), "something comes before"),
    "behind": (packed() + b"more", "something comes before"),
}


@pytest.mark.parametrize("name", list(HARM))
def test_harm_is_one_sentence(tmp_path: Path, name: str) -> None:
    data, said = HARM[name]
    with pytest.raises(Damaged) as told:
        tree(tmp_path, data).entries()
    assert re.search(said, str(told.value)), told.value


@pytest.mark.parametrize(
    ("limit", "harm"),
    [
        ("MOST_BYTES", lambda: packed(files={"a": b"0" * 4, "b": b"0" * 4})),
        ("MOST_MEMBERS", lambda: packed(files={f"f{number}": b"" for number in range(9)})),
    ],
)
def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, harm: Callable[[], bytes]) -> None:
    monkeypatch.setattr(zipped, limit, 6)
    with pytest.raises(Damaged, match="more than 6"):
        tree(tmp_path, harm()).entries()


def test_what_a_path_leads_to_is_told_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "release.tar.gz").write_bytes(packed())
    assert isinstance(open_files(tmp_path / "release.tar.gz"), ZipTree)
    assert isinstance(open_files(tmp_path), FolderTree)
    with pytest.raises(PatchforgeError, match="is not there"):
        open_files(tmp_path / "none.zip")


def test_a_release_is_patched_from_its_zip_without_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    files = {f"ComfyUI-0.33.0/{path}": data for path, data in miniature("v0.33.0").items()}
    (tmp_path / "ComfyUI-0.33.0.zip").write_bytes(packed(files=files, comment=COMMIT))
    target = tmp_path / "ComfyUI-intel"
    assert main(["apply", "--from", str(tmp_path / "ComfyUI-0.33.0.zip"), "--to", str(target)]) == 0
    assert (target / "comfy/patchforge_xpu/__init__.py").is_file()
    assert COMMIT[:12] in capsys.readouterr().out
