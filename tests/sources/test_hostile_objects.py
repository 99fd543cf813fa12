"""Refs and objects that git would not write: passed over and said, and never in the way of the others."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge import cli
from patchforge.bot.discovery import discover, list_tags
from patchforge.bot.mirror import Mirror
from patchforge.doctor import upstream as doctor
from patchforge.errors import Damaged, Exit, PatchforgeError
from patchforge.git.clone import CachedClone
from patchforge.git.objects import UnreadableError, commit_date
from patchforge.hashes import of_clone
from patchforge.project import load_project
from patchforge.sources import GitObjects, GitTree, open_upstream
from tests.sources.hostile import made, plain_git

FILES = {"main.py": b"x = 1\n", "comfyui_version.py": b'__version__ = "0.33.0"\n', "a/b.py": b"y = 2\n"}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("original") / "clone", FILES)


@pytest.fixture
def clone(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "clone", symlinks=True))


def stored(clone: Path, kind: str, data: bytes, oid: str = "") -> str:
    """A loose object, written whatever it is; ``oid``: under another id than its own."""
    raw = b"%s %d\0" % (kind.encode(), len(data)) + data
    oid = oid or hashlib.sha1(raw, usedforsecurity=False).hexdigest()
    path = clone / ".git" / "objects" / oid[:2] / oid[2:]
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(zlib.compress(raw))
    return oid


def tree(clone: Path, *items: tuple[str, bytes, str]) -> str:
    return stored(clone, "tree", b"".join(b"%s %s\0" % (m.encode(), n) + bytes.fromhex(o) for m, n, o in items))


def commit(clone: Path, tree: str, who: bytes = b"a <a@example.org> 1700000000 +0000", message: bytes = b"x\n") -> str:
    return stored(clone, "commit", b"tree %s\nauthor %s\ncommitter %s\n\n%s" % (tree.encode(), who, who, message))


def packed(clone: Path, *lines: bytes) -> None:
    with (clone / ".git" / "packed-refs").open("ab") as stream:
        stream.write(b"".join(line + b"\n" for line in lines))


def loose(name: str, text: str | None = None, place: str = "refs/tags") -> Callable[[Path], None]:
    def harm(clone: Path) -> None:
        path = clone / ".git" / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text is not None else plain_git(clone, "rev-parse", "HEAD") + "\n")

    return harm


def ref(name: bytes, oid: str | None = None) -> Callable[[Path], None]:
    return lambda clone: packed(clone, (oid or plain_git(clone, "rev-parse", "HEAD")).encode() + b" refs/tags/" + name)


def tag_of(target: str, kind: str, name: bytes = b"v0.99.0") -> Callable[[Path], None]:
    """A tag of what ``target`` names."""

    def harm(clone: Path) -> None:
        oid = plain_git(clone, "rev-parse", target) if kind != "missing" else "1" * 40
        text = f"object {oid}\ntype {kind if kind != 'missing' else 'commit'}\ntag x\ntagger a <a> 1 +0000\n\nx\n"
        packed(clone, stored(clone, "tag", text.encode()).encode() + b" refs/tags/" + name)

    return harm


def many(clone: Path) -> None:
    head = plain_git(clone, "rev-parse", "HEAD").encode()
    packed(clone, *(b"%s refs/tags/v1.%d.%d" % (head, number // 1000, number % 1000) for number in range(20_000)))


def chain(clone: Path) -> None:
    """Tags of tags, five hundred deep; the last leads to a blob."""
    oid, kind = plain_git(clone, "rev-parse", "HEAD:main.py"), "blob"
    for number in range(500):
        text = f"object {oid}\ntype {kind}\ntag t{number}\ntagger a <a> 1 +0000\n\nx\n"
        oid, kind = stored(clone, "tag", text.encode()), "tag"
    packed(clone, oid.encode() + b" refs/tags/v0.99.0")


def link(clone: Path) -> None:
    (clone / ".git/refs/tags/v0.99.0").symlink_to("/etc/hostname")


def pipe(clone: Path) -> None:
    os.mkfifo(clone / ".git/refs/tags/v0.99.0")


def large(clone: Path) -> None:
    (clone / ".git/refs/tags/v0.99.0").write_bytes(b"0" * 10_000_000)


def damaged_object(clone: Path) -> None:
    oid = stored(clone, "commit", b"")
    (clone / ".git/objects" / oid[:2] / oid[2:]).write_bytes(b"no zlib")
    packed(clone, oid.encode() + b" refs/tags/v0.99.0", oid.encode() + b" refs/tags/v0.98.0")


#: name → what is done, and a word of what is said of it ("" where there is nothing to say: it is an ordinary tag).
REFS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a command in it": (ref(b"v1.0;rm"), ""),
    "dollar and quotes": (ref(b"v1.0$(id)'\"`id`"), ""),
    "an option": (ref(b"--upload-pack=x"), ""),
    "a dash": (ref(b"-x"), ""),
    "percent": (ref(b"%(objectname)%00"), ""),
    "line separator": (ref("v9\u2028v0.98.0".encode()), ""),
    "next line": (ref("v9\u0085v0.98.0".encode()), ""),
    "not UTF-8": (ref(b"v9\xff\xfe"), ""),
    "a page long": (ref(b"v" + b"9" * 4000), ""),
    "more digits than Python reads": (ref(b"v0." + b"9" * 5000), ""),
    "digits of another script": (ref("v\u0660.\u0661".encode()), ""),
    "peeled": (ref(b"v0.33.0^{}"), "not a name"),
    "white space": (ref(b"v1.0 x"), "not a name"),
    "escape": (ref(b"v1\x1b[31m"), "not a name"),
    "two dots": (ref(b"a..b"), "not a name"),
    "a lock": (ref(b"v1.lock"), "not a name"),
    "upwards": (lambda clone: packed(clone, b"1" * 40 + b" refs/tags/../../x"), "not a name"),
    "outside": (lambda clone: packed(clone, b"1" * 40 + b" config"), "not below refs/"),
    "a broken line": (lambda clone: packed(clone, b"gibberish"), "does not hold the id"),
    "a short id": (lambda clone: packed(clone, b"abc refs/tags/v0.99.0"), "does not hold the id"),
    "zero bytes": (lambda clone: packed(clone, b"\0\0\0 refs/tags/\0"), "does not hold the id"),
    "no text": (loose("v0.99.0", ""), "does not hold the id"),
    "another text": (loose("v0.99.0", "no commit\n"), "does not hold the id"),
    "symbolic": (loose("v0.99.0", "ref: refs/heads/main\n"), ""),
    "symbolic, leading nowhere": (loose("v0.99.0", "ref: refs/heads/none\n"), "which is not there"),
    "symbolic, leading outside": (loose("v0.99.0", "ref: ../../../secret\n"), "which is not there"),
    "symbolic, leading to itself": (loose("v0.99.0", "ref: refs/tags/v0.99.0\n"), "which is not there"),
    "a link": (link, "does not hold the id"),
    "a pipe": (pipe, "does not hold the id"),
    "too large": (large, "does not hold the id"),
    "a folder and a file": (loose("more/x"), ""),
    "folder and file, packed": (ref(b"v0.33.0/x"), ""),
    "of a blob": (tag_of("HEAD:main.py", "blob"), "does not lead to a commit"),
    "of a tree": (tag_of("HEAD^{tree}", "tree"), "does not lead to a commit"),
    "of nothing": (tag_of("", "missing"), "does not lead to a commit"),
    "of another kind than it says": (tag_of("HEAD:main.py", "commit"), "does not lead to a commit"),
    "straight to a blob": (
        lambda c: ref(b"v0.99.0", plain_git(c, "rev-parse", "HEAD:main.py"))(c),
        "does not lead to a commit",
    ),
    "straight to nothing": (ref(b"v0.99.0", "1" * 40), "does not lead to a commit"),
    "a chain of tags": (chain, "does not lead to a commit"),
    "damaged": (damaged_object, "does not lead to a commit"),
    "twenty thousand": (many, ""),
}


@pytest.mark.parametrize("name", REFS)
def test_one_odd_ref_is_passed_over_and_the_others_are_read(clone: Path, name: str) -> None:
    head = plain_git(clone, "rev-parse", "HEAD")
    harm, said = REFS[name]
    harm(clone)
    ref(b"v0.40.0", head)(clone)  # packed after what is odd
    project = load_project()
    with open_upstream(str(clone)) as upstream:
        assert "v0.40.0" in [str(release.version) for release in upstream.releases()]
        passed = upstream.passed_over()
        assert upstream.resolve("v0.40.0").commit == head
        with pytest.raises(PatchforgeError, match="no release, commit or ref"):
            upstream.resolve("v0.41.0")
    tags, others = list_tags(str(clone))
    assert (tags["v0.40.0"], tags["note"]) == (head, head)
    discovery = discover(project, tags, None, known={}, ours=[], age=lambda _: pytest.fail("nothing waits"))
    assert "v0.40.0" in [release.tag for release in discovery.new]
    for why in ([passed_over.why for passed_over in passed], [passed_over.why for passed_over in others]):
        assert any(said in reason for reason in why) if said else not why
    clone_of, odd = doctor.examine(str(clone), project)[1], ["v0.99.0", "v0.98.0"]
    assert clone_of is not None
    assert clone_of.tags["v0.40.0"] == head
    if said:
        assert any(said in odd_ref.why for odd_ref in clone_of.odd) or any(said in damage for damage in clone_of.damage)
        assert not set(odd) & tags.keys()


def test_names_with_line_separators_come_over_the_network_too(clone: Path) -> None:
    head = plain_git(clone, "rev-parse", "HEAD")
    for name in ("v9\u2028x", "v9\u0085x", "v9\u2029"):
        ref(name.encode())(clone)
    tags, passed = list_tags(clone.as_uri())
    assert {"v9\u2028x": head, "v9\u0085x": head, "v9\u2029": head}.items() <= tags.items()
    assert passed == []


def test_a_clone_of_odd_refs_is_fetched(clone: Path) -> None:
    """Also names that cannot be files beside each other."""
    cached = CachedClone.of(clone.as_uri())
    cached.ensure()
    for harm in (ref(b"a"), ref(b"-x"), ref(b"v9\xff"), loose("broken", "x")):
        harm(clone)
    cached.fetch()
    with GitObjects(cached.path) as objects:
        assert {"a", "-x", "v0.33.0"} <= set(objects.tags())


def test_a_ref_that_cannot_be_beside_another_is_passed_over(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cached = CachedClone.of(clone.as_uri())
    cached.ensure()
    for name in (b"v0.33.0/x", b"v0.99.0"):
        ref(name)(clone)
    cached.fetch()
    with GitObjects(cached.path) as objects:
        assert objects.tags() == ["note", "v0.33.0", "v0.99.0"]
    assert "passed over: error: cannot lock ref 'refs/tags/v0.33.0/x'" in capsys.readouterr().err


# trees


def listed(clone: Path, top: str) -> tuple[list[str], dict[str, str]]:
    with GitObjects(clone) as objects:
        read = GitTree(objects, commit(clone, top))
        return list(read.entries()), {skipped.path: skipped.reason for skipped in read.skipped}


@pytest.mark.parametrize(
    ("name", "mode", "why"),
    [
        (b"..", "40000", "elsewhere"),
        (b".", "40000", "elsewhere"),
        (b"..", "100644", "elsewhere"),
        (b".git", "40000", ".git"),
        (b".GIT", "100644", ".git"),
        (b".git ", "40000", ".git"),
        (b"git~1", "100644", ".git"),
        (".g\u200cit".encode(), "40000", ".git"),
        (b"", "100644", "elsewhere"),
        (b"/etc/passwd", "100644", "slash"),
        (b"a/../../b", "100644", "slash"),
        (b"a\\..\\b", "100644", "backslash"),
        (b"C:x", "100644", "absolute"),
        (b"a\nb", "100644", "control"),
        (b"::error::x\r", "100644", "control"),
        (b"\x1b]0;x\x07", "100644", "control"),
        (b"\xff\xfe", "100644", "UTF-8"),
        (b"n" * 300, "100644", "too long"),
        (b"link", "120000", "symbolic link"),
        (b"module", "160000", "submodule"),
        (b"nothing", "0", "not a file"),
        (b"device", "60000", "not a file"),
        (b"main.py", "100644", "listed twice"),
        (b"main.py", "40000", "listed twice"),
    ],
)
def test_an_odd_name_is_skipped_with_its_reason(clone: Path, name: bytes, mode: str, why: str) -> None:
    blob, folder = plain_git(clone, "rev-parse", "HEAD:main.py"), plain_git(clone, "rev-parse", "HEAD:a")
    items = [("100644", b"main.py", blob), (mode, name, folder if mode == "40000" else blob), ("100644", b"z.py", blob)]
    entries, skipped = listed(clone, tree(clone, *items))
    assert entries == ["main.py", "z.py"]
    assert [reason for reason in skipped.values() if why in reason], skipped


def test_odd_modes_that_are_files(clone: Path) -> None:
    blob = plain_git(clone, "rev-parse", "HEAD:main.py")
    top = tree(clone, ("100664", b"a", blob), ("100600", b"b", blob), ("0100755", b"c", blob))
    with GitObjects(clone) as objects:
        entries = GitTree(objects, commit(clone, top)).entries()
    assert {path: entry.mode for path, entry in entries.items()} == {"a": 0o100644, "b": 0o100644, "c": 0o100755}


def test_a_tree_out_of_order_comes_in_order(clone: Path) -> None:
    blob = plain_git(clone, "rev-parse", "HEAD:main.py")
    entries, _ = listed(clone, tree(clone, *(("100644", name, blob) for name in (b"z", b"a", b"m"))))
    assert entries == ["a", "m", "z"]


@pytest.mark.parametrize(
    "data", [b"100644 x", b"100644 x\0short", b"\xff x\0" + b"1" * 20, b"x\0" + b"1" * 20, b"\0" * 30]
)
def test_a_tree_that_is_none_is_an_error(clone: Path, data: bytes) -> None:
    top = commit(clone, stored(clone, "tree", data))
    with pytest.raises(PatchforgeError, match="cannot be listed"):
        listed(clone, stored(clone, "tree", data))
    with pytest.raises(PatchforgeError, match="git cat-file failed"):
        of_clone(clone, top)


def test_a_folder_that_is_a_file_is_an_error(clone: Path) -> None:
    blob = plain_git(clone, "rev-parse", "HEAD:main.py")
    with pytest.raises(PatchforgeError, match=r"(?s)cannot be listed.*a blob, not a tree"):
        listed(clone, tree(clone, ("40000", b"a", blob)))


def test_folders_without_end(clone: Path) -> None:
    deep = plain_git(clone, "rev-parse", "HEAD:a")
    for _ in range(3000):
        deep = tree(clone, ("40000", b"d", deep))
    entries, skipped = listed(clone, deep)
    assert (entries, list(skipped.values())) == ([], ["folders nested too deeply"])
    with pytest.raises(Damaged, match="nested without end"):
        of_clone(clone, commit(clone, deep))


def test_a_tree_that_unfolds_is_refused(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchforge.sources.git._MOST_FILES", 5000)
    monkeypatch.setattr("patchforge.hashes.objects._MOST_FILES", 5000)
    wide = plain_git(clone, "rev-parse", "HEAD:main.py")
    for level in range(12):
        mode = "40000" if level else "100644"
        wide = tree(clone, *((mode, b"%d" % number, wide) for number in range(10)))
    with pytest.raises(Damaged, match="more files"):
        listed(clone, wide)
    with pytest.raises(PatchforgeError, match="more than 5000 files"):
        of_clone(clone, commit(clone, wide))


# content


def test_content_that_is_not_what_its_id_says(clone: Path) -> None:
    """Git does not compare them when it reads."""
    head, blob = plain_git(clone, "rev-parse", "HEAD"), plain_git(clone, "rev-parse", "HEAD:main.py")
    stored(clone, "blob", b"evil\n", blob)
    with GitObjects(clone) as objects:
        with pytest.raises(PatchforgeError, match="corrupt"):
            GitTree(objects, head).read("main.py")
        assert GitTree(objects, head).read("a/b.py") == b"y = 2\n"
    with pytest.raises(Damaged, match=r"main\.py is not what its id says"):
        of_clone(clone, head)


@pytest.mark.parametrize("what", ["HEAD", "HEAD^{tree}"])
def test_a_commit_or_tree_that_is_another(clone: Path, what: str) -> None:
    head, oid = plain_git(clone, "rev-parse", "HEAD"), plain_git(clone, "rev-parse", what)
    blob = plain_git(clone, "rev-parse", "HEAD:a/b.py")
    other = tree(clone, ("100644", b"evil.py", blob))
    new = commit(clone, other)
    kind, path = ("commit", new) if what == "HEAD" else ("tree", other)
    raw = zlib.decompress((clone / ".git/objects" / path[:2] / path[2:]).read_bytes()).partition(b"\0")[2]
    stored(clone, kind, raw, oid)
    with GitObjects(clone) as objects, pytest.raises(PatchforgeError, match="corrupt"):
        GitTree(objects, head).entries()
    with pytest.raises(PatchforgeError, match="git cat-file failed"):
        of_clone(clone, head)


def test_a_blob_larger_than_memory_is_not_read(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchforge.git.objects._MOST_BYTES", 1000)
    big = stored(clone, "blob", b"0" * 2000)
    with GitObjects(clone) as objects:
        with pytest.raises(UnreadableError, match="2000 bytes"):
            objects.blob(big)
        assert objects.blob(plain_git(clone, "rev-parse", "HEAD:main.py")) == b"x = 1\n"


@pytest.mark.parametrize("kind", ["commit-graph", "multi-pack-index", "grafts", "replace", "shallow"])
def test_what_stands_beside_the_objects_is_not_believed(clone: Path, kind: str) -> None:
    head = plain_git(clone, "rev-parse", "HEAD")
    place = {"commit-graph": "objects/info/commit-graph", "multi-pack-index": "objects/pack/multi-pack-index"}
    if kind == "replace":
        plain_git(clone, "replace", head, commit(clone, plain_git(clone, "rev-parse", "HEAD:a")))
    else:
        path = clone / ".git" / place.get(kind, f"info/{kind}" if kind == "grafts" else kind)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"CGPH\x01\x01" + b"\0" * 40 if kind in place else f"{head} {'1' * 40}\nx\n".encode())
    with GitObjects(clone) as objects:
        assert sorted(GitTree(objects, head).entries()) == sorted(FILES)
        assert objects.history("HEAD") == [head]
        assert objects.is_shallow() is False


@pytest.mark.parametrize(
    "place", ["ab/pipe", "pack/pack-1.idx", "pack/pack-1.pack", "info/alternates", "info/commit-graph"]
)
def test_a_pipe_among_the_objects_is_not_waited_for(clone: Path, place: str) -> None:
    path = clone / ".git" / "objects" / place
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    with pytest.raises(Damaged, match="not"), GitObjects(clone) as objects:
        objects.commit("HEAD")


@pytest.mark.parametrize("file", ["HEAD", "config", "packed-refs", "shallow", "commondir"])
def test_a_pipe_in_place_of_a_file_of_gits(clone: Path, file: str) -> None:
    (clone / ".git" / file).unlink(missing_ok=True)
    os.mkfifo(clone / ".git" / file)
    examined = doctor.examine(str(clone), load_project())[1]
    assert examined is not None
    assert "not what git writes" in examined.error or "HEAD" in file


# dates


@pytest.mark.parametrize(
    "date",
    [
        b"31556952000000000 +0000",
        b"-99999999999999 +0000",
        b"99999999999999999999999999 +0000",
        b"tomorrow +0000",
        b"",
        b"1700000000",
        b"1e9 +0000",
        b"\xff +0000",
        b"1700000000 +00\n00",
    ],
)
def test_a_date_that_is_none(clone: Path, date: bytes) -> None:
    made_then = commit(clone, plain_git(clone, "rev-parse", "HEAD^{tree}"), b"a <a@example.org> " + date)
    plain_git(clone, "update-ref", "--no-deref", "refs/tags/v0.99.0", made_then)
    with Mirror(load_project(), str(clone)) as mirror, pytest.raises(Damaged, match="no date"):
        mirror.date(made_then)


@pytest.mark.parametrize(
    ("date", "iso"),
    [
        (b"0 +0000", "1970-01-01T00:00:00+00:00"),
        (b"-1 +0000", "1969-12-31T23:59:59+00:00"),
        (b"1700000000 +9999", "2023-11-14T22:13:20+00:00"),
        (b"1700000000 -0330", "2023-11-14T18:43:20-03:30"),
    ],
)
def test_an_odd_date_that_is_one(date: bytes, iso: str) -> None:
    assert commit_date("x", b"tree x\ncommitter a <a> " + date + b"\n\ncommitter b <b> 1 +0000\n").isoformat() == iso


def test_a_message_with_zero_bytes_and_odd_encodings(clone: Path) -> None:
    top = plain_git(clone, "rev-parse", "HEAD^{tree}")
    made_so = commit(clone, top, message=b"a\0b\xff\nencoding x\n")
    with GitObjects(clone) as objects:
        assert objects.date(made_so).year == 2023
        assert objects.history(made_so) == [made_so]


# the bot and the commands


def test_a_tag_of_no_commit_stops_no_command(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tag_of("HEAD:main.py", "blob")(clone)
    ref(b"v0.40.0")(clone)
    ref("v9\u2028x".encode())(clone)
    (tmp_path / "empty").mkdir()
    status = cli.main(["track", "--upstream", str(clone), "--generated", str(tmp_path / "empty")])
    said = capsys.readouterr().out
    assert status in {Exit.OK, Exit.FAILED}
    assert "v0.40.0" in said
    assert re.search(r"v0\.99\.0 +it does not lead to a commit", said)
    assert cli.main(["replay", "--upstream", str(clone), "--since", "v0.40.0"]) in {Exit.OK, Exit.DRIFTED}
    assert "passed over: refs/tags/v0.99.0: does not lead to a commit" in capsys.readouterr().out
