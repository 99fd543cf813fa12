"""Requirements in one spelling, and which of them hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchforge.errors import PatchforgeError
from patchforge.pins.requirements import holding, is_exact, of_file, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Pillow", "pillow"),
        ("SQLAlchemy >= 2.0.0", "sqlalchemy>=2.0.0"),
        ("rotary_embedding_torch>=0.5.3", "rotary-embedding-torch>=0.5.3"),
        ("trimesh [easy]", "trimesh[easy]"),
        ("av >=14, <16", "av<16,>=14"),
    ],
)
def test_one_spelling(text: str, expected: str) -> None:
    assert str(parse(text)) == expected


def test_a_file_with_comments_and_repeats() -> None:
    text = "torch\n\n#non essential dependencies:\nspandrel  # upscalers\nyapf\nYapf\nPillow"
    assert of_file(text) == ["pillow", "spandrel", "torch", "yapf"]


@pytest.mark.parametrize("line", ["-r other.txt", "--index-url https://x", "./local", "==1.0", "a==x y"])
def test_what_is_no_requirement_is_refused(line: str) -> None:
    with pytest.raises(PatchforgeError, match=r"not a Python requirement|more than packages by name"):
        of_file(f"torch\n{line}\n")


def test_markers_and_extras() -> None:
    named = [
        "a; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "b; sys_platform == 'win32'",
        "c; extra == 'test'",
        "d; python_version < '3.13'",
        "Tomli>=2; python_version < '3.11'",
    ]
    assert [str(requirement) for requirement in holding(named, "3.12")] == ["a", "d"]
    assert [str(requirement) for requirement in holding(named, "3.13")] == ["a"]
    assert [str(requirement) for requirement in holding(named, "3.10")] == ["a", "d", "tomli>=2"]


@pytest.mark.parametrize(
    ("text", "exact"), [("a==1.2", True), ("a==1.*", False), ("a>=1", False), ("a", False), ("a==1+xpu", True)]
)
def test_exact(text: str, *, exact: bool) -> None:
    assert is_exact(parse(text)) is exact


@given(st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,8}[a-z0-9]((==|>=)[0-9]{1,3}(\.[0-9])?)?", fullmatch=True)))
def test_normalising_twice_changes_nothing(lines: list[str]) -> None:
    once = of_file("\n".join(lines))
    assert of_file("\n".join(once)) == once
