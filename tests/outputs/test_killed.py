"""Killed at any call that changes the disk: what is there is whole, and a second run ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from patchforge import atomic, caches, pipeline
from patchforge.engine.cache import FILES, Cache
from patchforge.engine.records import FileRecord
from patchforge.git.clone import CachedClone
from patchforge.outputs import PATCHES, listed, mark, marked, write_document, write_folder
from tests.outputs.world import patches
from tests.support import MemoryTree

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked for each kill")

TREE = {"main.py": b"1", "comfy/a.py": b"22", "comfy/b/c.py": b""}
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate"}


def killed(fatal: int, act: Callable[[], object]) -> bool:
    """Forks and kills at change number ``fatal``; False when there is none and the act ended by itself."""
    child = os.fork()
    if child == 0:
        _act(fatal, act)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _act(fatal: int, act: Callable[[], object]) -> None:
    left = fatal

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in _CHANGES or writes:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.addaudithook(watch)
        act()
        status = 0
    finally:
        os._exit(status)


def files(folder: Path) -> dict[str, bytes] | None:
    if not folder.is_dir():
        return None
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".file.patchforge-"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@dataclass(frozen=True)
class Case:
    """What is there before, what is done, and what may be seen."""

    name: str
    before: Callable[[Path], object]
    act: Callable[[Path], object]
    after: dict[str, bytes]
    between: tuple[dict[str, bytes] | None, ...] = ()  #: what a kill may leave, but for what is there after
    exchange: bool = True

    def __str__(self) -> str:
        return self.name


def _nothing(_: Path) -> None:
    pass


def _old(out: Path) -> None:
    write_folder(out, patches("+old\n"), PATCHES)


def _new(out: Path) -> None:
    write_folder(out, patches("+new\n"), PATCHES)


def _to(out: Path) -> None:
    pipeline.write_whole(MemoryTree(TREE), out)


def _marked(number: int) -> dict[str, bytes]:
    return {"file": marked(f"# {mark()}\n{number}\n")}


def _document(number: int) -> Callable[[Path], object]:
    return lambda out: write_document(out / "file", _marked(number)["file"])


def _cached(number: int) -> Callable[[Path], object]:
    return lambda out: caches.write_tree(out, {"a": b"%d" % number, "b/c": b"%d" % number})


OLD, NEW = listed(patches("+old\n")), listed(patches("+new\n"))
CASES = [
    Case("out, new", _nothing, _new, NEW, (None,)),
    Case("out, into an empty folder", Path.mkdir, _new, NEW, (None, {})),
    Case("out, again", _old, _new, NEW, (OLD,)),
    Case("out, again, without an exchange", _old, _new, NEW, (OLD, None), exchange=False),
    Case("to, new", _nothing, _to, TREE, (None,)),
    Case("to, into an empty folder", Path.mkdir, _to, TREE, (None, {})),
    Case("file, new", _nothing, _document(2), _marked(2), (None, {})),
    Case("file, again", _document(1), _document(2), _marked(2), (_marked(1),)),
    Case("cache, new", _nothing, _cached(2), listed({"a": b"2", "b/c": b"2"}), (None,)),
    Case("cache, again", _cached(1), _cached(2), listed({"a": b"2", "b/c": b"2"}), (listed({"a": b"1", "b/c": b"1"}),)),
]
COUNTED: dict[str, int] = {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_second_run_ends_as_if_nothing_had_been(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not case.exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda first, other: False)
    for fatal in range(200):
        top = tmp_path / str(fatal)
        top.mkdir()
        (top / "mine").write_bytes(b"mine")
        (top / ".out.patchforge-new").mkdir()
        out = top / "out"
        case.before(out)
        was_killed = killed(fatal, partial(case.act, out))
        if was_killed:
            assert files(out) in (case.after, *case.between)
            case.act(out)
        assert files(out) == case.after
        assert not list(out.glob(".*.patchforge-*"))
        assert {path.name for path in top.iterdir()} == {"mine", "out", ".out.patchforge-new"}
        assert (top / "mine").read_bytes() == b"mine"
        if not was_killed:
            COUNTED[case.name] = fatal
            return
    pytest.fail("it never ended")


def test_there_were_many_moments_to_be_killed_at() -> None:
    if set(COUNTED) != {case.name for case in CASES}:
        pytest.skip("the cases run elsewhere")
    assert sum(COUNTED.values()) >= 60, COUNTED


def _git(*arguments: str) -> None:
    setting = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *setting, *arguments], check=True, capture_output=True)


def test_a_cache_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder, its clones and its results: after any kill the next run finds or makes them."""
    origin = tmp_path / "origin"
    _git("init", "--quiet", str(origin))
    _git("-C", str(origin), "commit", "--quiet", "--allow-empty", "-m", "x")
    records = {("a.py", "b" * 40): FileRecord()}

    def use() -> None:
        clone = CachedClone.of(origin.as_uri())
        if not clone.ensure():
            clone.fetch()
        cache = Cache(caches.folder("results"), FILES)
        cache.put(records)
        assert cache.get(records) == records

    monkeypatch.setattr("patchforge.git.clone.STALE_LOCK", 0.0)
    for fatal in range(60):
        monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path / str(fatal)))
        was_killed = killed(fatal, use)
        use()
        home = caches.home()
        assert {path.name for path in home.iterdir()} == {caches.MARK, "clones", "results"}
        clones = [path for path in (home / "clones").iterdir() if path.suffix != ".lock"]
        assert [path.suffix for path in clones] == [".git"]
        if not was_killed:
            break
    assert fatal >= 10
