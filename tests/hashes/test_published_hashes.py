"""Published hashes: read, checked, and never shared by two revisions (pitfall 1)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import published_hashes, refuse_shared, trusted
from patchforge.project import Project, load_project, release_index

HEAD = "version\tcommit\thash\tpublished_by\n"
HASH = "sha256-oyV0PeYfRoKjJ6s1NNhIKRpIFPbX58Q6IX1LgjSwxks="


def project(folder: Path, text: str) -> Project:
    (folder / "comfyui.hashes.tsv").write_text(text)
    return dataclasses.replace(load_project(), index=folder / "comfyui.releases.tsv")


def test_ours_are_of_releases_in_the_index() -> None:
    ours = published_hashes(load_project())
    index = {release.commit: str(release.version) for release in release_index(load_project())}
    assert len(ours) == 32
    assert {commit: publication.version for commit, publication in ours.items()}.items() <= index.items()
    assert all(
        trusted(publication.hash) == publication.hash and publication.published_by for publication in ours.values()
    )


def test_a_project_without_a_list_has_none(tmp_path: Path) -> None:
    assert published_hashes(dataclasses.replace(load_project(), index=tmp_path / "x.tsv")) == {}


@pytest.mark.parametrize("text", ["version\tcommit\n", HEAD + "v1\tabc\n"])
def test_a_list_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PatchforgeError, match="is not the table"):
        published_hashes(project(tmp_path, text))


def test_nonsense_and_shared_hashes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="fakeHash"):
        published_hashes(project(tmp_path, HEAD + f"v1\t{'1' * 40}\tsha256-{'A' * 43}=\tx\n"))
    with pytest.raises(CheckFailed, match=rf"(?s)two revisions have one hash.*{'1' * 40} and {'2' * 40}"):
        published_hashes(project(tmp_path, HEAD + f"v1\t{'1' * 40}\t{HASH}\tx\nv2\t{'2' * 40}\t{HASH}\tx\n"))


def test_one_revision_may_be_pinned_twice() -> None:
    refuse_shared([("one", HASH), ("one", HASH)])
