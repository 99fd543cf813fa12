"""What a GitHub archive holds, against git's own: attributes, LFS, submodules, incomplete clones (pitfalls 1 to 9)."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import IncompleteTreeError, of_checkout, of_clone, of_folder
from patchforge.sources import MissingBlobError
from patchforge.vocabulary import git_blob_id
from tests.hashes.test_judges import ENVIRONMENT, archived, commit, git, head, judged, repository

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"1" * 64 + b"\nsize 12345\n"
PLAIN: dict[str, bytes | Path] = {
    "a/b": b"one\n",
    "a-b": b"two\n",
    "a.py": b"three\r\n",
    "run.sh": b"#!/bin/sh\n",
    "link": Path("no/where//"),
    "ü ' \" $(x)\n": b"name\n",
    "Case": b"1",
    "binary": bytes(range(256)),
    "empty": b"",
}
TEXT = b"one\ntwo\n"
MINIATURES: dict[str, tuple[dict[str, bytes | Path], str]] = {
    "plain": (PLAIN, "git objects"),
    "harmless": ({**PLAIN, ".gitattributes": b"* text=auto eol=lf\n*.py linguist-vendored\n"}, "git objects"),
    "lfs": ({"big.bin": POINTER, ".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n"}, "git objects"),
    "export-ignore-file": ({**PLAIN, ".gitattributes": b"a.py export-ignore\n.gitattributes export-ignore\n"}, ""),
    "export-ignore-folder": ({**PLAIN, "a/.gitattributes": b"b export-ignore\n"}, ""),
    "export-ignore-undone": ({**PLAIN, ".gitattributes": b"a.py export-ignore\n*.py -export-ignore\n"}, ""),
    "export-subst": (
        {"v": b"$Format:%H %an %ct %s$\n", "w": b"$Format:%H$\n", ".gitattributes": b"v export-subst"},
        "",
    ),
    "crlf": ({"t.txt": TEXT, "b.bin": b"\0\n", "m.txt": b"a\r\nb\n", ".gitattributes": b"* text=auto eol=crlf\n"}, ""),
    "crlf-spaced": ({"t.txt": TEXT, ".gitattributes": b"*.txt text\teol=crlf\n"}, ""),
    "ident": ({"t.txt": b"$Id$\n", ".gitattributes": b"*.txt ident\n"}, ""),
    "encoding": ({"t.txt": TEXT, ".gitattributes": b"*.txt text working-tree-encoding=UTF-16LE\n"}, ""),
    "macro": ({"t.txt": TEXT, "u": TEXT, ".gitattributes": b"[attr]gone export-ignore\n*.txt gone\n"}, ""),
    "inner-attributes": ({"x/t.txt": TEXT, "u": TEXT, "x/.gitattributes": b"*.txt eol=crlf\n"}, ""),
}


def loose(work: Path, blob: str) -> Path:
    return work / ".git" / "objects" / blob[:2] / blob[2:]


@pytest.mark.parametrize("name", MINIATURES)
def test_hash_is_that_of_the_unpacked_archive(name: str, tmp_path: Path) -> None:
    files, source = MINIATURES[name]
    work = repository(tmp_path / "work", files)
    archive = of_clone(work, head(work))
    out = archived(work, tmp_path / "out")
    assert archive.hash == judged(out) == of_folder(out).hash
    assert archive.source == (source or "git archive")
    assert archive.files == sum(not path.is_symlink() and path.is_file() for path in out.rglob("*"))


def test_a_bare_clone_packed_or_not_is_the_same(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", PLAIN)
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "-q", "--bare", str(work), str(bare))
    git(bare, "gc", "-q")
    git(work, "worktree", "add", "-q", "--detach", str(tmp_path / "other"))
    assert of_clone(work, head(work)) == of_clone(bare, head(work)) == of_clone(tmp_path / "other", head(work))


def test_a_borrowing_clone_will_do(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", PLAIN)
    git(tmp_path, "clone", "-q", "--shared", str(work), "borrower")
    assert of_clone(tmp_path / "borrower", head(work)) == of_clone(work, head(work))


@pytest.mark.parametrize("name", ["plain", "lfs", "crlf", "export-subst"])
def test_settings_of_the_user_and_the_clone_play_no_part(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = repository(tmp_path / "work", MINIATURES[name][0])
    before = of_clone(work, head(work))
    mine = tmp_path / "mine"
    mine.write_text("* text eol=crlf\n*.py export-ignore\n* export-subst filter=shout\n")
    for where in (work / ".git" / "config", tmp_path / "gitconfig"):
        with where.open("a") as config:
            config.write(f"[core]\n\tautocrlf = true\n\teol = crlf\n\tattributesFile = {mine}\n")
            config.write('[filter "lfs"]\n\tsmudge = tr a-z A-Z\n\trequired = true\n[tar]\n\tumask = 0777\n')
            config.write('[filter "shout"]\n\tsmudge = tr a-z A-Z\n')
    (work / ".git" / "info" / "attributes").write_text(mine.read_text())
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.autocrlf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    git(work, "tag", "another")
    assert of_clone(work, head(work)) == before
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert of_clone(work, git(work, "rev-parse", "another")) == before


def test_replacement_objects_play_no_part(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", PLAIN)
    before = of_clone(work, head(work))
    blob, other = git(work, "rev-parse", "HEAD:a-b", "HEAD:a.py").split()
    git(work, "replace", blob, other)
    assert of_clone(work, head(work)) == before


@pytest.mark.parametrize(
    "placeholder",
    ["%h", "%t", "%p", "%d", "%D", "%+d", "%S", "%N", "%GK", "%ar", "%ch", "%aN", "%(describe)", "%(describe:tags=1)"],
)
def test_expansions_that_change_with_time_are_refused(placeholder: str, tmp_path: Path) -> None:
    files = {"version": f"$Format:%H {placeholder}$\n".encode(), ".gitattributes": b"version export-subst\n"}
    work = repository(tmp_path / "work", files)
    with pytest.raises(PatchforgeError, match=r"(?s)changes with time.*version: %.*fetchgit") as caught:
        of_clone(work, head(work))
    assert placeholder.partition(":")[0].rstrip(")") in str(caught.value)


@pytest.mark.parametrize("text", ["$Format:%H%%h %n%x41%T%P%cI%aE$".replace("%aE", "%ae"), "$Format:%h", "%h"])
def test_expansions_that_stay_are_computed(text: str, tmp_path: Path) -> None:
    work = repository(tmp_path / "work", {"v": text.encode(), ".gitattributes": b"v export-subst\n"})
    assert of_clone(work, head(work)).hash == judged(archived(work, tmp_path / "out"))


def test_a_tag_changes_what_d_gives_and_not_what_we_give(tmp_path: Path) -> None:
    """The reason for refusing %d: one commit, two archives."""
    files = {"v": b"$Format:%d$\n", "w": b"$Format:%H$\n", ".gitattributes": b"v export-subst\nw export-subst\n"}
    work = repository(tmp_path / "work", files)
    before = judged(archived(work, tmp_path / "before"))
    git(work, "tag", "v1.0")
    assert judged(archived(work, tmp_path / "after")) != before


def test_unstable_text_without_the_attribute_is_only_text(tmp_path: Path) -> None:
    files = {"x": b"$Format:%d$\n", "y": b"$Format:%H$\n", ".gitattributes": b"y export-subst\n"}
    work = repository(tmp_path / "work", files)
    assert of_clone(work, head(work)).hash == judged(archived(work, tmp_path / "out"))


def test_what_export_ignore_leaves_out_is_noted(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", {**PLAIN, ".gitattributes": b"a export-ignore\na-b export-ignore\n"})
    (note,) = of_clone(work, head(work)).notes
    assert (note.kind, set(note.paths)) == ("export-ignore", {"a/b", "a-b"})


def test_pointers_of_lfs_are_noted(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", {"big.bin": POINTER, "no.bin": POINTER + b"x" * 1024, "small": b"x"})
    (note,) = of_clone(work, head(work)).notes
    assert (note.kind, note.paths) == ("lfs", ("big.bin",))
    assert "fetchgit" in note.text


def test_names_that_differ_in_case_are_noted(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", {"Readme": b"1", "readme": b"2", "x/readme": b"3"})
    (note,) = of_clone(work, head(work)).notes
    assert (note.kind, note.paths) == ("case", ("readme",))


@pytest.mark.parametrize("attributes", [b"", b"a.py export-ignore\n"])
def test_submodules_are_empty_folders_and_noted(attributes: bytes, tmp_path: Path) -> None:
    work = repository(tmp_path / "work", {**PLAIN, ".gitattributes": attributes or b"#\n"})
    for path in ("a/module", "zz/last", "0first"):
        git(work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{path}")
    git(work, "commit", "-q", "-m", "modules")
    archive = of_clone(work, head(work))
    assert archive.hash == judged(archived(work, tmp_path / "out"))
    assert set(archive.notes[0].paths) == {"a/module", "zz/last", "0first"}
    assert "fetchSubmodules" in archive.notes[0].text


def test_a_checkout_has_its_submodules_and_what_export_ignore_names(tmp_path: Path) -> None:
    deep = repository(tmp_path / "deep", {"d": b"deep"})
    inner = repository(tmp_path / "inner", {"i": b"inner", "z": b"#!/bin/sh\n"})
    git(inner, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(deep), "lib")
    commit(inner, {})
    work = repository(tmp_path / "work", {**PLAIN, ".gitattributes": b"a.py export-ignore\n"})
    git(work, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "m/inner")
    git(work, "-c", "protocol.file.allow=always", "submodule", "update", "-q", "--init", "--recursive")
    commit(work, {})
    clones = {"m/inner": inner, "m/inner/lib": deep}
    archive = of_checkout(work, head(work), clones)
    for path in sorted(work.rglob(".git"), reverse=True):
        subprocess.run(["rm", "-rf", path], check=True) if path != work / ".git" else None
    (work / ".git").rename(tmp_path / "taken-away")
    assert archive.hash == judged(work)
    assert archive.hash != of_clone(tmp_path / "taken-away", git(tmp_path / "taken-away", "rev-parse", "HEAD")).hash


def test_a_checkout_without_its_submodule_is_refused(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", PLAIN)
    with pytest.raises(PatchforgeError, match="no such submodule"):
        of_checkout(work, head(work), {"x": work})
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    git(work, "commit", "-q", "-m", "module")
    with pytest.raises(PatchforgeError, match=rf"(?s)submodule module is not at hand.*{'1' * 40}.*--submodule module="):
        of_checkout(work, head(work), {})
    converting = repository(tmp_path / "crlf", {".gitattributes": b"* eol=crlf\n"})
    with pytest.raises(PatchforgeError, match="converts content"):
        of_checkout(converting, head(converting), {})


@pytest.mark.parametrize("attributes", [b"#\n", b"run.sh eol=crlf\n", b"run.sh export-subst\n"])
def test_every_missing_blob_is_named(attributes: bytes, tmp_path: Path) -> None:
    work = repository(tmp_path / "work", {**PLAIN, ".gitattributes": attributes})
    missing = {path: git_blob_id(bytes(PLAIN[path])) for path in ("a/b", "run.sh")}
    for blob in missing.values():
        loose(work, blob).unlink()
    with pytest.raises(IncompleteTreeError) as caught:
        of_clone(work, head(work))
    assert caught.value.missing == missing
    assert isinstance(caught.value, MissingBlobError)
    assert all(path in str(caught.value) and blob in str(caught.value) for path, blob in missing.items())


def test_a_missing_file_of_attributes_is_named(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", {**PLAIN, ".gitattributes": b"a.py export-ignore\n"})
    loose(work, git_blob_id(b"a.py export-ignore\n")).unlink()
    loose(work, git_blob_id(b"one\n")).unlink()
    with pytest.raises(IncompleteTreeError) as caught:
        of_clone(work, head(work))
    assert caught.value.missing.keys() == {".gitattributes", "a/b"}


def test_content_that_export_ignore_leaves_out_may_be_missing(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", {**PLAIN, ".gitattributes": b"a.py export-ignore\n"})
    before = of_clone(work, head(work))
    loose(work, git_blob_id(b"three\r\n")).unlink()
    assert of_clone(work, head(work)) == before


def test_a_partial_clone_is_refused_and_not_completed(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", PLAIN)
    git(work, "config", "uploadpack.allowFilter", "true")
    git(work, "config", "uploadpack.allowAnySHA1InWant", "true")
    part = tmp_path / "part.git"
    git(tmp_path, "clone", "-q", "--bare", "--filter=blob:none", work.as_uri(), str(part))
    before = sorted(part.rglob("*.pack"))
    with pytest.raises(IncompleteTreeError) as caught:
        of_clone(part, head(work))
    assert caught.value.missing.keys() == PLAIN.keys()
    assert sorted(part.rglob("*.pack")) == before


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", PLAIN)
    tree = git(work, "rev-parse", "HEAD:a")
    loose(work, tree).unlink()
    with pytest.raises(PatchforgeError, match=tree):
        of_clone(work, head(work))


@pytest.mark.parametrize("attributes", [b"#\n", b"x eol=crlf\n"])
def test_a_damaged_blob_gives_no_hash(attributes: bytes, tmp_path: Path) -> None:
    work = repository(tmp_path / "work", {**PLAIN, ".gitattributes": attributes, "rand": os.urandom(9000)})
    blob = loose(work, git(work, "rev-parse", "HEAD:rand"))
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:5000])
    with pytest.raises(PatchforgeError):
        of_clone(work, head(work))


def test_modes_that_early_git_wrote(tmp_path: Path) -> None:
    """With a zero in front, and with a group's permission to write."""
    work = repository(tmp_path / "work", PLAIN)
    inner, blob = (bytes.fromhex(git(work, "rev-parse", f"HEAD:{path}")) for path in ("a", "run.sh"))
    tree = b"100664 file\0" + blob + b"040000 folder\0" + inner + b"100775 run.sh\0" + blob
    command = ["git", "-C", str(work), "hash-object", "-t", "tree", "-w", "--literally", "--stdin"]
    oid = subprocess.run(command, env=ENVIRONMENT, input=tree, capture_output=True, check=True).stdout.decode().strip()
    git(work, "update-ref", "HEAD", git(work, "commit-tree", "-m", "an early commit", oid))
    archive = of_clone(work, head(work))
    assert (archive.files, archive.hash) == (3, judged(archived(work, tmp_path / "out")))


