from __future__ import annotations

import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from patchforge.errors import PatchforgeError
from patchforge.sources import GitObjects, GitTree, MissingBlobError, Skipped
from patchforge.vocabulary import Entry, git_blob_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BYTES = {
    "crlf.py": b"x = 1\r\ny = 2\r\n",
    "binary.bin": bytes(range(256)) * 3,
    "empty.py": b"",
    "no-newline.py": b"\xef\xbb\xbfx = 1",
    "a/b.py": b"deep\n",
    "a-b.py": b"sorts before a/\n",
    "a.py": b"sorts before a/ as well\n",
    "with space/\u00fcml\u00e4ut.py": b"name\n",
    "looks like git.txt": b"0123456789012345678901234567890123456789 blob 12\n",
}


@pytest.fixture(autouse=True)
def only_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "someone@example.org")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "master")
    for path, data in BYTES.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("a.py")
    git(folder, "add", ".")
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def tree(work: Path) -> Iterator[GitTree]:
    with GitObjects(work) as objects:
        yield GitTree(objects, git(work, "rev-parse", "HEAD"))


def loose(repository: Path, oid: str) -> Path:
    return repository / ".git" / "objects" / oid[:2] / oid[2:]


def test_bytes_are_those_committed(tree: GitTree) -> None:
    assert {path: tree.read(path) for path in BYTES} == BYTES


def test_entries_are_those_of_git_in_order_of_path(tree: GitTree, work: Path) -> None:
    lines = git(work, "ls-tree", "-r", "-z", "HEAD").rstrip("\0").split("\0")
    listed = {path: meta.split() for meta, path in (line.split("\t") for line in lines)}
    regular = {path: (blob, int(mode, 8)) for path, (mode, kind, blob) in listed.items() if mode.startswith("100")}
    assert {path: (entry.blob, entry.mode) for path, entry in tree.entries().items()} == regular
    assert list(tree.entries()) == sorted(tree.entries())
    assert tree.entries()["run.sh"].mode == 0o100755
    assert all(tree.entries()[path].blob == git_blob_id(data) for path, data in BYTES.items())


def test_links_and_submodules_are_set_aside_with_their_reason(tree: GitTree) -> None:
    assert tree.skipped == (Skipped("link", "symbolic link"), Skipped("module", "submodule"))
    assert not {"link", "module"} & tree.entries().keys()


def test_absent_file_is_a_key_error(tree: GitTree) -> None:
    with pytest.raises(KeyError):
        tree.read("nowhere.py")


def test_missing_blob_is_an_error_only_when_read(tree: GitTree, work: Path) -> None:
    blob = git_blob_id(BYTES["crlf.py"])
    loose(work, blob).unlink()
    assert tree.entries()["crlf.py"] == Entry("crlf.py", blob)
    with pytest.raises(MissingBlobError) as caught:
        tree.read("crlf.py")
    assert (caught.value.path, caught.value.blob) == ("crlf.py", blob)
    assert tree.read("a.py") == BYTES["a.py"]


def test_damaged_blob_says_so_and_the_next_read_works(tree: GitTree, work: Path) -> None:
    file = loose(work, git_blob_id(BYTES["crlf.py"]))
    file.chmod(0o644)
    file.write_bytes(b"no zlib here")
    with pytest.raises(MissingBlobError, match=r"corrupt|unable|inflate|missing"):
        tree.read("crlf.py")
    assert tree.read("a.py") == BYTES["a.py"]


def test_partial_clone_is_never_completed_behind_our_back(work: Path, tmp_path: Path) -> None:
    git(work, "config", "uploadpack.allowFilter", "true")
    git(work, "config", "uploadpack.allowAnySHA1InWant", "true")
    part = tmp_path / "part.git"
    git(tmp_path, "clone", "-q", "--bare", "--filter=blob:none", work.as_uri(), str(part))
    before = sorted(part.rglob("*.pack"))
    with GitObjects(part) as objects:
        tree = GitTree(objects, objects.commit("HEAD") or "")
        assert BYTES.keys() <= tree.entries().keys()
        for path in ("a.py", "crlf.py"):
            with pytest.raises(MissingBlobError):
                tree.read(path)
    assert sorted(part.rglob("*.pack")) == before


