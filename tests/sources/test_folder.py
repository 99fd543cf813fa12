from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from patchforge.errors import Damaged, PatchforgeError
from patchforge.sources import FolderTree, Skipped, folder
from patchforge.vocabulary import Entry, git_blob_id

if TYPE_CHECKING:
    from collections.abc import Callable
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


OWN = (
    "custom_nodes/example_node.py.example",
    "custom_nodes/websocket_image_save.py",
    "input/example.png",
    "models/checkpoints/put_checkpoints_here",
    "models/configs/v1-inference_clip_skip_2_fp16.yaml",
    "models/unet/put_unet_files_here",
    "output/_output_images_will_be_put_here",
)


@pytest.mark.parametrize("stray", ["custom_nodes/mine.py", "input/put_unet_here", "models/configs/mine.yaml"])
def test_a_whole_tree_has_the_releases_files_among_the_users_and_tells_the_rest(tree: FolderTree, stray: str) -> None:
    for path in (*OWN, stray):
        (tree.path / path).parent.mkdir(parents=True, exist_ok=True)
        (tree.path / path).write_bytes(b"12345")
    (tree.path / "custom_nodes/linked").symlink_to(tree.path / "comfy")
    assert list(tree.entries()) == sorted(UPSTREAM), "one that is not written out looks into no folder of a user's"
    whole = FolderTree(tree.path, whole=True)
    assert list(whole.entries()) == sorted((*UPSTREAM, *OWN))
    assert whole.read(OWN[2]) == b"12345"
    users = {each.path: (each.files, each.bytes) for each in whole.users}
    more = {stray.partition("/")[0]: (1, 5)}
    for path in OTHERS:
        if (top := path.partition("/")[0]) not in {".git", "comfy"}:
            top = "web/node_modules" if top == "web" else top
            files, size = more.get(top, (0, 0))
            more[top] = (files + 1, size + len(path) + 2)
    more["custom_nodes"] = (more["custom_nodes"][0] + 1, users["custom_nodes"][1])  # with the link, of any size
    assert users == more


def test_a_users_folder_that_is_a_link_is_told_and_not_followed(tree: FolderTree) -> None:
    (tree.path / "models").rename(tree.path / "elsewhere")
    (tree.path / "models").symlink_to(tree.path / "elsewhere")
    (tree.path / "elsewhere/put_it_here").write_bytes(b"")
    whole = FolderTree(tree.path, whole=True)
    assert not [path for path in whole.entries() if path.startswith("models/")]
    assert [each.path for each in whole.users if each.link] == ["models"]
    assert whole.unread == ()


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
        with pytest.raises(PatchforgeError, match=r"is not (a folder|there)"):
            FolderTree(path)


ODD = ["a\nb.py", "\x1b[31m.py", "a\\b.py", "C:x.py", "\udcff.py", "\u2028::error::.py"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_set_aside(tree: FolderTree, name: str) -> None:
    (tree.path / "comfy" / name).write_bytes(b"x")
    (tree.path / f"{name}-folder").mkdir()
    (tree.path / f"{name}-folder" / "x.py").write_bytes(b"x")
    assert list(tree.entries()) == sorted(UPSTREAM)
    assert all(each.path.isprintable() for each in tree.skipped)


def test_a_git_folder_below_is_not_read(tree: FolderTree) -> None:
    (tree.path / "comfy/.GIT").mkdir()
    (tree.path / "comfy/.GIT/config").write_bytes(b"x")
    assert list(tree.entries()) == sorted(UPSTREAM)


@pytest.mark.parametrize("becomes", ["nothing", "link", "link to a folder", "pipe", "folder", "loop"])
@pytest.mark.parametrize("how", ["read", "entry"])
def test_a_file_that_becomes_something_else_is_an_error_and_not_followed(
    tree: FolderTree, becomes: str, how: str
) -> None:
    entries = tree.entries()
    file = tree.path / "main.py"
    file.unlink()
    secret = tree.path.parent / "secret"
    secret.write_bytes(b"secret")
    make: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "link": lambda: file.symlink_to(secret),
        "link to a folder": lambda: file.symlink_to(tree.path / "comfy"),
        "pipe": lambda: os.mkfifo(file),
        "folder": file.mkdir,
        "loop": lambda: file.symlink_to(file),
    }
    make[becomes]()
    with pytest.raises((PatchforgeError, OSError)):
        _ = tree.read("main.py") if how == "read" else entries["main.py"]


def test_a_file_that_is_too_large_is_said(tree: FolderTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_MOST_BYTES", 3)
    with pytest.raises(Damaged, match="too large"):
        tree.read("main.py")


def test_a_thousand_folders_deep_are_set_aside(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(1500):
        deep /= "d"
        deep.mkdir()
    (deep / "x.py").write_bytes(b"1")
    try:
        tree = FolderTree(tmp_path)
        assert list(tree.entries()) == []
        assert [skipped.reason for skipped in tree.skipped] == ["folders nested too deeply"]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest's own cleaning recurses
