"""Node packs against their pins, with bare repositories on disk in the place of GitHub's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from patchforge.bot.follow import Followed, FollowState, follow
from patchforge.commands.packs import track
from patchforge.errors import Exit, PatchforgeError
from patchforge.git import command as git_command
from patchforge.pins import pin_files
from patchforge.pins.pin_files import RepositoryPin
from patchforge.pins.tracked import load_repository
from tests.bot.world import bare, git, put

NOW = datetime(2026, 1, 20, tzinfo=UTC)
OLD, YOUNG = "2026-01-10T00:00:00Z", "2026-01-18T12:00:00Z"


class Packs:
    """An ``upstream`` folder and the repositories that it names."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.upstream = folder, folder / "upstream"
        (self.upstream / "nodes").mkdir(parents=True)
        (self.upstream / "pins").mkdir()
        pin_files.save("nodes", {}, self.upstream / "pins")

    def add(self, name: str, more: str = 'branch = "main"\n', *, pinned: bool = True) -> str:
        """A pack with one old commit, pinned; returns the commit."""
        bare(self.folder / "someone" / name)
        commit = self.commit(name, b"1", OLD)
        url = f"https://github.com/someone/{name}"
        (self.upstream / "nodes" / f"{name}.toml").write_text(
            f'name = "{name}"\ntitle = "{name}"\nurl = "{url}"\nlicense = "MIT"\ngroup = "samplers"\n{more}'
        )
        if pinned:
            self.pin(name, commit)
        return commit

    def pin(self, name: str, commit: str) -> None:
        folder = self.upstream / "pins"
        pin = RepositoryPin(owner="someone", repo=name, rev=commit, date="", license="MIT", submodules=False)
        pin_files.save("nodes", {**pin_files.load("nodes", folder), name: pin}, folder)

    def commit(self, name: str, data: bytes, date: str) -> str:
        return put(self.folder / "someone" / name, {"pack.py": data}, date=date)

    def found(self) -> dict[str, Followed]:
        return {pack.name: pack for pack in follow(self.upstream, now=NOW)}


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packs:
    """GitHub's address leads to the test's folder."""
    settings = tmp_path / "gitconfig"
    settings.write_text(f'[url "{tmp_path.as_uri()}/"]\n\tinsteadOf = https://github.com/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(git_command, "_PAUSE", 0.01)
    return Packs(tmp_path)


def test_a_pack_at_its_pin(packs: Packs) -> None:
    commit = packs.add("one")
    assert packs.found()["one"] == Followed("one", "main", commit, FollowState.PINNED, commit)


def test_an_old_commit_is_new(packs: Packs) -> None:
    pinned = packs.add("one")
    head = packs.commit("one", b"2", "2026-01-12T00:00:00Z")
    pack = packs.found()["one"]
    assert (pack.state, pack.pinned, pack.head, pack.commit, pack.why) == (FollowState.NEW, pinned, head, head, "")
    assert datetime.fromisoformat(pack.date) == datetime(2026, 1, 12, tzinfo=UTC)


def test_a_young_commit_waits(packs: Packs) -> None:
    packs.add("one")
    packs.commit("one", b"2", YOUNG)
    pack = packs.found()["one"]
    assert (pack.state, pack.commit, pack.why) == (FollowState.WAITS, "", "made 1.5 days ago; it is taken after 7")


def test_the_minimum_age_is_the_packs_own(packs: Packs) -> None:
    packs.add("one", 'branch = "main"\nbranch_days = 1.5\n')
    packs.add("two", 'branch = "main"\nbranch_days = 30\n')
    for name in ("one", "two"):
        packs.commit(name, b"2", YOUNG)
    followed = packs.found()
    assert followed["one"].state is FollowState.NEW
    assert "after 30" in followed["two"].why


def test_without_a_minimum_age_the_head_is_taken(packs: Packs) -> None:
    packs.add("one", 'branch = "main"\nbranch_days = 0\n')
    head = packs.commit("one", b"2", "2090-01-01T00:00:00Z")
    assert packs.found()["one"].commit == head


def test_below_a_young_head_an_older_commit_is_taken(packs: Packs) -> None:
    packs.add("one")
    commit = packs.commit("one", b"2", "2026-01-12T00:00:00Z")
    head = packs.commit("one", b"3", YOUNG)
    pack = packs.found()["one"]
    assert (pack.state, pack.commit, pack.head) == (FollowState.NEW, commit, head)
    assert pack.date.startswith("2026-01-12")
    packs.pin("one", commit)
    assert packs.found()["one"].state is FollowState.WAITS
    packs.pin("one", head)
    packs.commit("one", b"4", YOUNG)
    assert packs.found()["one"].state is FollowState.WAITS  # never back behind the pin


def test_of_a_merged_branch_only_the_merge_is_taken(packs: Packs) -> None:
    """Its own commits are older, and the branch that is followed never stood at them."""
    packs.add("one")
    place, scratch = packs.folder / "someone" / "one", packs.folder / "merging"
    git(packs.folder, "clone", "--quiet", str(place), str(scratch))
    git(scratch, "checkout", "--quiet", "-b", "side")
    git(scratch, "commit", "--quiet", "--allow-empty", "--message", "aside", date="2026-01-11T00:00:00Z")
    git(scratch, "checkout", "--quiet", "main")
    git(scratch, "merge", "--quiet", "--no-ff", "--message", "merge", "side", date=YOUNG)
    git(scratch, "push", "--quiet", "origin", "main")
    assert packs.found()["one"].state is FollowState.WAITS


def test_a_server_that_leaves_files_out(packs: Packs) -> None:
    """As GitHub does when it is asked for commits only."""
    pinned = packs.add("one")
    git(packs.folder / "someone" / "one", "config", "uploadpack.allowFilter", "true")
    commit = packs.commit("one", b"2", "2026-01-12T00:00:00Z")
    packs.commit("one", b"3", YOUNG)
    pack = packs.found()["one"]
    assert (pack.state, pack.pinned, pack.commit) == (FollowState.NEW, pinned, commit)


@pytest.mark.parametrize(
    ("days", "why"),
    [
        ("-1", "malformed: branch_days"),
        ('"7"', r"branch_days in .*one\.toml is not what it should be"),
        ("true", r"branch_days in .*one\.toml is not what it should be"),
    ],
)
def test_a_minimum_age_that_is_none(packs: Packs, days: str, why: str) -> None:
    packs.add("one", f'branch = "main"\nbranch_days = {days}\n')
    with pytest.raises(PatchforgeError, match=why):
        load_repository(packs.upstream / "nodes" / "one.toml")


def test_a_branch_of_another_name(packs: Packs) -> None:
    packs.add("one", 'branch = "stable"\n')
    assert packs.found()["one"].why == "https://github.com/someone/one has no branch stable"


def test_a_pack_that_is_not_pinned_yet(packs: Packs) -> None:
    commit = packs.add("one", pinned=False)
    pack = packs.found()["one"]
    assert (pack.state, pack.pinned, pack.commit) == (FollowState.NEW, "", commit)


def test_a_rewritten_branch(packs: Packs) -> None:
    pinned = packs.add("one")
    git(packs.folder / "someone" / "one", "update-ref", "-d", "refs/heads/main")
    packs.commit("one", b"other", OLD)
    pack = packs.found()["one"]
    assert pack.state is FollowState.WRONG
    assert pack.why.endswith(f"it lacks the pinned {pinned}")


@pytest.mark.parametrize("annotated", [False, True])
def test_a_pack_that_is_held_at_a_version(packs: Packs, *, annotated: bool) -> None:
    pinned = packs.add("one", 'version = "1.2"\n')
    place = packs.folder / "someone" / "one"
    assert packs.found()["one"].why.endswith("has no tag v1.2")
    message = ["-a", "-m", "x"] if annotated else []
    git(place, "tag", *message, "v1.2", pinned)
    packs.commit("one", b"2", OLD)
    assert packs.found()["one"] == Followed("one", "v1.2", pinned, FollowState.PINNED, pinned)
    git(place, "tag", "--force", *message, "v1.2", "main")
    assert "the tag was moved: it was " + pinned in packs.found()["one"].why
    packs.pin("one", "")
    assert packs.found()["one"].state is FollowState.NEW


def test_one_that_does_not_answer_leaves_the_others(packs: Packs) -> None:
    packs.add("one")
    packs.add("two")
    head = packs.commit("two", b"2", OLD)
    (packs.folder / "someone" / "one").rename(packs.folder / "gone")
    followed = packs.found()
    assert "does not answer" in followed["one"].why
    assert followed["one"].state is FollowState.WRONG
    assert (followed["two"].state, followed["two"].head) == (FollowState.NEW, head)


@pytest.fixture
def command(packs: Packs, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(track, "resources", SimpleNamespace(path=packs.folder.joinpath))
    return lambda *, as_json: track.run(argparse.Namespace(json=as_json))


def test_the_command(packs: Packs, command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    pinned = packs.add("one")
    packs.add("two")
    head = packs.commit("one", b"2", OLD)
    assert command(as_json=True) == Exit.OK
    said = json.loads(capsys.readouterr().out)["nodes"]
    assert [(pack["name"], pack["state"]) for pack in said] == [("one", "new"), ("two", "pinned")]
    assert (said[0]["pinned"], said[0]["commit"]) == (pinned, head)
    assert command(as_json=False) == Exit.OK
    shown = capsys.readouterr().out
    assert f"new     one  main  {pinned[:12]} → {head[:12]} 2026-01-10" in shown
    assert "pinned  two" in shown


def test_the_exit_status(packs: Packs, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    packs.add("one")
    (packs.folder / "someone" / "one").rename(packs.folder / "gone")
    assert command(as_json=True) == Exit.FAILED
    address = 'insteadOf = https://github.com/\n[http]\n\tproxy = ""\n'
    settings = packs.folder / "gitconfig"
    settings.write_text(f'[url "https://127.0.0.1:1/"]\n\t{address}')
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "http")
    assert command(as_json=True) == Exit.AGAIN