def test_missing_folder_is_told_from_a_missing_file(tree: GitTree, work: Path) -> None:
    loose(work, git(work, "rev-parse", "HEAD:a")).unlink()
    with pytest.raises(PatchforgeError, match="cannot be listed"):
        tree.entries()


def test_commit_of_every_kind_of_name(work: Path) -> None:
    head = git(work, "rev-parse", "HEAD")
    git(work, "tag", "light")
    git(work, "tag", "-a", "-m", "note", "annotated")
    git(work, "tag", "-a", "-m", "note", "twice", "annotated")
    with GitObjects(work) as objects:
        for name in (head, head[:7], "HEAD", "master", "light", "annotated", "twice", "refs/tags/twice"):
            assert objects.commit(name) == head
        for name in ("", "nothing", "f" * 40, "HEAD:a.py", f"{head}\n{head}", "\udc80"):
            assert objects.commit(name) is None
        assert objects.commit("HEAD") == head


def test_abbreviation_of_two_commits_is_refused(work: Path) -> None:
    stream = "".join(
        f"commit refs/heads/b{n}\ncommitter a <a@b> {1700000000 + n} +0000\ndata 1\nx\n" for n in range(1200)
    )
    subprocess.run(["git", "-C", work, "fast-import", "--quiet"], input=stream.encode(), check=True)
    starts = sorted(line[:4] for line in git(work, "rev-list", "--all").splitlines())
    twice = next(start for start, other in pairwise(starts) if start == other)
    with GitObjects(work) as objects, pytest.raises(PatchforgeError, match="more than one"):
        objects.commit(twice)


def test_git_dir_of_a_surrounding_hook_does_not_lead_elsewhere(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = git(work, "rev-parse", "HEAD")
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    with GitObjects(work) as objects:
        assert GitTree(objects, head).read("a.py") == BYTES["a.py"]
        assert objects.history("HEAD") == [head]


def test_trees_of_one_repository_share_process_and_folders(work: Path) -> None:
    (work / "a.py").write_text("changed\n")
    git(work, "commit", "-q", "-a", "-m", "second")
    with GitObjects(work) as objects:
        former, two = (GitTree(objects, objects.commit(name) or "") for name in ("HEAD~1", "HEAD"))
        assert former.entries()["a/b.py"] is two.entries()["a/b.py"]
        assert former.entries()["a.py"] != two.entries()["a.py"]
        assert GitTree(objects, former.commit).entries() is former.entries()


def test_closed_objects_open_again(tree: GitTree) -> None:
    assert tree.read("a.py")
    tree._repo.close()
    assert tree.read("a.py") == BYTES["a.py"]


def test_replacement_objects_are_not_followed(tree: GitTree, work: Path) -> None:
    blob = git_blob_id(BYTES["a.py"])
    git(work, "replace", blob, git_blob_id(BYTES["crlf.py"]))
    assert tree.read("a.py") == BYTES["a.py"]


@pytest.mark.parametrize("kind", ["folder", "nothing"])
def test_what_is_no_repository_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "nothing"
    with pytest.raises(PatchforgeError, match="is not a git repository"):
        GitObjects(path)


def test_pieces_that_are_not_read_to_their_end_are_in_nobodys_way(work: Path) -> None:
    """The next question is answered all the same, and ending the process reads nothing more."""
    (work / "large").write_bytes(b"x" * 3_000_000)
    (work / "small").write_bytes(b"y\n")
    ids = {name: git(work, "hash-object", "-w", name) for name in ("large", "small")}
    with GitObjects(work) as objects:
        size, pieces = objects.pieces(ids["large"], "large")
        assert (size, len(next(pieces))) == (3_000_000, 1 << 16)
        assert objects.blob(ids["small"]) == b"y\n"
        assert objects.lacks([ids["small"], "0" * 40]) == [False, True]
        _, pieces = objects.pieces(ids["large"], "large")
        next(pieces)
        objects.close()
        assert objects.blob(ids["small"]) == b"y\n"
        with pytest.raises(LookupError, match="missing"):
            objects.pieces("0" * 40, "x")
        assert b"".join(objects.pieces(ids["large"], "large")[1]) == b"x" * 3_000_000
