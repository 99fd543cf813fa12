"""The disk refuses: at every operation, once or from then on. Files are all old or all new, and there is a way on."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pytest

from patchforge import inside
from patchforge.atomic import exchange
from patchforge.checkout import journal
from patchforge.checkout.examine import Examined, FolderState
from patchforge.cli import main
from patchforge.errors import Exit, PatchforgeError
from tests.checkout import places
from tests.checkout.places import COMMANDS, PACK, content, fill, look
from tests.checkout.test_kill import (
    SCENARIOS,
    Killed,
    Scenario,
    again,
    points,
)
from tests.checkout.test_real_life import plain

_CHANGES = {"mkdir", "unlink", "rmdir", "rename", "replace", "link", "fsync", "fchmod"}
_NEED_ROOM = {"open", "write", "mkdir", "link", "record"}
_RENAMES = {"rename", "replace", "exchange"}
CODES = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO)


class Disk:
    """What ``patchforge.inside`` asks the system for. ``fails`` says whether an operation does, by number and kind."""

    def __init__(self, fails: Callable[[int, str], int] = lambda _number, _kind: 0) -> None:
        self.fails, self.asked = fails, [""]

    def ask(self, kind: str) -> None:
        self.asked.append(kind)
        if code := self.fails(len(self.asked) - 1, kind):
            raise OSError(code, os.strerror(code))

    def step(self, name: str) -> None:
        if name.startswith("record"):
            self.ask("record")

    def __getattr__(self, name: str) -> Any:
        """In the place of the module ``os``."""
        real = getattr(os, name)
        if name not in {"open", *_CHANGES}:
            return real

        def asked(*some: Any, **named: Any) -> Any:
            if name != "open" or some[1] & os.O_CREAT:
                self.ask(name)
            return real(*some, **named)

        return asked

    def opened(self, handle: int, mode: str) -> Any:
        stream = builtins.open(handle, mode)  # noqa: SIM115
        return Stream(stream, self) if "w" in mode else stream

    def exchange(self, *names: Any) -> bool:
        self.ask("exchange")
        return exchange(*names)


class Stream:
    def __init__(self, stream: IO[bytes], disk: Disk) -> None:
        self.stream, self.disk = stream, disk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stream.close()

    def write(self, data: bytes) -> None:
        self.disk.ask("write")
        self.stream.write(data)

    def flush(self) -> None:
        self.stream.flush()


#: module and what in it is interrupted: before anything is written, while it is, and when all is done and not yet said.
WHEN = [
    ("patchforge.checkout.change.examine", ""),
    ("patchforge.checkout.transaction.carry_out", ""),
    ("builtins.print", "done"),
]


@pytest.mark.parametrize(("where", "done"), WHEN, ids=["before", "while", "after"])
def test_who_interrupts_the_patching_is_told_what_says_how_it_is_left(
    where: str, done: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack, files = fill(tmp_path / "pack", PACK), dict(PACK)
    said = sys.stderr

    def interrupted(*_: object, file: object = None, **__: object) -> None:
        if file is None:
            raise KeyboardInterrupt
        said.write(str(_[0]))

    for command in ("packs apply {} --in-place", "packs revert {}"):
        with monkeypatch.context() as patch:
            patch.setattr(where, interrupted)
            assert main(command.format(pack).split()) == Exit.INTERRUPTED
        told = f"patchforge: interrupted; patchforge status {pack} says how the folder is left"
        assert capsys.readouterr().err.rstrip("\n").endswith(told)
        assert (content(pack) == files) != bool(done)
        assert done or main(command.format(pack).split()) == Exit.OK
        files, _ = content(pack), capsys.readouterr()


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Disk], None]:
    """Gives ``patchforge.inside`` another disk."""

    def put(disk: Disk) -> None:
        monkeypatch.setattr(inside, "os", disk)
        monkeypatch.setattr(inside, "open", disk.opened, raising=False)
        monkeypatch.setattr(inside, "exchange", disk.exchange)

    return put


def once(at: int, code: int) -> Callable[[int, str], int]:
    return lambda number, _: code if number == at else 0


def full(at: int = 0) -> Callable[[int, str], int]:
    return lambda number, kind: errno.ENOSPC if number >= at and kind in _NEED_ROOM else 0


def read_only(at: int) -> Callable[[int, str], int]:
    return lambda number, _: errno.EROFS if number >= at else 0


def fixed(at: int) -> Callable[[int, str], int]:
    """From then on nothing may change its name."""
    return lambda number, kind: errno.EPERM if number >= at and kind in _RENAMES else 0


class Trial:
    """A scenario whose folder is made anew for each try."""

    def __init__(self, scenario: Scenario, place: Path, on: Callable[[Disk], None]) -> None:
        self.scenario, self.place, self.on, self.subject = scenario, place, on, scenario.subject()
        clean = {path: data.removesuffix(b"# mine, at the end\n") for path, data in scenario.files.items()}
        scenario.ready(fill(place / "ready" / "folder", clean), self.subject)
        self.old = plain(place / "ready" / "folder")
        again(place)
        disk = self.run(lambda _number, _kind: 0)
        self.new, self.asked = plain(self.folder), disk.asked[1:]

    @property
    def folder(self) -> Path:
        return self.place / "now" / "folder"

    def run(self, fails: Callable[[int, str], int], name: str = "") -> Disk:
        disk = Disk(fails)
        self.on(disk)
        try:
            COMMANDS[name or self.scenario.command](self.folder, self.subject, step=disk.step)
        finally:
            self.on(Disk())
        return disk

    def refused(self, fails: Callable[[int, str], int], name: str = "") -> PatchforgeError | None:
        try:
            self.run(fails, name)
        except PatchforgeError as raised:
            error = raised
        else:
            return None
        assert error.status is Exit.SYSTEM, error
        assert error.do
        return error

    def look(self) -> Examined:
        return look(self.folder, self.subject)

    def put_right(self, fails: Callable[[int, str], int] = lambda _number, _kind: 0) -> None:
        """Does what the state names, or lets it be where nothing is wrong."""
        for _ in range(2):
            if (examined := self.look()).in_order:
                break
            self.run(fails, places.named(examined))
        assert self.look().in_order
        assert plain(self.folder) in (self.old, self.new, self.whole)

    @property
    def whole(self) -> dict[str, bytes]:
        """What the files are where the way on is to patch them."""
        return places.patched(self.scenario.files, self.subject, self.place / "whole")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("PATCHFORGE_STATE", str(place / "state"))


PACKS = [name for name in SCENARIOS if name.startswith("pack")]


@pytest.mark.parametrize("name", [*PACKS, "apply", "update"])
def test_an_operation_fails(name: str, place: Path, on: Callable[[Disk], None]) -> None:
    """All old or all new, at once; in packs at every operation."""
    trial = Trial(SCENARIOS[name], place, on)
    for number in range(1, len(trial.asked) + 1) if name in PACKS else points(trial.asked, 1):
        for code in CODES if name in {"pack apply", "pack revert"} else (CODES[number % len(CODES)],):
            again(place)
            error = trial.refused(once(number, code))
            examined, files = trial.look(), plain(trial.folder)
            assert files in (trial.old, trial.new), (trial.asked[number - 1], error)
            if error and "files are written" not in error.problem and files == trial.old:
                assert not examined.leftovers
                assert examined.state is trial_state(trial), (trial.asked[number - 1], error)
            trial.put_right()


def trial_state(trial: Trial) -> FolderState:
    return look(trial.place / "ready" / "folder", trial.subject).state


@pytest.mark.parametrize(
    ("fails", "name"),
    [*product([full, read_only, fixed], PACKS), (full, "apply"), (read_only, "revert")],
)
def test_operations_fail_from_then_on(
    fails: Callable[[int], Callable[[int, str], int]], name: str, place: Path, on: Callable[[Disk], None]
) -> None:
    trial = Trial(SCENARIOS[name], place, on)
    for number in points(trial.asked, 4 if name in PACKS else 1):
        again(place)
        error = trial.refused(fails(number))
        files = plain(trial.folder)
        if fails is full:
            assert files in (trial.old, trial.new)
        elif error and files not in (trial.old, trial.new):
            assert "could not be put back" in error.problem
            assert "repair" in error.do
            assert not trial.look().in_order
        trial.put_right()


@pytest.mark.parametrize("name", ["revert", "pack revert"])
def test_a_full_disk_keeps_nobody_from_putting_back(name: str, place: Path, on: Callable[[Disk], None]) -> None:
    trial = Trial(SCENARIOS[name], place, on)
    again(place)
    trial.run(full())
    assert content(trial.folder) == trial.scenario.files


@pytest.mark.parametrize("way", ["repair", "revert"])
@pytest.mark.parametrize("name", ["apply", "pack apply", "pack update"])
def test_a_killed_run_is_put_right_on_a_full_disk(name: str, way: str, place: Path, on: Callable[[Disk], None]) -> None:
    """What it had prepared is enough to finish it, and what it had kept to undo it."""
    trial = Trial(SCENARIOS[name], place, on)
    steps: list[str] = []
    again(place)
    COMMANDS[trial.scenario.command](trial.folder, trial.subject, step=steps.append)
    renames = [number for number, step in enumerate(steps, 1) if step.startswith("rename")]
    for number in [*renames[:4], renames[len(renames) // 2], *renames[-2:]]:
        again(place)
        left = iter(range(number, 0, -1))

        def step(_name: str, left: Iterator[int] = left) -> None:
            if next(left, 0) == 1:
                raise Killed

        with pytest.raises(Killed):
            COMMANDS[trial.scenario.command](trial.folder, trial.subject, step=step)
        examined = trial.look()
        if not examined.known or any(name.startswith(journal.FOLDER + "-") for name in examined.leftovers):
            continue  # it had not come to the files
        trial.run(full(), way)
        assert trial.look().in_order
        assert plain(trial.folder) == (trial.new if way == "repair" else trial.scenario.files)


@pytest.mark.parametrize("way", ["link", "copy"])
@pytest.mark.parametrize("name", ["pack apply", "pack revert with edits"])
def test_without_an_exchange(
    name: str, way: str, place: Path, on: Callable[[Disk], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows, and on file systems that have no second names."""

    def no_links(_self: Disk, *_names: Any) -> bool:
        return False

    def fails(at: int) -> Callable[[int, str], int]:
        refused = once(at, errno.EIO)
        return lambda number, kind: errno.EPERM if kind == "link" and way == "copy" else refused(number, kind)

    monkeypatch.setattr(Disk, "exchange", no_links)
    trial = Trial(SCENARIOS[name], place, on)
    for number in range(1, len(trial.asked) + 1):
        again(place)
        trial.refused(fails(number))
        assert plain(trial.folder) in (trial.old, trial.new)
        trial.put_right()


