"""A run that is killed before or after any write is finished by the next, with the same end and no duplicate."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import pytest

from tests.bot.pack_world import BOUND, FILES, KEPT, PackWorld
from tests.bot.test_bot_rules import again, drifting
from tests.bot.world import BASE, FIRST, SECOND, THIRD, CrashError, World, git

Scene = Callable[[World], None]


def first(world: World) -> None:
    world.release(FIRST)


def superseding(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.release(SECOND)


def merged(world: World) -> None:
    superseding(world)
    world.bot()
    world.merge(2)
    world.release(THIRD)


def drift(world: World) -> None:
    world.release(FIRST)
    world.release(SECOND, drifting(SECOND))


def solved(world: World) -> None:
    world.release(FIRST, drifting(FIRST))
    world.bot()
    world.release(FIRST, published=False)


def refused(world: World) -> None:
    world.release(BASE, {"extra.py": b"1\n"})
    world.release(FIRST)


def with_tests(world: World) -> None:
    world.commit(
        "main",
        {
            "patchforge/__init__.py": b"",
            "patchforge/__main__.py": b"print('5 of 5')\n",
            "patchforge/commands/test.py": b"",
        },
    )
    world.release(FIRST)


def packs_moved(packs: PackWorld) -> None:
    for name in (KEPT, BOUND):
        packs.move_on(name)


def packs_move_on(packs: PackWorld) -> None:
    packs_moved(packs)
    packs.packs()
    packs.merge(1)
    packs.move_on(BOUND, {"more.py": b"x = 1\n"})


def pack_rewritten(packs: PackWorld) -> None:
    packs_moved(packs)
    packs.packs()
    git(packs.place(KEPT), "update-ref", "-d", "refs/heads/main")
    packs.move_on(KEPT, FILES | {"more.py": b"x = 1\n"})
    git(packs.ours, "update-ref", "refs/heads/main", "refs/heads/patchforge/nodes-beta")


def pack_solved(packs: PackWorld) -> None:
    packs.place(KEPT).rename(packs.folder / "gone")
    packs.packs()
    (packs.folder / "gone").rename(packs.place(KEPT))
    packs.move_on(KEPT)


@pytest.mark.parametrize("scene", [first, superseding, merged, drift, solved, refused, with_tests])
def test_any_crash_converges(world: World, scene: Scene) -> None:
    scene(world)
    converges(world, "--test")


@pytest.mark.parametrize("scene", [packs_moved, packs_move_on, pack_rewritten, pack_solved])
def test_any_crash_with_packs_converges(packs: PackWorld, scene: Callable[[PackWorld], None]) -> None:
    scene(packs)
    converges(packs, "--nodes")


def converges(world: World, argument: str) -> None:
    """One world; after each crash it is put back to how it was before the run."""
    start = Snapshot(world)
    names: list[str] = []
    world.crash = names.append
    world.bot(argument)
    world.crash = lambda _: None
    world.bot(argument)
    expected = world.end_state()
    assert names, "the scene makes no write"
    for at, name in zip(count(), names):
        start.restore(world)
        _crash_at(world, at, argument)
        world.bot(argument)
        assert world.end_state() == expected, f"after a crash {name}"
    again(world, argument)


def _crash_at(world: World, at: int, argument: str) -> None:
    left = count(at, -1)

    def crash(_: str) -> None:
        if next(left) == 0:
            raise CrashError

    world.crash = crash
    with suppress(CrashError):
        world.bot(argument)
    world.crash = lambda _: None


class Snapshot:
    """Our repository's refs and the fake GitHub's state."""

    def __init__(self, world: World) -> None:
        self.refs = git(world.ours, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        github = world.github
        self.state = copy.deepcopy((github.pulls, github.issues, github.comments))

    def restore(self, world: World) -> None:
        names = git(world.ours, "for-each-ref", "--format=%(refname)").splitlines()
        lines = [*(f"delete {name}" for name in names), *(f"create {line}" for line in self.refs)]
        # a name that is both deleted and made may not be in one transaction
        for part in (lines[: len(names)], lines[len(names) :]):
            git(world.ours, "update-ref", "--stdin", given="".join(f"{line}\n" for line in part).encode())
        pulls, issues, comments = copy.deepcopy(self.state)
        world.github.pulls[:], world.github.issues[:] = pulls, issues
        world.github.comments.clear()
        world.github.comments.update(comments)
