from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchforge.errors import PatchforgeError
from patchforge.project import Project, load_project, recognise, release_index
from patchforge.vocabulary import Entry, Release, Version, git_blob_id
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TOML = """
name = "demo"
title = "Demo"
url = "https://example.org/demo"
index = "demo.tsv"
tag = "v{version}"
version_file = "demo_version.py"
"""
ONE, TWO = "1" * 40, "2" * 40
INDEX = f"version\tcommit\tdate\nv0.10.0\t{TWO}\t2026-01-02\nv0.9.0\t{ONE}\t2026-01-01\n"


class FakeTree:
    origin = "here"

    def __init__(self, **files: str) -> None:
        self.files = {name.replace("__", "."): text.encode() for name, text in files.items()}

    def entries(self) -> dict[str, Entry]:
        return {path: Entry(path, git_blob_id(data)) for path, data in self.files.items()}

    def read(self, path: str) -> bytes:
        return self.files[path]


def declare(tmp_path: Path, toml: str = TOML, index: str = INDEX) -> Project:
    (tmp_path / "demo.toml").write_text(toml)
    (tmp_path / "demo.tsv").write_text(index)
    return load_project("demo", folder=tmp_path)


def test_comfyui_is_declared_with_its_index() -> None:
    project = load_project()
    releases = release_index(project)
    assert project.url == "https://github.com/Comfy-Org/ComfyUI"
    assert project.version_file == "comfyui_version.py"
    assert len(releases) >= 149
    assert all(release.indexed for release in releases)
    assert (ROOT / "patchforge").is_dir()


def test_index_is_in_numeric_order(tmp_path: Path) -> None:
    assert release_index(declare(tmp_path)) == [
        Release(Version((0, 9, 0)), ONE),
        Release(Version((0, 10, 0)), TWO),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"v0.1\t{ONE[:12]}\t2026-01-01", "demo.tsv:2 is not a line"),
        (f"newest\t{ONE}\t2026-01-01", "demo.tsv:2 is not a line"),
        ("v0.1.0", "demo.tsv:2 is not a line"),
        (f"v0.1.0\t{ONE}\t-\nv0.1.0\t{TWO}\t-", "lists v0.1.0 twice"),
    ],
)
def test_damaged_index_is_refused_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(PatchforgeError, match=message):
        release_index(declare(tmp_path, index=f"version\tcommit\tdate\n{line}\n"))


def test_absent_index_names_the_file(tmp_path: Path) -> None:
    project = declare(tmp_path)
    project.index.unlink()
    with pytest.raises(PatchforgeError, match=r"demo\.tsv"):
        release_index(project)


def test_unknown_project_lists_the_known_ones() -> None:
    with pytest.raises(PatchforgeError, match="one of: comfyui"):
        load_project("comfy-ui")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (TOML + 'colour = "red"', "colour"),
        (TOML.replace('url = "https://example.org/demo"', ""), "malformed: url"),
        (TOML.replace("v{version}", "v"), "malformed: tag"),
        (TOML + "former_urls = [1]", "former_urls"),
        ("name = ", "is not TOML"),
    ],
)
def test_wrong_declaration_is_refused(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(PatchforgeError, match=message):
        declare(tmp_path, toml)


@given(st.lists(st.integers(0, 999), min_size=2, max_size=4))
def test_a_version_and_its_tag_name_each_other(parts: list[int]) -> None:
    version = Version(tuple(parts))
    for tag in ("v{version}", "{version}", "release-{version}-final"):
        project = Project("p", "P", "url", ROOT, tag, "v.py")
        assert project.version_of(project.tag_of(version)) == version


@pytest.mark.parametrize("tag", ["latest", "0.3.47", "vv0.3.47", "v0.3.47-rc1", "v0.03.47", "v3"])
def test_other_tags_are_no_releases(tag: str) -> None:
    assert load_project().version_of(tag) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/comfyanonymous/ComfyUI",
        "https://github.com/comfyanonymous/ComfyUI.git",
        "https://github.com/comfy-org/comfyui/",
    ],
)
def test_every_spelling_of_the_address_is_the_present_one(url: str) -> None:
    assert load_project().current_url(url) == "https://github.com/Comfy-Org/ComfyUI"


def test_a_fork_keeps_its_address() -> None:
    assert load_project().current_url("https://example.org/ComfyUI") == "https://example.org/ComfyUI"


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"comfyui_version__py": '# generated\r\n__version__ = "0.3.47"\r\n'}, "v0.3.47"),
        ({"comfyui_version__py": "__version__: str = '0.4.0'"}, "v0.4.0"),
        ({"pyproject__toml": '[project]\nversion = "0.3.11"'}, "v0.3.11"),
        ({"comfyui_version__py": '__version__ = "1.0.0"', "pyproject__toml": '[project]\nversion = "2.0.0"'}, "v1.0.0"),
        ({"comfyui_version__py": '__version__ = "nightly"', "pyproject__toml": '[project]\nversion = "2.0"'}, "v2.0"),
        ({"comfyui_version__py": '# __version__ = "0.3.47"'}, None),
        ({"pyproject__toml": "[project\n"}, None),
        ({"pyproject__toml": "[project]\nname = 'x'"}, None),
        ({}, None),
    ],
)
def test_recognise(files: dict[str, str], version: str | None) -> None:
    version_found = recognise(FakeTree(**files), load_project())
    assert (version_found and str(version_found)) == version