# --- for real


def mounted(place: Path, *options: str) -> bool:
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(place)], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    place = tmp_path / "tiny"
    if not shutil.which("mount") or not mounted(place, "-o", "size=256k"):
        pytest.skip("no right to mount")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def filled(place: Path, leave: int = 0) -> None:
    """Takes all the room that there is, but for some bytes."""
    with (place / "filler").open("wb", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 4096) == 4096:
                pass
        except OSError:
            stream.truncate(max(stream.tell() - leave, 0))


@pytest.mark.parametrize("room", [0, 4096, 8192, 16384, 24576])
def test_a_full_disk(tiny: Path, room: int, capsys: pytest.CaptureFixture[str]) -> None:
    pack = fill(tiny / "pack", PACK)
    filled(tiny, room)
    assert main(["packs", "apply", str(pack), "--in-place"]) == Exit.SYSTEM
    assert "disk is full" in capsys.readouterr().err
    assert content(pack) == PACK
    assert main(["status", str(pack)]) == Exit.OK
    (tiny / "filler").unlink()
    assert main(["packs", "apply", str(pack), "--in-place"]) == Exit.OK
    filled(tiny)
    assert main(["status", str(pack)]) == Exit.OK
    assert main(["packs", "revert", str(pack)]) == Exit.OK
    assert content(pack) == PACK