def test_an_empty_commit_has_no_hash(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", {})
    with pytest.raises(CheckFailed, match="cannot be the hash of a source"):
        of_clone(work, head(work))


def test_a_folder_that_is_a_checkout_is_refused(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", PLAIN)
    with pytest.raises(PatchforgeError, match="not an unpacked archive"):
        of_folder(work)
    with pytest.raises(PatchforgeError, match="no such folder"):
        of_folder(tmp_path / "nowhere")


def test_a_folder_that_is_no_clone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchforgeError, match="not a git repository"):
        of_clone(tmp_path, "1" * 40)


def test_many_files_and_a_large_one(tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {f"d{number % 7}/f{number}": b"%d" % number for number in range(3000)}
    work = repository(tmp_path / "work", {**files, "large": bytes(3 << 20), "random": os.urandom(3 << 20)})
    archive = of_clone(work, head(work))
    assert archive.hash == judged(archived(work, tmp_path / "out"))
    git(work, "gc", "-q")
    assert of_clone(work, head(work)) == archive


def test_memory_does_not_grow_with_the_number_of_folders(tmp_path: Path) -> None:
    def peak(folders: int) -> int:
        files: dict[str, bytes | Path] = {f"{number % folders}/{number}": b"x" for number in range(folders * 50)}
        work = repository(tmp_path / str(folders), files)
        tracemalloc.start()
        try:
            assert of_clone(work, head(work)).files == len(files)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(80) < peak(8) + (1 << 19)
