"""``patchforge prefetch`` from outside (pitfalls 8, 10 and 11 among others)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from patchforge.hashes import of_clone, published_hashes
from patchforge.project import load_project
from tests.hashes.test_judges import archived, commit, git, head, judged, repository
from tests.support import ROOT
from tests.valid import fitting

NEWEST = "v0.32.0"
FILES: dict[str, bytes | Path] = {"a/b": b"one\n", "run": b"#!/bin/sh\n", "link": Path("a")}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = repository(tmp_path_factory.mktemp("prefetch") / "work", FILES)
    git(folder, "tag", "-a", "-m", "annotated", "v1.0")
    return folder


def prefetch(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchforge", "prefetch", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def pin(*arguments: object, **environment: str) -> dict[str, Any]:
    done = prefetch(*arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = fitting(json.loads(done.stdout))
    del printed["schema"]
    return printed


def test_a_commit_of_a_clone(work: Path, tmp_path: Path) -> None:
    pinned = pin("some/thing", head(work), "--upstream", work)
    assert pinned == {
        "fetcher": "fetchFromGitHub",
        "owner": "some",
        "repo": "thing",
        "ref": head(work),
        "rev": head(work),
        "hash": judged(archived(work, tmp_path / "out")),
        "provenance": "computed",
        "source": "git objects",
        "fetchSubmodules": False,
        "files": 2,
        "bytes": 14,
        "notes": [],
    }


def test_a_tag_is_peeled_to_its_commit_and_may_move(work: Path, tmp_path: Path) -> None:
    url = tmp_path / "thing.git"
    git(tmp_path, "clone", "-q", "--bare", str(work), str(url))
    before = pin("some/thing", "v1.0", "--upstream", url.as_uri())
    assert (before["rev"], before["ref"]) == (head(work), "v1.0")
    git(tmp_path, "clone", "-q", str(url), "editor")
    commit(tmp_path / "editor", {"new": b"more\n"})
    git(tmp_path / "editor", "tag", "-f", "-a", "-m", "moved", "v1.0")
    git(tmp_path / "editor", "push", "-q", "--force", "origin", "HEAD", "v1.0")
    after = pin("some/thing", "v1.0", "--upstream", url.as_uri())
    assert after["rev"] == head(tmp_path / "editor")
    assert after["hash"] != before["hash"]


def test_text_says_what_was_done(work: Path) -> None:
    done = prefetch("some/thing", "v1.0", "--upstream", work)
    assert done.returncode == 0, done.stderr
    assert f"rev         {head(work)} (v1.0)" in done.stdout
    assert f"hash        {of_clone(work, head(work)).hash}" in done.stdout
    assert "provenance  computed from git objects: 2 files, 14 bytes" in done.stdout


def test_a_tarball_and_a_folder(work: Path, tmp_path: Path) -> None:
    tarball = tmp_path / "thing.tar.gz"
    git(work, "archive", "--format=tar.gz", "--prefix=thing-1/", "-o", str(tarball), "HEAD")
    folder = archived(work, tmp_path / "out")
    expected = of_clone(work, head(work)).hash
    assert pin("some/thing", head(work), "--from", tarball)["hash"] == expected
    assert pin("some/thing", head(work), "--from", folder)["hash"] == expected
    assert prefetch("some/thing", "1" * 40, "--from", tarball).returncode == 2
    assert "a tag can move" in prefetch("some/thing", "v1.0", "--from", tarball).stderr
    assert "is not there" in prefetch("some/thing", "1" * 40, "--from", tmp_path / "x").stderr


def test_submodules_need_a_clone_and_are_said(work: Path, tmp_path: Path) -> None:
    outer = repository(tmp_path / "outer", {"x": b"x"})
    git(outer, "update-index", "--add", "--cacheinfo", f"160000,{head(work)},lib")
    git(outer, "commit", "-q", "-m", "module")
    without = pin("some/thing", head(outer), "--upstream", outer)
    assert [note["kind"] for note in without["notes"]] == ["submodules"]
    assert not without["fetchSubmodules"]
    given = pin("some/thing", head(outer), "--upstream", outer, "--submodule", f"lib={work}")
    shutil.copytree(archived(work, tmp_path / "inner"), tmp_path / "whole" / "lib", symlinks=True)
    (tmp_path / "whole" / "x").write_bytes(b"x")
    assert (given["fetchSubmodules"], given["hash"]) == (True, judged(tmp_path / "whole"))
    assert prefetch("some/thing", head(outer), "--upstream", outer, "--submodule", "lib").returncode == 2


def test_missing_content_is_named_and_there_is_no_hash(tmp_path: Path) -> None:
    work = repository(tmp_path / "work", FILES)
    blob = git(work, "rev-parse", "HEAD:a/b")
    (work / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    done = prefetch("some/thing", head(work), "--upstream", work)
    assert done.returncode == 69
    assert done.stdout == ""
    assert "a/b" in done.stderr
    assert blob in done.stderr


def test_a_published_hash_is_marked_so(work: Path) -> None:
    (known,) = [
        publication for publication in published_hashes(load_project()).values() if publication.version == NEWEST
    ]
    for name in (NEWEST, NEWEST[1:], known.commit):
        pinned = pin("Comfy-Org/ComfyUI", name, "--upstream", work)
        assert (pinned["hash"], pinned["rev"], pinned["provenance"]) == (known.hash, known.commit, "published")
        assert pinned["published_by"] == known.published_by
        assert pinned["because"]
        assert "files" not in pinned
    assert "not computed" in prefetch("Comfy-Org/ComfyUI", NEWEST, "--upstream", work).stdout
    unpublished = prefetch("Comfy-Org/ComfyUI", "v0.0.2", "--upstream", work)
    assert (unpublished.returncode, unpublished.stdout) == (2, "")


def test_a_former_owner_gives_way_to_the_present_one(work: Path) -> None:
    pinned = pin("comfyanonymous/comfyui", NEWEST, PATCHFORGE_UPSTREAM=str(work))
    assert (pinned["owner"], pinned["repo"]) == ("Comfy-Org", "ComfyUI")


def test_a_published_hash_that_the_source_contradicts_is_an_error(work: Path, tmp_path: Path) -> None:
    tarball = tmp_path / "x.tar"
    git(work, "archive", "--prefix=x/", "-o", str(tarball), "HEAD^{tree}")  # notes no commit
    done = prefetch("Comfy-Org/ComfyUI", NEWEST, "--from", tarball)
    assert done.returncode == 1
    assert "not the published one" in done.stderr
    assert done.stdout == ""


def test_nothing_irreproducible_is_offered(work: Path) -> None:
    assert not {"leaveDotGit", "deepClone"} & pin("some/thing", head(work), "--upstream", work).keys()
    assert "leaveDotGit" not in prefetch("--help").stdout


def test_a_package_of_the_index(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"wheel").hexdigest()
    folder = tmp_path / "simple" / "some-pack"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(f'<a href="some_pack-1.0%2Bxpu-py3-none-any.whl#sha256={digest}">x</a>')
    where = {"PIP_INDEX_URL": f"{tmp_path.as_uri()}/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": os.devnull}
    pinned = pin("--pypi", "Some_Pack", "1.0+xpu", **where)
    (file,) = pinned["files"]
    assert pinned["fetcher"] == "fetchurl"
    assert file["url"].endswith("some_pack-1.0%2Bxpu-py3-none-any.whl")
    assert file["provenance"] == "published"
    text = prefetch("--pypi", "some-pack", "1.0+xpu", **where).stdout
    assert text == f"{file['hash']}  some_pack-1.0+xpu-py3-none-any.whl  (published)\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["some/thing"],
        ["some", "rev"],
        ["a/b/c", "rev"],
        ["some/thing", "rev", "--pypi", "x", "1"],
        ["--pypi", "x", "1", "--upstream", "x"],
        ["some/thing", "rev", "--from", "x", "--submodule", "a=b"],
    ],
)
def test_a_line_that_says_too_little_or_too_much(arguments: list[str]) -> None:
    done = prefetch(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "it is not clear what to prefetch" in done.stderr


def test_an_unknown_name_is_an_error(work: Path) -> None:
    done = prefetch("some/thing", "nowhere", "--upstream", work)
    assert done.returncode == 2
    assert "has no 'nowhere'" in done.stderr
