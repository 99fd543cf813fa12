"""What counts as new, and why everything else does not."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from pathlib import Path

import pytest

from patchforge.bot.discovery import Discovery, compare_as_nix, discover, is_newer, list_tags
from patchforge.bot.model import GitHubRelease
from patchforge.errors import PatchforgeError, TryAgain
from patchforge.project import Track, load_project
from patchforge.vocabulary import Version
from tests.bot.world import TOML, bare, git, put

NOW = datetime(2026, 8, 20, tzinfo=UTC)
ONE, TWO = "1" * 40, "2" * 40
OURS = Version.parse("v0.30.0")


def published(tag: str, days: float = 1, *, prerelease: bool = False) -> GitHubRelease:
    return GitHubRelease(tag, tag, "", prerelease, NOW - timedelta(days=days))


def found(
    tags: dict[str, str], *releases: GitHubRelease, asked: bool = True, track: Track | None = None, age: float = 0
) -> Discovery:
    project = replace(load_project(), track=track or Track())
    known = {OURS: ONE}
    given = list(releases) if asked else None
    return discover(project, tags, given, known=known, ours=[OURS], age=lambda _: timedelta(days=age), now=NOW)


def new(result: Discovery) -> list[str]:
    return [release.tag for release in result.new]


def why(result: Discovery, tag: str) -> str:
    return next(passed.why for passed in result.passed if passed.tag == tag)


def test_a_release_is_new() -> None:
    result = found({"v0.30.0": ONE, "v0.31.0": TWO}, published("v0.31.0"))
    assert new(result) == ["v0.31.0"]
    assert result.new[0].commit == TWO
    assert result.newest == OURS


def test_what_is_not_newer_is_not_new() -> None:
    assert new(found({"v0.30.0": ONE, "v0.9.0": TWO, "v0.3.77": TWO}, published("v0.9.0"))) == []


@pytest.mark.parametrize(
    "tag", ["v0.31.0-rc1", "v0.31.0rc2", "v0.31.0-alpha.1", "v0.31.0.dev4", "v1.0-nightly", "v0.31.0b1"]
)
def test_tags_of_pre_releases(tag: str) -> None:
    result = found({tag: TWO}, published(tag), track=Track("tags"))
    assert new(result) == []
    assert why(result, tag) == "a pre-release"


@pytest.mark.parametrize("tag", ["latest", "nightly", "list", "version-2"])
def test_tags_that_name_no_version(tag: str) -> None:
    assert why(found({tag: TWO}, track=Track("tags")), tag) == "not the name of a version"


def test_what_github_calls_a_pre_release() -> None:
    result = found({"v0.31.0": TWO}, published("v0.31.0", prerelease=True))
    assert new(result) == []
    assert why(result, "v0.31.0") == "GitHub calls it a pre-release"


def test_a_tag_without_a_release_waits() -> None:
    tags = {"v0.31.0": TWO}
    assert "taken after 3" in why(found(tags, age=2.9), "v0.31.0")
    assert new(found(tags, age=3)) == ["v0.31.0"]


def test_a_release_without_a_tag() -> None:
    assert "git has no such tag" in why(found({}, published("v0.31.0")), "v0.31.0")


def test_channels() -> None:
    tags = {"v0.31.0": TWO, "v0.32.0": TWO}
    only = published("v0.31.0")
    assert new(found(tags, only, track=Track("releases"), age=99)) == ["v0.31.0"]
    assert why(found(tags, only, track=Track("releases"), age=99), "v0.32.0") == "it has no release on GitHub"
    assert new(found(tags, only, track=Track("tags"))) == ["v0.31.0", "v0.32.0"]
    assert new(found(tags, only, track=Track("both"), age=0)) == ["v0.31.0"]
    assert new(found(tags, asked=False)) == ["v0.31.0", "v0.32.0"]


def test_a_release_can_have_to_wait() -> None:
    tags = {"v0.31.0": TWO}
    assert "released 1.0 days ago; it is taken after 2" in why(
        found(tags, published("v0.31.0", 1), track=Track("both", release_days=2)), "v0.31.0"
    )
    assert new(found(tags, published("v0.31.0", 2), track=Track("both", release_days=2))) == ["v0.31.0"]


def test_a_moved_tag_names_both_commits() -> None:
    result = found({"v0.30.0": TWO}, published("v0.30.0"))
    assert new(result) == []
    assert ONE in why(result, "v0.30.0")
    assert TWO in why(result, "v0.30.0")
    assert result.passed[0].moved


def test_versions_are_in_numeric_order() -> None:
    tags = {f"v0.{minor}.0": TWO for minor in (100, 31, 99)}
    assert new(found(tags, track=Track("tags"))) == ["v0.31.0", "v0.99.0", "v0.100.0"]


@pytest.mark.parametrize(
    ("newer", "other"), [("v0.3.10", "v0.3.9"), ("v0.31.0", "v0.30.9"), ("v1.0", "v0.99.99"), ("v0.30.0.1", "v0.30.0")]
)
def test_newer_by_both_orders(newer: str, other: str) -> None:
    assert is_newer(Version.parse(newer), Version.parse(other))
    assert not is_newer(Version.parse(other), Version.parse(newer))


def test_a_trailing_zero_is_not_newer() -> None:
    """Nix calls 1.0.0 newer than 1.0; PEP 440 calls them equal."""
    assert compare_as_nix("1.0.0", "1.0") == 1
    assert not is_newer(Version.parse("1.0.0"), Version.parse("1.0"))


def test_the_order_of_nix() -> None:
    """The examples in Nix's manual, and what follows from its code for letters."""
    ordered = ["2.3pre1", "2.3pre3", "2.3", "2.3a", "2.3.1", "2.3.1.1", "2.4", "2.10"]
    assert all(
        compare_as_nix(version, other) == -1
        for version, other in pairwise(ordered)
        if (version, other) != ("2.3", "2.3a")
    )
    assert compare_as_nix("2.3c", "2.3.1") == -1
    assert compare_as_nix("2.3pre3", "2.3c") == -1
    assert compare_as_nix("1.0", "1.0") == 0


