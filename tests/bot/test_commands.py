"""``track``, ``matrix``, and what ``bot`` prints for people."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from patchforge.cli import parser
from patchforge.commands import bot, matrix, track
from patchforge.errors import Exit, NotChecked, PatchforgeError
from patchforge.project import load_project
from tests.bot.pack_world import BOUND, KEPT, PackWorld
from tests.bot.world import BASE, FIRST, REPOSITORY, SECOND, World, bot_options, git


def options(world: World, **more: object) -> argparse.Namespace:
    generated = world.folder / "checkout" / "generated" / "comfyui"
    if not generated.exists():
        git(world.folder, "clone", "--quiet", str(world.ours), "checkout")
    given = {"upstream": str(world.upstream), "generated": str(generated), "token_file": None, "json": True, **more}
    return argparse.Namespace(**{"release": None, "all": False, "nodes": False, "index": False, **given})


def packs_bot(*words: str) -> int:
    options = parser().parse_args(["packs", "bot", *words])
    return int(options.run(options))


def at_home(world: World) -> None:
    """The commands take the project from our repository's own folder, whose index knows nothing of these releases."""
    folder: Path = world.folder / "checkout" / "upstream"
    for command in (track, matrix):
        world.monkeypatch.setattr(command, "load_project", lambda: load_project(folder=folder))
    world.monkeypatch.setattr(matrix, "resources", SimpleNamespace(path=folder.parent.joinpath))


def test_track_says_what_is_new_and_why_not(world: World) -> None:
    world.release("v0.31.0-rc1")
    world.release(FIRST)
    given = options(world)
    at_home(world)
    assert track.run(given) == Exit.OK
    said = json.loads(world.capsys.readouterr().out)
    assert (said["newest"], [release["version"] for release in said["new"]]) == (BASE, [FIRST])
    assert said["passed"] == [{"tag": "v0.31.0-rc1", "why": "a pre-release", "moved": False}]
    assert said["asked_github"] is False
    given.json = False
    track.run(given)
    said = world.capsys.readouterr().out
    assert f"{BASE} is the newest" in said
    assert "a pre-release" in said
    assert "were not asked for" in said
    assert world.github.log == []


