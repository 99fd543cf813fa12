"""The serialiser against ``nix hash path``: modes, links, order, empty folders, unusual names (facts: pitfall 9)."""

from __future__ import annotations

import os
import socket
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchforge.errors import PatchforgeError
from patchforge.hashes import hash_entries, of_folder, serialise
from patchforge.hashes.nar import Item, NarFile, NarFolder, NarLink, folder_items, nar_order
from tests.hashes.test_judges import judged, needs_nix, nix_hash, plain_hash

NAMES = st.one_of(
    st.sampled_from([b"a", b"a.py", b"a-b", b"A", b"a b", b"-", b".x", b"\xff\xfe", "ü".encode(), b"x\ny", b"$(x)'\""]),
    st.binary(min_size=1, max_size=6)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda name: name not in {b".", b".."}),
)
CONTENT = st.binary(max_size=40) | st.just(300_000).map(bytes)
LEAVES = st.tuples(CONTENT, st.booleans()) | st.binary(min_size=1, max_size=9).map(lambda t: t.replace(b"\0", b"/"))
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=4),
    lambda inner: st.dictionaries(NAMES, LEAVES | inner, max_size=4),
    max_leaves=12,
)


def build(place: Path, tree: object) -> None:
    if isinstance(tree, dict):
        place.mkdir()
        for name, inner in tree.items():
            build(place / os.fsdecode(name), inner)
    elif isinstance(tree, bytes):
        place.symlink_to(os.fsdecode(tree))
    elif isinstance(tree, tuple):
        content, executable = tree
        place.write_bytes(content)
        place.chmod(0o755 if executable else 0o644)


@needs_nix
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES.filter(bool))
def test_random_trees_have_the_hash_that_nix_finds(tree: dict[bytes, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder, "top"), tree)
        assert hash_entries(folder_items(Path(folder, "top"))).hash == nix_hash(Path(folder, "top"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES.filter(bool))
def test_random_trees_have_the_hash_of_a_plain_serialiser(tree: dict[bytes, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder, "top"), tree)
        assert hash_entries(folder_items(Path(folder, "top"))).hash == plain_hash(Path(folder, "top"))


def test_modes_links_order_and_empty_folders(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for path in ("a/b", "a-b", "a.py", "A", "with space/ümläut", "a/Z", "a/\udcff"):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(path, "utf-8", "surrogateescape")
    (top / "empty" / "inner").mkdir(parents=True)
    (top / "nothing").touch()
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o700)
    (top / "dangling").symlink_to("../no/where//")
    (top / "folder").symlink_to("a")
    assert of_folder(top).hash == judged(top)


def test_only_the_owners_execute_bit_counts(tmp_path: Path) -> None:
    file = tmp_path / "top" / "file"
    file.parent.mkdir()
    file.write_text("x")
    modes: dict[str, list[int]] = {}
    for mode in (0o644, 0o600, 0o677, 0o744, 0o700, 0o777):
        file.chmod(mode)
        file.parent.chmod(0o700 if mode & 1 else 0o755)
        modes.setdefault(of_folder(tmp_path / "top").hash, []).append(mode)
        assert of_folder(tmp_path / "top").hash == judged(tmp_path / "top")
    assert sorted(modes.values()) == [[0o644, 0o600, 0o677], [0o744, 0o700, 0o777]]


def test_times_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = of_folder(tmp_path)
    os.utime(tmp_path / "file", (1, 1))
    assert of_folder(tmp_path) == before


def text(path: bytes, data: bytes = b"x") -> Item:
    return path, NarFile(len(data), lambda: (data,))


@pytest.mark.parametrize(
    ("items", "found"),
    [
        ([text(b"a"), text(b"a")], "the same path twice"),
        ([text(b"b"), text(b"a")], "after 'b'"),
        ([text(b"a-b"), text(b"a/b")], "after 'a-b'"),  # git's order
        ([text(b"a"), text(b"a/b")], "as a folder"),
        ([(b"a", NarLink(b"x")), text(b"a/b")], "as a folder"),
        ([text(b""), text(b"a")], "as a folder"),
        ([text(b"a/../b")], "a name that no folder can hold"),
        ([text(b"a//b")], "a name that no folder can hold"),
        ([text(b"./a")], "a name that no folder can hold"),
        ([text(b"a\0b")], "a name that no folder can hold"),
    ],
)
def test_what_no_folder_can_be_is_refused(items: list[Item], found: str) -> None:
    with pytest.raises(PatchforgeError, match=found):
        hash_entries(items)


def test_a_file_that_is_not_whole_is_refused() -> None:
    with pytest.raises(PatchforgeError, match=r"a is not whole\n.*4 bytes\n.*3 bytes"):
        hash_entries([(b"a", NarFile(4, lambda: (b"abc",)))])


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(PatchforgeError, match="cannot be part of a source"):
            of_folder(tmp_path)


def test_memory_does_not_grow_with_a_file() -> None:
    chunk = bytes(1 << 16)
    tracemalloc.start()
    try:
        serialise([(b"big", NarFile(len(chunk) << 10, lambda: (chunk for _ in range(1 << 10))))], len)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_order_is_by_name_within_folders() -> None:
    paths = [b"a", b"a/b", b"a/b/c", b"a/b-", b"a-b", b"a.py", b"b"]
    assert sorted({*paths}, key=nar_order) == paths
    digest = hash_entries([(b"a", NarFolder()), text(b"a/b"), text(b"a-b")])
    assert digest == hash_entries([text(b"a/b"), text(b"a-b")])
    assert (digest.files, digest.size) == (2, 2)
