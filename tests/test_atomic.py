"""Folders and files that are whole at every moment, also under SIGKILL."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from patchforge import atomic
from patchforge.errors import Exit, PatchforgeError, SystemFault
from patchforge.faults import told

OLD = {"a.patch": b"old a", "deep/er/b.patch": b"old b", "gone": b"x"}
NEW = {"a.patch": b"new a, longer", "deep/er/b.patch": b"", "deep/c": b"\x00\xff"}
ROOT = Path(__file__).resolve().parent.parent

KILLED = """
import os, signal, sys
from functools import partial
from pathlib import Path
from patchforge import atomic

fatal, exchange, what, target = int(sys.argv[1]), sys.argv[2] == "exchange", sys.argv[3], Path(sys.argv[4])
files = eval(sys.argv[5])
left = fatal
def step(name):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
def ours(folder):
    pass
if not exchange:
    atomic._exchange = lambda one, other: False
if what == "recover":
    atomic.recover(target, ours=ours, step=step)
elif what == "tree":
    atomic.write_tree(target, files, ours=ours, step=step)
else:
    atomic.write_file(target, files, step=step)
"""


def ours(_: Path) -> None:
    """Whatever is there may be replaced; what may be is for test_outputs to ask."""


def run(fatal: int, exchange: str, what: str, target: Path, files: object) -> bool:
    """Runs and kills at step number ``fatal``; False when the run has no such step."""
    command = [sys.executable, "-c", KILLED, str(fatal), exchange, what, str(target), repr(files)]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def content(folder: Path) -> dict[str, bytes] | None:
    if not folder.exists():
        return None
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("exchange", ["exchange", "renames"])
@pytest.mark.parametrize("old", [OLD, None])
def test_a_folder_is_whole_after_a_kill_at_any_step(
    exchange: str, old: dict[str, bytes] | None, tmp_path: Path
) -> None:
    seen = []
    for fatal in range(100):
        target = tmp_path / str(fatal) / "out"
        if old:
            atomic.write_tree(target, old, ours=ours)
        if not (killed := run(fatal, exchange, "tree", target, NEW)):
            break
        if exchange == "exchange" and old:
            assert content(target) in (old, NEW), "an exchange needs no recovery"
        atomic.recover(target, ours=ours)
        seen.append(content(target))
        assert seen[-1] in (old, NEW)
        assert list(target.parent.iterdir()) == ([target] if target.exists() else [])
        assert atomic.write_tree(target, NEW, ours=ours) is (seen[-1] != NEW)
        assert content(target) == NEW
    assert not killed
    assert content(target) == NEW
    assert old in seen, "no kill came early enough to leave the old content"
    assert NEW in seen, "no kill came late enough to leave the new content"
    assert seen == sorted(seen, key=lambda files: files == NEW), "it never goes back"


def test_a_kill_during_recovery_is_recovered_from(tmp_path: Path) -> None:
    """The fallback dies between its renames; then recovery dies at each of its steps."""
    names: list[str] = []
    atomic.write_tree(tmp_path / "probe" / "out", OLD, ours=ours)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "_exchange", lambda first, other: False)
        atomic.write_tree(tmp_path / "probe" / "out", NEW, step=names.append, ours=ours)
    between = len(names) - 1 - names[::-1].index("rename in")
    for fatal in range(100):
        target = tmp_path / str(fatal) / "out"
        atomic.write_tree(target, OLD, ours=ours)
        assert run(between, "renames", "tree", target, NEW)
        assert not target.exists()
        if not run(fatal, "renames", "recover", target, None):
            break
        atomic.recover(target, ours=ours)
        assert content(target) == OLD
        assert list(target.parent.iterdir()) == [target]
    assert fatal > 3


def test_a_file_is_whole_after_a_kill_at_any_step(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(b"old")
    for fatal in range(10):
        if not run(fatal, "exchange", "file", path, b"new content"):
            break
        assert path.read_bytes() == b"old"
    assert fatal >= 3
    assert path.read_bytes() == b"new content"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_the_exchange_is_used_where_there_is_one(tmp_path: Path) -> None:
    atomic.write_tree(tmp_path / "out", OLD, ours=ours)
    names: list[str] = []
    atomic.write_tree(tmp_path / "out", NEW, step=names.append, ours=ours)
    assert "exchange" in names
    assert "rename away" not in names


def test_a_reader_always_finds_a_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    atomic.write_tree(target, OLD, ours=ours)
    if not atomic._renameat2():
        pytest.skip("no exchange here")
    missing, stop = [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            if not target.is_dir():
                missing.append(1)

    reader = threading.Thread(target=look)
    reader.start()
    for turn in range(30):
        atomic.write_tree(target, NEW if turn % 2 else OLD | {"turn": b"1"}, ours=ours)
    stop.set()
    reader.join()
    assert not missing


@pytest.mark.parametrize("exchange", [True, False])
def test_same_content_is_not_written(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda first, other: False)
    target, file = tmp_path / "out", tmp_path / "f"
    assert atomic.write_tree(target, OLD, ours=ours)
    assert atomic.write_file(file, b"x")
    for path in (target, target / "a.patch", file):
        os.utime(path, ns=(1, 1))
    names: list[str] = []
    assert not atomic.write_tree(target, dict(reversed(OLD.items())), step=names.append)
    assert not atomic.write_file(file, b"x", step=names.append)
    assert names == []
    assert {path.stat().st_mtime_ns for path in (target, target / "a.patch", file)} == {1}
    assert atomic.write_tree(target, OLD | {"more": b""}, ours=ours)
    assert atomic.write_tree(target, OLD, ours=ours)
    assert content(target) == OLD


def test_a_link_counts_as_another_content(tmp_path: Path) -> None:
    atomic.write_tree(tmp_path / "out", {"a": b"1"}, ours=ours)
    (tmp_path / "out" / "a").unlink()
    (tmp_path / "elsewhere").write_bytes(b"1")
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    assert atomic.write_tree(tmp_path / "out", {"a": b"1"}, ours=ours)
    assert not (tmp_path / "out" / "a").is_symlink()


def test_no_link_is_written_through(tmp_path: Path) -> None:
    atomic.write_tree(tmp_path / "out", OLD)
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "file-link").symlink_to("file")
    with pytest.raises(PatchforgeError, match="is a link"):
        atomic.write_tree(tmp_path / "link", NEW, ours=ours)
    atomic.write_file(tmp_path / "file-link", b"2")
    assert content(tmp_path / "out") == OLD
    assert (tmp_path / "file").read_bytes() == b"1"
    assert (tmp_path / "file-link").read_bytes() == b"2"


def test_modes_follow_the_umask_and_the_file_before(tmp_path: Path) -> None:
    atomic.write_file(tmp_path / "f", b"1")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "f").chmod(0o750)
    atomic.write_file(tmp_path / "f", b"2")
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("names", [["/a"], ["../a"], ["a/../b"], [""], ["a", "a/b"], ["a/"], ["./a"]])
def test_paths_outside_or_in_each_other(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(PatchforgeError, match="a folder cannot hold"):
        atomic.write_tree(tmp_path / "out", dict.fromkeys(names, b""), ours=ours)
    assert not list(tmp_path.iterdir())


def test_a_file_and_a_folder_are_not_taken_for_each_other(tmp_path: Path) -> None:
    atomic.write_file(tmp_path / "f", b"1")
    with pytest.raises(PatchforgeError, match="is a file"):
        atomic.write_tree(tmp_path / "f", OLD, ours=ours)
    with pytest.raises(PatchforgeError, match="is a folder"):
        atomic.write_file(tmp_path, b"1")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_an_error_names_what_was_asked_for(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "mine"

    def write() -> None:
        if what == "folder":
            atomic.write_tree(target, OLD, ours=ours)
        else:
            atomic.write_file(target, b"1")

    for number in (errno.ENOENT, errno.ENOSPC, errno.EACCES):

        def refuse(path: Path, *_: Any, number: int = number, **__: Any) -> None:
            raise OSError(number, os.strerror(number), str(path))

        with monkeypatch.context() as patched:
            patched.setattr(atomic, "_write", refuse)
            with pytest.raises((OSError, SystemFault)) as caught:
                write()
        said = str(told(caught.value))
        assert str(target) in said.splitlines()[0]
        assert ".patchforge-" not in said.splitlines()[0]
        assert told(caught.value).status is Exit.SYSTEM
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc")
def test_a_place_where_no_file_can_be_made() -> None:
    with pytest.raises(SystemFault, match=r"^/proc/mine cannot be made"):
        atomic.write_tree(Path("/proc/mine"), OLD, ours=ours)


def test_nothing_to_recover(tmp_path: Path) -> None:
    atomic.recover(tmp_path / "none" / "out")
    atomic.recover(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_writers_take_turns(tmp_path: Path) -> None:
    target = tmp_path / "out"
    sets = [{"n": b"%d" % number, "m": b"%d" % number} for number in range(8)]
    turn = partial(atomic.write_tree, target, ours=ours)
    threads = [threading.Thread(target=turn, args=(files,)) for files in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(target) in sets
    assert list(tmp_path.iterdir()) == [target]


def _marked(target: Path, **inside: Callable[[Path], object]) -> Path:
    """What somebody who knows our names and our mark can put beside a target."""
    place = atomic.beside(target)
    place.mkdir()
    (place / "patchforge").write_bytes(atomic._MARK_TEXT)
    for name, make in inside.items():
        make(place / name)
    return place


def _given_away(place: Path) -> None:
    for path in (place, *place.rglob("*")):
        os.chown(path, 12345, 12345)


@pytest.mark.parametrize("name", ["new", "whole", "old"])
@pytest.mark.parametrize("there", [False, True])
def test_what_a_stranger_put_beside_a_target_leads_nowhere(tmp_path: Path, name: str, there: bool) -> None:
    victim, target = tmp_path / "victim", tmp_path / "cwd" / "out"
    (victim / "sub").mkdir(parents=True)
    for path in (victim / "a", victim / "sub" / "b"):
        path.write_bytes(b"mine")
    target.parent.mkdir()
    if there:
        atomic.write_tree(target, {"a": b"1"})
    place = _marked(target, **{name: lambda link: link.symlink_to(victim)})
    for write in (lambda: atomic.write_tree(target, {"a": b"2"}, ours=lambda _: None), lambda: atomic.recover(target)):
        with pytest.raises(PatchforgeError, match="in the way"):
            write()
    assert [*atomic.content(victim)] == ["a", "sub/b"]
    assert (place / name).is_symlink()
    assert target.is_dir() is there
    (place / name).unlink()
    assert atomic.write_tree(target, {"a": b"2"}, ours=lambda _: None)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("kind", ["folder", "whole folder", "file"])
def test_what_another_user_put_beside_a_target_is_not_taken(tmp_path: Path, kind: str) -> None:
    """In a folder such as /tmp."""
    target = tmp_path / "out"
    if kind == "file":
        atomic.beside(target).write_bytes(b"x")
    else:
        _marked(target, **({"old": Path.mkdir} if kind == "whole folder" else {}))
    _given_away(atomic.beside(target))
    with pytest.raises(PatchforgeError, match="in the way"):
        atomic.write_file(target, b"1") if kind == "file" else atomic.write_tree(target, {"a": b"1"})
    assert not target.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("write", ["tree", "file"])
def test_a_stream_that_fails_names_what_was_to_be_written(number: int, write: str, tmp_path: Path) -> None:
    """A full disk is told by a write to an open file, which names none."""

    def full(step: str) -> None:
        if not step.startswith("mkdir"):
            raise OSError(number, os.strerror(number))

    out = tmp_path / "out"
    writes: dict[str, Callable[[], object]] = {
        "tree": lambda: atomic.write_tree(out, {"a": b"1"}, step=full),
        "file": lambda: atomic.write_file(out, b"1", step=full),
    }
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        writes[write]()
    assert caught.value.filename == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
