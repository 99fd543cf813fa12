"""What permissions close: it is said before the work, and nothing counts as not there because nobody may look."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from patchforge.errors import Exit
from tests.checkout.places import PACK, content, fill
from tests.support import bound, miniature

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs modes")


@pytest.fixture
def shut() -> Iterator[Callable[[Path, int], None]]:
    """Sets the mode of a folder for one test."""
    folders: list[Path] = []

    def close(folder: Path, mode: int) -> None:
        folders.append(folder)
        folder.chmod(mode)

    yield close
    for folder in folders:
        folder.chmod(0o755)


LOOKED_AT = (
    "status {}/x",
    "packs check {}/x",
    "packs apply {}/x/y/z",
    "apply {}/x --in-place",
    "doctor {}/x",
    "check --generated {}/x",
    "models list --ollama {}/x",
    "health --state {}/x http://127.0.0.1:9",
)


@pytest.mark.parametrize("words", LOOKED_AT)
def test_what_nobody_may_look_at_is_not_called_not_there(
    words: str, tmp_path: Path, shut: Callable[[Path, int], None]
) -> None:
    (closed := tmp_path / "closed").mkdir()
    shut(closed, 0)
    done = bound(*words.format(closed).split())
    assert done.returncode == Exit.SYSTEM, done.stderr
    assert "not there" not in done.stderr
    assert f"found: {closed} is closed to you" in done.stderr or "Permission denied" in done.stderr
    assert "to do: " in done.stderr


@pytest.mark.parametrize(
    "words",
    ["status --generated {}", "bench history {}", "bench costs --generated {}"],
)
@pytest.mark.parametrize("within", ["", "v9.0.0"])
def test_a_folder_that_cannot_be_read_is_not_an_empty_one(
    words: str, within: str, tmp_path: Path, shut: Callable[[Path, int], None]
) -> None:
    fill(tmp_path / "made", {"v9.0.0/manifest.json": b"{}", "v9.0.0/benchmark.json": b"{}"})
    (tmp_path / "costs").mkdir()
    (tmp_path / "costs" / "made").mkdir()
    shut(tmp_path / "made" / within, 0)
    if "costs" in words:
        shut(tmp_path / "costs" / "made", 0)
    done = bound(*words.format(tmp_path / "made").split())
    assert done.returncode == Exit.SYSTEM, done.stderr
    assert "Permission denied" in done.stderr


def test_records_that_cannot_be_listed_are_an_error(tmp_path: Path, shut: Callable[[Path, int], None]) -> None:
    (tmp_path / "state").mkdir()
    shut(tmp_path / "state", 0)
    done = bound("exporter", "--once", "--state", tmp_path / "state")
    assert f'patchforge_record_error{{record="{tmp_path}/state"}} 1.0' in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        "apply --from {release} --out {read_only}/new",
        "apply --from {release} --out {read_only}/deeper/new",
        "apply --from {release} --to {read_only}/new",
        "apply {read_only}/ComfyUI --in-place",
        "packs apply {pack} --out {read_only}/new",
        "packs apply {read_only}/pack --in-place",
        "packs check {pack} --sarif {read_only}/new.json",
    ],
)
def test_where_nothing_may_be_written_is_told_before_the_work(
    words: str, tmp_path: Path, shut: Callable[[Path, int], None]
) -> None:
    read_only = tmp_path / "read-only"
    fill(read_only / "ComfyUI", miniature("v0.33.0"))
    fill(read_only / "pack", PACK)
    fill(tmp_path / "release", miniature("v0.33.0"))
    fill(tmp_path / "pack", PACK)
    for folder in (read_only, read_only / "ComfyUI", read_only / "pack"):
        shut(folder, 0o555)
    before = content(read_only)
    named = words.format(release=tmp_path / "release", pack=tmp_path / "pack", read_only=read_only)
    done = bound(*named.split(), PATCHFORGE_CACHE=str(tmp_path / "fresh"))
    assert done.returncode == Exit.SYSTEM, done.stderr
    assert f"patchforge: {read_only}" in done.stderr
    if "--in-place" in words:  # the folder that the user knows, not a file that was to come
        assert Path(done.stderr.removeprefix("patchforge: ").split(" ")[0]).is_dir(), done.stderr
    assert not (tmp_path / "fresh").exists()  # nothing was converted
    assert content(read_only) == before
