"""Which paths of a stranger's tree are taken."""

from __future__ import annotations

import pytest

from patchforge.names import odd


@pytest.mark.parametrize(
    "path",
    [
        "main.py",
        "comfy/model_management.py",
        "with space/\u00fcml\u00e4ut.py",
        ".github/workflows/test.yml",
        ".gitignore",
        "a/.gitattributes",
        "git/x",
        "gitgud.py",
        "x.git/config",
        "-x",
        "--upload-pack=x",
        "...",
        "..x/y..",
        "\u65e5\u672c\u8a9e.py",
        "n" * 255,
        "ab:c.py",
    ],
)
def test_taken(path: str) -> None:
    assert odd(path) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "elsewhere"),
        ("/etc/passwd", "absolute"),
        ("C:/x", "absolute"),
        ("comfy/C:x.py", "absolute"),
        ("c:x", "absolute"),
        ("\\\\host\\x", "absolute"),
        ("..", "elsewhere"),
        ("a/../../b", "elsewhere"),
        ("./a", "elsewhere"),
        ("a//b", "elsewhere"),
        ("a/", "elsewhere"),
        ("a\\b", "backslash"),
        ("..\\b", "backslash"),
        (".git/config", ".git"),
        ("a/.GIT/hooks/x", ".git"),
        ("a/.gIt", ".git"),
        (".git. ", ".git"),
        (".git::$INDEX_ALLOCATION/x", ".git"),
        ("git~1/x", ".git"),
        (".g\u200cit/x", ".git"),
        ("a\nb", "control"),
        ("a\x1b[31mb", "control"),
        ("a\x00b", "control"),
        ("a\x9bb", "control"),
        ("a\u2028b", "control"),
        ("a\udcffb", "UTF-8"),
        ("n" * 256, "too long"),
        ("\u00e4" * 128, "too long"),
        ("/".join(["abc"] * 1100), "too long"),
        ("a/" * 100 + "b", "too deeply"),
    ],
)
def test_not_taken(path: str, why: str) -> None:
    assert why in odd(path)
