"""Whole trees: no name leads outside, none stops the rest, and what is not written is said."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchforge import cli, pipeline
from patchforge.errors import CheckFailed, Exit, PatchforgeError
from patchforge.names import unfit
from patchforge.outputs import write_new
from patchforge.sources import FolderTree, MissingBlobError, TarTree
from tests.outputs.world import state
from tests.support import MemoryTree, miniature

ODD = {
    "absolute": ["/etc/passwd"],
    "two slashes": ["//server/share"],
    "up": ["../x"],
    "up inside": ["a/../../x"],
    "up at the end": ["a/.."],
    "here": ["./a"],
    "nothing": [""],
    "empty part": ["a//b"],
    "ends with a slash": ["a/"],
    "backslash": ["..\\..\\x"],
    "drive": ["C:\\x", "C:x"],
    "stream": ["a.py:hidden"],
    "wildcard": ["a?.py", "a*.py", 'a".py', "a<b.py", "a|b.py"],
    "control": ["a\nb.py", "a\x1b[31m.py", "a\x00b", "a\x7f"],
    "not UTF-8": ["a\udcff.py"],
    "device": ["con", "NUL.txt", "comfy/aux.py", "com1", "LPT9.tar.gz", "prn .txt", "com²", "CONOUT$"],
    "dot or space at the end": ["a.", "a ", "folder./x", "folder /x"],
    "git": [".git/config", ".GIT/hooks/post-checkout", "a/.git/config", ".g\u200cit/config", "git~1/config"],
    "long": ["x" * 256, "ä" * 128, "/".join("y" * 200 for _ in range(6))],
    "case": ["Main.py", "MAIN.PY"],
    "Unicode": ["caf\u00e9.py", "cafe\u0301.py"],
    "not seen": ["main.py", "ma\u200cin.py"],
    "case and Unicode": ["\u00c9.py", "e\u0301.py"],
    "file and folder": ["a", "a/b"],
    "file and folder by case": ["B", "b/c"],
}
PAIRS = {
    "case",
    "Unicode",
    "not seen",
    "case and Unicode",
    "file and folder",
    "file and folder by case",
}  #: whose first is written


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_is_left_out_and_said(kind: str, tmp_path: Path) -> None:
    tree = MemoryTree({**dict.fromkeys(ODD[kind], b"odd"), "good/one.py": b"good", "zwei.py": b"good"})
    left_out = pipeline.write_whole(tree, tmp_path / "deep" / "out")
    expected = sorted(ODD[kind])[1:] if kind in PAIRS else sorted(ODD[kind])
    assert [skipped.path for skipped in left_out] == expected
    assert all(skipped.reason for skipped in left_out)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    kept = sorted(set(ODD[kind]) - set(expected))
    assert written == {f"deep/out/{name}" for name in ("good/one.py", "zwei.py", *kept)}


PLAIN = "comfy/model.py|.github/x.yml|.gitignore|a b.py|\u00fcn\u00ef/\u00e7o.py|conx|auxiliary.py|.x|git~x|a+b,c.py"


@pytest.mark.parametrize("name", PLAIN.split("|"))
def test_what_is_not_odd(name: str) -> None:
    assert unfit([name]) == {}


@given(st.lists(st.text(alphabet=st.sampled_from("aA./\\:éÉe\u0301\u200c ~git"), max_size=8), max_size=6, unique=True))
def test_what_is_fit_stays_inside_and_apart(names: Sequence[str]) -> None:
    fit = [name for name in names if name not in unfit(names)]
    for name in fit:
        assert not name.startswith("/")
        assert not {"", ".", ".."} & set(name.split("/"))
        assert "\\" not in name
    assert len({name.casefold() for name in fit}) == len(fit)
    assert unfit(fit) == {}


def test_a_patched_file_is_never_left_out(tmp_path: Path) -> None:
    tree = pipeline.OverlayTree(MemoryTree({"a": b"1"}), {"a/b.py": b"2"})
    with pytest.raises(CheckFailed, match=r"a/b\.py cannot be written"):
        pipeline.write_whole(tree, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_modes_come_with_the_files(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, mode in (("run.sh", 0o755), ("a.py", 0o644), ("suid", 0o4755)):
            member = tarfile.TarInfo(f"top/{name}")
            member.size, member.mode = 1, mode
            archive.addfile(member, BytesIO(b"1"))
    pipeline.write_whole(TarTree(path), tmp_path / "out")
    modes = {entry.name: entry.stat().st_mode & 0o7777 for entry in (tmp_path / "out").iterdir()}
    assert modes["a.py"] & 0o111 == 0
    assert modes["run.sh"] & 0o100
    assert modes["suid"] & 0o7000 == 0


@pytest.mark.parametrize("gone", [["README.md"], ["README.md", "requirements.txt"]])
def test_a_tree_that_is_not_whole_has_a_status_of_its_own(
    gone: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FolderTree.read

    def lacking(tree: FolderTree, path: str) -> bytes:
        if path in gone:
            raise MissingBlobError(path, "0" * 40)
        return read(tree, path)

    source = tmp_path / "ComfyUI"
    write_new(source, {**miniature("v0.33.0"), "README.md": b"read me\n", "requirements.txt": b"torch\n"})
    command = ["apply", "--from", str(source), "--to"]
    with monkeypatch.context() as partial:
        partial.setattr(FolderTree, "read", lacking)
        assert cli.main([*command, str(tmp_path / "out")]) == Exit.UNCHECKED
    said = capsys.readouterr().out.splitlines()
    assert f"NOT WHOLE: without {len(gone)} file(s)" in said[-1]
    assert {line.split()[1] for line in said if line.startswith("missing: ")} == set(gone)
    assert cli.main([*command, str(tmp_path / "whole")]) == Exit.OK
    whole = capsys.readouterr().out
    assert str(tmp_path / "whole") in whole
    assert "NOT WHOLE" not in whole


def test_the_command_says_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ComfyUI.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in {**miniature("v0.33.0"), "comfy/aux.py": b"x = 1\n", "odd\x1b[2J.md": b"x"}.items():
            member = tarfile.TarInfo(f"ComfyUI/{name}")
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    assert cli.main(["apply", "--from", str(path), "--to", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "missing: comfy/aux.py (the name of a device on Windows)" in said
    assert "\x1b" not in said
    assert cli.main(["apply", "--from", str(path), "--to", str(tmp_path / "out"), "--json"]) == 0, "it is that already"
    assert json.loads(capsys.readouterr().out)["missing"] == ["comfy/aux.py", r"odd\x1b[2J.md"]
    (tmp_path / "out" / "main.py").write_bytes(b"mine")
    before = state(tmp_path / "out")
    assert cli.main(["apply", "--from", str(path), "--to", str(tmp_path / "out")]) == 2
    assert state(tmp_path / "out") == before


def test_a_tree_of_many_files_takes_seconds(tmp_path: Path) -> None:
    tree = MemoryTree({f"d{number % 100}/e{number % 1000}/f{number}.txt": b"x" for number in range(5_000)})
    import time

    begun = time.process_time()
    pipeline.write_whole(tree, tmp_path / "out")
    assert time.process_time() - begun < 20
    assert sum(1 for path in (tmp_path / "out").rglob("*.txt")) == 5_000


def test_a_deep_tree_stays_writable(tmp_path: Path) -> None:
    tree = MemoryTree({"/".join("d" for _ in range(90)) + "/x": b"1"})
    assert pipeline.write_whole(tree, tmp_path / "out") == []


def test_a_collision_that_only_this_disk_sees_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchforge.pipeline.unfit", lambda _: {})
    with pytest.raises((PatchforgeError, OSError)):
        pipeline.write_whole(MemoryTree({"a": b"1", "a/b": b"2"}), tmp_path / "out")
    assert not list(tmp_path.iterdir())
