"""Paths as people type them: quoted for their shell, and recognised when another system wrote them."""

import os
from pathlib import Path

import pytest

from patchforge import paths
from patchforge.errors import PatchforgeError
from patchforge.paths import native, need_folder, not_there, quoted


@pytest.mark.parametrize(
    ("text", "windows", "typed"),
    [
        ("/home/ann/ComfyUI", False, "/home/ann/ComfyUI"),
        ("/home/ann/Comfy UI", False, "'/home/ann/Comfy UI'"),
        (r"C:\ComfyUI_windows_portable\ComfyUI", True, r"C:\ComfyUI_windows_portable\ComfyUI"),
        (r"C:\Users\Ann Lee\ComfyUI (1)", True, r'"C:\Users\Ann Lee\ComfyUI (1)"'),
        (r"D:\a&b", True, r'"D:\a&b"'),
        (r"\\wsl.localhost\Ubuntu\home", True, r"\\wsl.localhost\Ubuntu\home"),
        (r"C:\Zoë\KI", True, r"C:\Zoë\KI"),
    ],
)
def test_a_path_can_be_typed_as_it_is_printed(text: str, windows: bool, typed: str) -> None:
    assert quoted(text, windows=windows) == typed


@pytest.mark.parametrize(
    ("text", "windows", "here"),
    [
        (r"C:\Users\Ann Lee\ComfyUI", False, "/mnt/c/Users/Ann Lee/ComfyUI"),
        ("d:/ComfyUI", False, "/mnt/d/ComfyUI"),
        ("C:", False, "/mnt/c/"),
        (r"\\wsl$\Ubuntu\home\ann\ComfyUI", False, "/home/ann/ComfyUI"),
        (r"\\wsl.localhost\Ubuntu-24.04", False, "/"),
        ("/mnt/c/Users/Ann/ComfyUI", True, r"C:\Users\Ann\ComfyUI"),
        ("/c/ComfyUI", True, r"C:\ComfyUI"),
        ("/home/ann/ComfyUI", False, ""),
        ("/home/ann/ComfyUI", True, ""),
        (r"C:\ComfyUI", True, ""),
        ("ComfyUI", False, ""),
    ],
)
def test_a_path_of_the_other_side(text: str, windows: bool, here: str) -> None:
    assert native(text, windows=windows) == here


def test_in_wsl_a_path_of_windows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "is_wsl", lambda: True)
    with pytest.raises(PatchforgeError) as told:
        need_folder(Path(r"C:\Comfy UI"))
    assert told.value.do == "here it is '/mnt/c/Comfy UI'"


@pytest.mark.parametrize(
    ("name", "said"), [("folder", "a folder"), ("file", "a file"), ("link", "a link to nothing"), ("pipe", "a pipe")]
)
def test_what_is_there_is_not_what_was_meant(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    told = not_there(tmp_path / name, "something else")
    assert told.problem == f"{tmp_path / name} is {said}"
    assert told.do == "check the path"
    assert not_there(Path("/dev/null"), "a file").problem == "/dev/null is a device"


def test_the_name_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "ComfyUI").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    answers = {}
    for name in ("comfyui ", "ComfUI", "models", "file", "link", "no/where"):
        with pytest.raises(PatchforgeError) as told:
            need_folder(tmp_path / name)
        answers[name] = told.value.found, told.value.do.replace(f"{tmp_path}/", "")
    assert answers == {
        "comfyui ": ("nothing there", "did you mean ComfyUI?"),
        "ComfUI": ("nothing there", "did you mean ComfyUI?"),
        "models": ("nothing there", "check the path"),
        "file": ("a file", "check the path"),
        "link": ("a link to nothing", "check the path"),
        "no/where": ("nothing there", "check the path"),
    }
