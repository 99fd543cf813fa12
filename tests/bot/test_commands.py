"""``track``, ``matrix``, and what ``bot`` prints for people."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from patchforge.commands import bot, matrix, track
from patchforge.errors import Exit
from patchforge.project import load_project
from tests.bot.world import BASE, FIRST, REPOSITORY, SECOND, World, git, parser


def options(world: World, **more: object) -> argparse.Namespace:
    generated = world.folder / "checkout" / "generated" / "comfyui"
    if not generated.exists():
        git(world.folder, "clone", "--quiet", str(world.ours), "checkout")
    given = {"upstream": str(world.upstream), "generated": str(generated), "token_file": None, "json": True, **more}
    return argparse.Namespace(**{"release": None, "all": False, **given})


def at_home(world: World) -> None:
    """The commands take the project from our repository's own folder, whose index knows nothing of these releases."""
    folder: Path = world.folder / "checkout" / "upstream"
    for command in (track, matrix):
        world.monkeypatch.setattr(command, "load_project", lambda: load_project(folder=folder))


def test_track_says_what_is_new_and_why_not(world: World) -> None:
    world.release("v0.31.0-rc1")
    world.release(FIRST)
    given = options(world)
    at_home(world)
    assert track.run(given) == Exit.OK
    said = json.loads(world.capsys.readouterr().out)
    assert (said["newest"], [one["version"] for one in said["new"]]) == (BASE, [FIRST])
    assert said["passed"] == [{"tag": "v0.31.0-rc1", "why": "a pre-release", "moved": False}]
    assert said["asked_github"] is False
    given.json = False
    track.run(given)
    said = world.capsys.readouterr().out
    assert f"{BASE} is the newest" in said
    assert "a pre-release" in said
    assert "were not asked for" in said
    assert world.github.log == []


def test_track_of_a_moved_tag(world: World) -> None:
    world.release(BASE, {"extra.py": b"1\n"})
    given = options(world)
    at_home(world)
    assert track.run(given) == Exit.FAILED
    assert "the tag was moved" in world.capsys.readouterr().out


def test_the_matrix(world: World) -> None:
    given = options(world)
    at_home(world)

    def jobs(**more: object) -> list[str]:
        assert matrix.run(options(world, **more)) == Exit.OK
        return [job["version"] for job in json.loads(world.capsys.readouterr().out)["include"]]

    assert jobs() == [""]
    world.release(FIRST)
    world.release(SECOND)
    assert jobs() == [SECOND]
    assert jobs(all=True) == [FIRST, SECOND]
    assert jobs(release="0.31.0") == [FIRST]
    given.json = False
    matrix.run(given)
    assert world.capsys.readouterr().out == f"comfyui {SECOND}\n"


def test_what_the_bot_tells_people(world: World) -> None:
    world.release("v0.31.0-rc1")
    world.release(FIRST)
    named = ["--repository", REPOSITORY, "--remote", str(world.ours), "--upstream", str(world.upstream)]
    bot.run(parser().parse_args([*named, "--dry-run"]))
    assert f"would: push patchforge/comfyui-{FIRST} (a new version)" in world.capsys.readouterr().out
    bot.run(parser().parse_args(named))
    said = world.capsys.readouterr().out
    assert "passed over: v0.31.0-rc1: a pre-release" in said
    assert f"done: open pull request patchforge/comfyui-{FIRST}" in said
    bot.run(parser().parse_args(named))
    assert "up to date: nothing to do" in world.capsys.readouterr().out


def test_a_dry_run_on_a_clone_needs_no_repository_and_no_network(world: World) -> None:
    world.release(FIRST)
    git(world.folder, "clone", "--quiet", str(world.ours), "checkout")
    world.monkeypatch.chdir(world.folder / "checkout")
    world.monkeypatch.delenv("GITHUB_TOKEN")
    assert bot.run(parser().parse_args(["--dry-run", "--json", "--upstream", str(world.upstream)])) == Exit.OK
    said = json.loads(world.capsys.readouterr().out)
    assert [one["do"] for one in said["actions"]] == ["push", "open pull request"]
    assert world.github.log == []
