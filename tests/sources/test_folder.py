from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from patchforge.errors import PatchforgeError
from patchforge.sources import FolderTree, Skipped
from patchforge.vocabulary import Entry, git_blob_id

if TYPE_CHECKING:
    from pathlib import Path

UPSTREAM = ("main.py", "comfy/ldm/models/autoencoder.py", "comfy_api/input/basic.py", "app/user/manager.py")
OTHERS = (
    "models/checkpoints/x.safetensors",
    "input/photo.png",
    "output/photo.png",
    "user/default/settings.json",
    "custom_nodes/pack/node.py",
    "temp/t",
    ".git/config",
    "venv/lib/x.py",
    "comfy/__pycache__/x.pyc",
    "web/node_modules/x.js",
)


@pytest.fixture
def tree(tmp_path: Path) -> FolderTree:
    for path in (*UPSTREAM, *OTHERS):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode() + b"\r\n")
    return FolderTree(tmp_path)


def test_upstreams_files_and_no_others(tree: FolderTree) -> None:
    assert list(tree.entries()) == sorted(UPSTREAM)
    assert {each.path for each in tree.skipped} >= {"models", "custom_nodes", ".git", "comfy/__pycache__"}


def test_blob_ids_and_bytes(tree: FolderTree) -> None:
    data = b"main.py\r\n"
    assert tree.read("main.py") == data
    assert tree.entries()["main.py"] == Entry("main.py", git_blob_id(data))
    assert dict(tree.entries())["main.py"].blob == git_blob_id(data)


def test_executable_bit(tree: FolderTree) -> None:
    (tree.path / "main.py").chmod(0o755)
    assert tree.entries()["main.py"].mode == 0o100755


def test_links_and_pipes_are_set_aside(tree: FolderTree) -> None:
    (tree.path / "link.py").symlink_to("main.py")
    (tree.path / "loop").symlink_to(tree.path)
    os.mkfifo(tree.path / "pipe")
    assert {"link.py", "loop", "pipe"}.isdisjoint(tree.entries())
    reasons = {Skipped("link.py", "symbolic link"), Skipped("loop", "symbolic link"), Skipped("pipe", "not a file")}
    assert reasons <= set(tree.skipped)


def test_listing_does_not_read_the_files(tree: FolderTree) -> None:
    big = tree.path / "big.bin"
    with big.open("wb") as file:
        file.truncate(1 << 40)  # a sparse terabyte: hashing it would not end
    assert "big.bin" in tree.entries()
    assert len(tree.entries()) == len(UPSTREAM) + 1


@pytest.mark.parametrize("path", ["nowhere.py", "../outside", "models/checkpoints/x.safetensors", "/etc/passwd"])
def test_what_is_not_listed_is_not_read(tree: FolderTree, path: str) -> None:
    with pytest.raises(KeyError):
        tree.read(path)
    with pytest.raises(KeyError):
        tree.entries()[path]


def test_what_is_no_folder_is_refused(tree: FolderTree) -> None:
    for path in (tree.path / "main.py", tree.path / "nothing"):
        with pytest.raises(PatchforgeError, match="cannot be read as a tree"):
            FolderTree(path)