@pytest.mark.skipif(shutil.which("nix-instantiate") is None, reason="nix is not installed")
def test_the_order_is_that_of_the_real_nix() -> None:
    parts = ["", "0", "00", "1", "9", "10", "a", "pre", "rc1", "1a", "pre2", "1.0", "1-pre", "1.a.2", "a1", "..", "-"]
    versions = [*parts, *(f"1.{part}" for part in parts), *(f"{part}.3" for part in parts)]
    listed = "[" + " ".join(f'"{version}"' for version in versions) + "]"
    every = f"with builtins; let v = {listed}; in concatMap (a: map (compareVersions a) v) v"
    command = ["nix-instantiate", "--eval", "--strict", "--json", "-E", every]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    pairs = list(product(versions, versions))
    wrong = [
        (pair, said) for pair, said in zip(pairs, json.loads(done.stdout), strict=True) if compare_as_nix(*pair) != said
    ]
    assert len(pairs) > 2000
    assert wrong == []


def test_an_annotated_tag_leads_to_its_commit(tmp_path: Path) -> None:
    origin = bare(tmp_path / "origin.git")
    commit = put(origin, {"a": b"1"})
    git(origin, "tag", "--annotate", "--message", "said", "v1.0")
    git(origin, "tag", "v2.0")
    assert list_tags(str(origin)) == ({"v1.0": commit, "v2.0": commit}, [])


def test_no_repository_there(tmp_path: Path) -> None:
    with pytest.raises(PatchforgeError, match="is not a git repository"):
        list_tags(f"{tmp_path}/nothing")


def test_an_unreachable_host_is_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchforge.git.command._PAUSE", 0)
    with pytest.raises(TryAgain, match="did not reach the server"):
        list_tags("http://127.0.0.1:9/nothing.git")


@pytest.mark.parametrize(
    "track", ['channel = "all"', "tag_days = -1", "tag_days = true", 'tag_days = "3"', "days = 3", "channel = 1"]
)
def test_a_policy_that_cannot_be_meant(tmp_path: Path, track: str) -> None:
    (tmp_path / "comfyui.toml").write_text(TOML.partition("[track]")[0] + f"[track]\n{track}\n")
    with pytest.raises(PatchforgeError, match="track"):
        load_project(folder=tmp_path)


def test_without_a_policy(tmp_path: Path) -> None:
    (tmp_path / "comfyui.toml").write_text(TOML.partition("[track]")[0])
    assert load_project(folder=tmp_path).track == Track("both", 0, 3)
