"""History played again: real releases appear one by one. Needs a clone: PATCHFORGE_UPSTREAM names it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge import pipeline
from patchforge.errors import Exit
from patchforge.project import load_project, release_index
from patchforge.rules import transforms
from patchforge.sources import open_upstream
from patchforge.vocabulary import Version
from tests.bot.test_bot_rules import BRANCH, again
from tests.bot.world import TOML, World, bare, git, put
from tests.support import engine_of

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.xdist_group("upstream"),
    pytest.mark.skipif(
        not os.environ.get("PATCHFORGE_UPSTREAM"), reason="PATCHFORGE_UPSTREAM names no clone of ComfyUI"
    ),
]

COMMITS = {str(release.version): release.commit for release in release_index(load_project())}
START = "v0.30.0"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    """Upstream borrows the real clone's objects and has START's tag only; our repository has START."""
    folder = tmp_path / "world"
    upstream, ours = bare(folder / "upstream.git"), bare(folder / "ours.git")
    with open_upstream() as real:
        engine = engine_of(transforms(), cache=tmp_path / "cache")
        patched = pipeline.convert(engine, release := real.resolve(START), real.tree(release))
        borrowed = Path(git(real._objects.path, "rev-parse", "--absolute-git-dir")) / "objects"
    (upstream / "objects" / "info" / "alternates").write_text(f"{borrowed}\n")
    git(upstream, "tag", START, COMMITS[START])
    listed = [version for version in COMMITS if Version.parse(version) <= Version.parse(START)]
    index = "".join(f"{version}\t{COMMITS[version]}\t2026-01-01\n" for version in listed)
    files = {f"generated/comfyui/{START}/{name}": data for name, data in patched.files().items()}
    files["upstream/comfyui.toml"] = TOML.encode()
    files["upstream/comfyui.releases.tsv"] = f"version\tcommit\tdate\n{index}".encode()
    put(ours, files)
    monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path / "patchforge"))
    bot_world = World(folder, engine, monkeypatch, capsys)
    bot_world.publish(START)
    yield bot_world
    bot_world.close()


def appear(world: World, version: str, commit: str = "") -> float:
    """The release's tag appears and the bot runs; seconds until it has ended."""
    git(world.upstream, "tag", version, commit or COMMITS[version])
    world.publish(version)
    begun = time.monotonic()
    world.bot()
    return time.monotonic() - begun


def states(world: World) -> list[tuple[str, str]]:
    return [(pull["title"].removeprefix("ComfyUI "), pull["state"]) for pull in world.github.pulls]


def test_releases_one_by_one(world: World) -> None:
    seconds = {"v0.31.0": appear(world, "v0.31.0")}
    again(world)
    world.merge(1)
    seconds["v0.32.0"] = appear(world, "v0.32.0")
    again(world)
    seconds["v0.33.0"] = appear(world, "v0.33.0")
    again(world)
    assert states(world) == [("v0.31.0", "closed"), ("v0.32.0", "closed"), ("v0.33.0", "open")]
    assert "Superseded by #3." in world.github.comments[2][0]["body"]
    assert list(world.branches()) == [BRANCH.format("v0.33.0")]
    assert "The base branch has v0.31.0" in world.pull(3)["body"]
    for number in (1, 2, 3):
        assert world.pull(number)["draft"] is False
    with world.capsys.disabled():
        print("\nfrom tag to pull request:", ", ".join(f"{name} {took:.1f} s" for name, took in seconds.items()))


def test_all_at_once(world: World) -> None:
    for version in ("v0.31.0", "v0.32.0"):
        git(world.upstream, "tag", version, COMMITS[version])
        world.publish(version)
    appear(world, "v0.33.0")
    assert states(world) == [("v0.33.0", "open")]
    again(world)


def test_a_renamed_target_is_drift_and_is_reported_once(world: World) -> None:
    commit = renamed(world, "v0.33.0", "get_free_memory", "free_memory_of")
    appear(world, "v0.34.0", commit)
    assert world.github.pulls == []
    (issue,) = world.github.issues
    assert issue["title"] == "ComfyUI v0.34.0: a transform drifted"
    assert "expected: def get_free_memory in comfy/model_management.py" in issue["body"]
    status, data = world.bot()
    assert (status, data["writes"]) == (Exit.DRIFTED, 0)
    assert len(world.github.issues) == 1


def renamed(world: World, version: str, name: str, to: str) -> str:
    """A commit of a real release whose function has another name, in definition and calls."""
    path, start = "comfy/model_management.py", COMMITS[version]
    text = git(world.upstream, "show", f"{start}:{path}").replace(name, to) + "\n"
    store = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"],
        cwd=world.upstream,
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    world.monkeypatch.setenv("GIT_INDEX_FILE", str(world.folder / "index"))
    git(world.upstream, "read-tree", start)
    git(world.upstream, "update-index", "--cacheinfo", f"100644,{store.stdout.strip()},{path}")
    tree = git(world.upstream, "write-tree", "--missing-ok")
    world.monkeypatch.delenv("GIT_INDEX_FILE")
    return git(world.upstream, "commit-tree", tree, "-p", start, "-m", "renamed")