def test_track_adds_the_newest_to_the_index_in_a_checkout_only(world: World) -> None:
    world.release(FIRST)
    given = options(world, index=True)
    at_home(world)
    world.monkeypatch.chdir(world.folder)
    with pytest.raises(PatchforgeError, match=r"writes upstream/comfyui\.releases\.tsv of patchforge's own repository"):
        track.run(given)
    checkout = world.folder / "checkout"
    world.monkeypatch.setattr("patchforge.resources.repository", lambda: checkout)
    world.monkeypatch.chdir(checkout)
    for _ in range(2):
        assert track.run(given) == Exit.OK
    lines = (checkout / "upstream/comfyui.releases.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["version", BASE, FIRST]


@pytest.mark.parametrize("left", [(), ("latest",), ("v0.29.0-rc1",)])
def test_a_clone_without_known_releases_is_not_up_to_date(world: World, left: tuple[str, ...]) -> None:
    for tag in git(world.upstream, "tag").split():
        git(world.upstream, "tag", "--delete", tag)
    for tag in left:
        git(world.upstream, "tag", tag, "main")
    given = options(world)
    at_home(world)
    for command in (track, matrix):
        with pytest.raises(NotChecked, match="none of the 1 releases") as caught:
            command.run(given)
        assert f"git -C {world.upstream} fetch --tags" in caught.value.do
    status, said = world.bot("--dry-run")
    assert status == Exit.UNCHECKED
    assert "what is new cannot be told" in said["error"]
    assert world.github.writes == []


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
        jobs_listed = json.loads(world.capsys.readouterr().out)["include"]
        assert {job["project"] for job in jobs_listed} == {"comfyui"}
        assert all(job["arguments"] in {f"bot {job['name']}", "bot"} for job in jobs_listed)
        return [job["name"] for job in jobs_listed]

    assert jobs() == ["upkeep"]
    world.release(FIRST)
    world.release(SECOND)
    assert jobs() == [SECOND]
    assert jobs(all=True) == [SECOND, FIRST]
    assert jobs(release="0.31.0") == [FIRST]
    given.json = False
    matrix.run(given)
    assert world.capsys.readouterr().out == f"comfyui {SECOND}\n"
    with pytest.raises(PatchforgeError, match="'soon' is not a version"):
        jobs(release="soon")


def test_the_matrix_with_packs(packs: PackWorld) -> None:
    given = options(packs)
    at_home(packs)

    def jobs(**more: object) -> list[tuple[str, str]]:
        """Name and arguments of the jobs for packs, which the bot takes."""
        git(packs.folder / "checkout", "pull", "--quiet")
        matrix.run(options(packs, **more))
        jobs_listed = json.loads(packs.capsys.readouterr().out)["include"]
        assert jobs_listed[0] == {"project": "comfyui", "name": "upkeep", "arguments": "bot"}
        for job in jobs_listed:
            parser().parse_args([*job["arguments"].split(), "--json"])
        return [(job["name"], job["arguments"]) for job in jobs_listed if job["project"] == "nodes"]

    assert jobs() == [("upkeep", "packs bot")]
    packs.move_on(KEPT)
    assert jobs() == [(KEPT, f"packs bot {KEPT}"), ("upkeep", f"packs bot {BOUND}")]
    packs.move_on(BOUND)
    assert jobs() == [(KEPT, f"packs bot {KEPT}"), (BOUND, f"packs bot {BOUND}")]
    for _, arguments in jobs():
        packs.call(*arguments.split())
    assert len(packs.github.pulls) == 2
    given.json, given.release = False, FIRST
    matrix.run(given)
    assert packs.capsys.readouterr().out == f"comfyui {FIRST}\n"


def test_what_the_bot_tells_people(world: World) -> None:
    world.release("v0.31.0-rc1")
    world.release(FIRST)
    named = ["--repository", REPOSITORY, "--remote", str(world.ours), "--upstream", str(world.upstream)]
    bot.run(bot_options(*named, "--dry-run"))
    assert f"would: push patchforge/comfyui-{FIRST} (it is new)" in world.capsys.readouterr().out
    world.give_token()
    bot.run(bot_options(*named))
    said = world.capsys.readouterr().out
    assert "passed over: v0.31.0-rc1: a pre-release" in said
    assert f"done: open pull request patchforge/comfyui-{FIRST}" in said
    world.give_token()
    bot.run(bot_options(*named))
    assert "up to date: nothing to do" in world.capsys.readouterr().out


def test_a_dry_run_on_a_clone_needs_no_repository_and_no_network(world: World) -> None:
    world.release(FIRST)
    git(world.folder, "clone", "--quiet", str(world.ours), "checkout")
    world.monkeypatch.chdir(world.folder / "checkout")
    world.monkeypatch.delenv("GITHUB_TOKEN")
    assert bot.run(bot_options("--dry-run", "--json", "--upstream", str(world.upstream))) == Exit.OK
    said = json.loads(world.capsys.readouterr().out)
    assert [action["do"] for action in said["actions"]] == ["push", "open pull request"]
    assert world.github.log == []


def test_a_dry_run_for_packs_in_a_checkout_asks_no_api(packs: PackWorld) -> None:
    packs.move_on(KEPT)
    packs.move_on(BOUND, date="2090-01-01T00:00:00Z")
    git(packs.folder, "clone", "--quiet", str(packs.ours), "checkout")
    packs.monkeypatch.chdir(packs.folder / "checkout")
    packs.monkeypatch.delenv("GITHUB_TOKEN")
    assert packs_bot("--dry-run") == Exit.OK
    said = packs.capsys.readouterr().out
    assert f"passed over: {BOUND}: made -" in said
    assert f"would: open pull request patchforge/nodes-{KEPT} (it is new)" in said
    assert packs.github.log == []


def test_a_pack_that_does_not_answer_is_not_called_up_to_date(packs: PackWorld) -> None:
    git(packs.folder, "clone", "--quiet", str(packs.ours), "checkout")
    packs.monkeypatch.chdir(packs.folder / "checkout")
    with (packs.folder / "gitconfig").open("a") as settings:
        settings.write(f'[url "https://127.0.0.1:9/"]\n\tinsteadOf = https://github.com/someone/{KEPT}\n')
    assert packs_bot(KEPT, "--dry-run") == Exit.AGAIN
    assert packs.capsys.readouterr().out.endswith("not everything answered: run this again later\n")


@pytest.mark.parametrize("of", ["a checkout elsewhere", "what is installed"])
def test_a_dry_run_outside_of_a_repository_shows_titles_and_bodies(world: World, of: str, tmp_path: Path) -> None:
    world.release(FIRST)
    git(world.folder, "clone", "--quiet", str(world.ours), "checkout")
    checkout = world.folder / "checkout"
    ours = checkout if of == "a checkout elsewhere" else None
    there = SimpleNamespace(repository=lambda: ours, path=checkout.joinpath)
    world.monkeypatch.setattr(bot, "resources", there)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    world.monkeypatch.chdir(elsewhere)
    given = bot_options("--dry-run", "--upstream", str(world.upstream))
    assert bot.run(given) == Exit.OK
    said = world.capsys.readouterr().out
    assert f"would: push patchforge/comfyui-{FIRST}" in said
    assert f"  title: ComfyUI {FIRST}\n  | " in said
    assert "  | <!-- patchforge: {" in said
    assert world.github.log == []
    assert list(elsewhere.iterdir()) == []