def immutable(path: Path, way: str) -> bool:
    if not shutil.which("chattr"):
        return False
    return subprocess.run(["chattr", way, str(path)], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("path", ["nodes.py", "more.py", "."])
def test_what_may_not_be_changed(tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    pack = fill(tmp_path / "pack", PACK)
    if not immutable(pack / path, "+i"):
        pytest.skip("no right to make a file immutable")
    try:
        assert main(["packs", "apply", str(pack), "--in-place"]) == Exit.SYSTEM
        assert path.strip(".") in capsys.readouterr().err
        assert content(pack) == PACK
    finally:
        immutable(pack / path, "-i")
    assert main(["packs", "apply", str(pack), "--in-place"]) == Exit.OK
    immutable(pack / path, "+i")
    converted = plain(pack)
    try:
        assert main(["packs", "revert", str(pack)]) == Exit.SYSTEM
        assert plain(pack) == converted
    finally:
        immutable(pack / path, "-i")
    assert main(["packs", "revert", str(pack)]) == Exit.OK
    assert content(pack) == PACK


def test_a_part_on_another_file_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = fill(tmp_path / "pack", {"__init__.py": b"from .sub import more\n\nNODE_CLASS_MAPPINGS = {}\n"})
    if not shutil.which("mount") or not mounted(pack / "sub"):
        pytest.skip("no right to mount")
    try:
        fill(pack / "sub", {"more.py": PACK["more.py"]})
        before = content(pack)
        assert main(["packs", "apply", str(pack), "--in-place"]) == Exit.SYSTEM
        assert "another file system" in capsys.readouterr().err
        assert content(pack) == before
    finally:
        subprocess.run(["umount", "--lazy", str(pack / "sub")], check=True)


@pytest.mark.parametrize("name", [".nodes.py.patchforge-new", ".more.py.patchforge-new", ".patchforge-new"])
def test_a_users_own_file_with_an_odd_name(tmp_path: Path, name: str) -> None:
    mine = {name: b"mine\n", f"{name}.py": b"mine = 1\n"}
    pack, subject = fill(tmp_path / "pack", {**PACK, **mine}), places.pack()
    places.apply(pack, subject)
    assert look(pack, subject).in_order
    assert {path: content(pack)[path] for path in mine} == mine
    places.revert(pack, subject)
    assert content(pack) == {**PACK, **mine}


def test_modes_are_kept(tmp_path: Path) -> None:
    pack, subject = fill(tmp_path / "pack", PACK), places.pack()
    modes = dict(zip(PACK, (0o755, 0o600, 0o444), strict=True))
    for path, mode in modes.items():
        (pack / path).chmod(mode)
    for command in (places.apply, places.revert):
        command(pack, subject)
        assert {path: (pack / path).stat().st_mode & 0o777 for path in PACK} == modes


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no extended attributes")
def test_access_lists_and_other_attributes_are_kept(tmp_path: Path) -> None:
    pack, subject = fill(tmp_path / "pack", PACK), places.pack()
    kept = {"user.note": b"mine"}
    entries = ((1, 6, -1), (2, 6, 12345), (4, 4, -1), (16, 6, -1), (32, 0, -1))
    #: Read and write for the owner and for one other user, reading for the group, nothing for the rest.
    everybody = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    for name, value in {**kept, "system.posix_acl_access": everybody}.items():
        try:
            os.setxattr(pack / "nodes.py", name, value)
            kept[name] = value
        except OSError:
            kept.pop(name, None)
    if not kept:
        pytest.skip("this file system has none")
    mode = (pack / "nodes.py").stat().st_mode
    for command in (places.apply, places.revert):
        command(pack, subject)
        assert {name: os.getxattr(pack / "nodes.py", name) for name in kept} == kept
        assert (pack / "nodes.py").stat().st_mode == mode


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_owners_modes_and_flushed_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As some of networks, of FUSE and of Windows are."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    real = os.fsync

    def fsync(handle: int) -> None:
        refused() if stat.S_ISDIR(os.fstat(handle).st_mode) else real(handle)

    pack, subject = fill(tmp_path / "pack", PACK), places.pack()
    for name in ("fchown", "fchmod", "setxattr", "listxattr"):
        monkeypatch.setattr(os, name, refused, raising=False)
    monkeypatch.setattr(os, "fsync", fsync)
    places.apply(pack, subject)
    assert look(pack, subject).in_order
    places.revert(pack, subject)
    assert content(pack) == PACK
