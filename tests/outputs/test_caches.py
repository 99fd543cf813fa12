"""The cache owns its folder, proves it, or leaves it alone."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge import caches
from patchforge.cli import main
from patchforge.commands.common import make_engine
from patchforge.engine.cache import FILES, Cache, rule_set_digest
from patchforge.engine.records import FileRecord
from patchforge.errors import PatchforgeError
from patchforge.git.clone import CachedClone
from patchforge.nodes.pack import read_pack
from patchforge.nodes.pack_cache import PackStore, cached
from patchforge.pattern import Options
from tests.outputs.world import NODE, state

KEY = ("a.py", "b" * 40)
posix = pytest.mark.skipif(os.name == "nt", reason="owners and modes")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def git(*arguments: str) -> str:
    setting = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *setting, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    git("init", "--quiet", str(folder))
    git("-C", str(folder), "commit", "--quiet", "--allow-empty", "-m", "x")
    return folder


@pytest.fixture
def users_clone(origin: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "users.git"
    git("clone", "--quiet", "--bare", str(origin), str(folder))
    git("-C", str(folder), "branch", "mine")
    return folder


def test_a_new_cache_says_what_it_is(place: Path) -> None:
    assert caches.home() == place
    assert (place / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert caches.folder("a", "b") == place / "a" / "b"
    assert stat.S_IMODE((place / "a" / "b").stat().st_mode) == 0o700
    assert caches.folder("a", "b") == place / "a" / "b"


def test_an_empty_folder_is_taken(place: Path) -> None:
    place.mkdir()
    caches.home()
    assert [entry.name for entry in place.iterdir()] == [caches.MARK]


@pytest.mark.parametrize("name", ["upstream", "emulator", "bot-0123456789ab.lock"])
def test_a_cache_of_earlier_versions_is_taken(name: str, place: Path) -> None:
    (place / name).mkdir(parents=True)
    caches.folder("clones")
    assert {entry.name for entry in place.iterdir()} == {caches.MARK, "clones", name}


def test_what_is_listed_is_what_would_be_removed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    assert main(["cache"]) == 0
    said = capsys.readouterr().out
    assert "is not patchforge's" in said
    assert "--clean removes nothing" in said
    assert "found: mine.txt" in said
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"] == []
    assert main(["cache", "--clean"]) == 2
    assert [entry.name for entry in place.iterdir()] == ["mine.txt"]


def test_a_link_that_the_user_made_to_a_cache(place: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    place.symlink_to("disk")
    caches.folder("clones")
    assert {entry.name for entry in (tmp_path / "disk").iterdir()} == {caches.MARK, "clones"}


def _users_files(place: Path) -> None:
    place.mkdir()
    (place / "thesis.tex").write_text("mine")


def _users_files_among_old_names(place: Path) -> None:
    (place / "upstream").mkdir(parents=True)
    (place / "thesis.tex").write_text("mine")


def _link_to_users_files(place: Path) -> None:
    _users_files(place.with_name("users"))
    place.symlink_to("users")


def _file(place: Path) -> None:
    place.write_text("mine")


def _circle(place: Path) -> None:
    place.symlink_to(place.name)


def _everybodys(place: Path) -> None:
    place.mkdir()
    (place / "upstream").mkdir()
    place.chmod(0o777)


def _marked_and_everybodys(place: Path) -> None:
    caches.home()
    place.chmod(0o777)


def _another_mark(place: Path) -> None:
    place.mkdir()
    (place / caches.MARK).write_text("Signature: 8a477f597d28d172789f06886806bc55\n# of another program\n")


def _linked_mark(place: Path) -> None:
    caches.home()
    (place / caches.MARK).rename(place.with_name("tag"))
    (place / caches.MARK).symlink_to(place.with_name("tag"))


HOMES = [
    _users_files,
    _users_files_among_old_names,
    _link_to_users_files,
    _file,
    _circle,
    _everybodys,
    _marked_and_everybodys,
    _another_mark,
    _linked_mark,
]


def _clone(origin: Path) -> None:
    CachedClone.of(origin.as_uri()).ensure()


def _packs(_: Path) -> None:
    cached()


def _lock(_: Path) -> None:
    from patchforge.bot.run import alone

    with alone("owner/name"):
        pass


def _results(_: Path) -> None:
    import argparse

    make_engine(argparse.Namespace(no_cache=False, jobs=1))


@pytest.mark.parametrize("use", [_clone, _packs, _lock, _results])
@pytest.mark.parametrize("fault", HOMES)
@posix
def test_a_folder_of_others_is_left_alone(
    fault: Callable[[Path], None], use: Callable[[Path], None], place: Path, origin: Path, tmp_path: Path
) -> None:
    fault(place)
    before = state(tmp_path)
    with pytest.raises(PatchforgeError) as caught:
        use(origin)
    assert "PATCHFORGE_CACHE" in str(caught.value)
    assert state(tmp_path) == before


@posix
def test_a_folder_of_another_user(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches.home()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PatchforgeError, match="belongs to user"):
        caches.home()


@posix
def test_a_group_may_not_write(place: Path) -> None:
    caches.home()
    place.chmod(0o775)
    caches.home()
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


@pytest.mark.parametrize("names", [("clones",), ("results",), ("nodes",), ("trial", "environments")])
def test_a_link_in_the_cache_is_not_followed(names: tuple[str, ...], place: Path, tmp_path: Path) -> None:
    caches.folder(*names[:-1])
    (tmp_path / "users").mkdir()
    place.joinpath(*names).symlink_to(tmp_path / "users")
    with pytest.raises(PatchforgeError, match="a link"):
        caches.folder(*names)
    assert not list((tmp_path / "users").iterdir())


def test_a_link_to_a_users_clone_keeps_its_branches(place: Path, origin: Path, users_clone: Path) -> None:
    clone = CachedClone.of(origin.as_uri())
    caches.folder("clones")
    clone.path.symlink_to(users_clone)
    before = state(users_clone)
    for act in (clone.ensure, clone.fetch):
        with pytest.raises(PatchforgeError, match="cannot use"):
            act()
    assert state(users_clone) == before
    assert "mine" in git("-C", str(users_clone), "branch")


@pytest.mark.parametrize("marked", [False, True])
def test_a_users_clone_in_the_cache_keeps_its_branches(
    marked: bool, place: Path, origin: Path, users_clone: Path
) -> None:
    clone = CachedClone.of(origin.as_uri())
    caches.folder("clones")
    shutil.move(users_clone, clone.path)
    if marked:  # of another address
        (clone.path / "patchforge-cache").write_text("Made by patchforge, of https://example.com/x\n")
    before = state(clone.path)
    for act in (clone.ensure, clone.fetch):
        with pytest.raises(PatchforgeError, match="--upstream"):
            act()
    assert state(clone.path) == before


def test_what_lies_where_a_clone_would_be_made(place: Path, origin: Path, tmp_path: Path) -> None:
    clone = CachedClone.of(origin.as_uri())
    caches.folder("clones")
    mine = place / "clones" / f"{clone.path.name}.partial-mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    (tmp_path / "lock").write_text("mine")
    assert clone.ensure()
    assert (mine / "file").read_text() == "mine"
    lock = clone.path.with_suffix(".lock")
    lock.unlink(missing_ok=True)
    lock.symlink_to(tmp_path / "lock")
    with pytest.raises(PatchforgeError, match="cannot use"):
        clone.fetch()
    assert (tmp_path / "lock").read_text() == "mine"


def test_a_clone_of_ours_is_fetched(place: Path, origin: Path) -> None:
    clone = CachedClone.of(origin.as_uri())
    assert clone.ensure()
    git("-C", str(origin), "branch", "new")
    clone.fetch()
    assert not clone.ensure()
    assert "new" in git("-C", str(clone.path), "branch")


def database(place: Path) -> Path:
    return caches.folder("results") / f"results-{rule_set_digest()[:16]}.sqlite"


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
def test_a_users_database_is_not_opened(end: str, place: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.sqlite"
    with sqlite3.connect(users) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    path = database(place)
    path.with_name(path.name + end).symlink_to(users)
    before = state(tmp_path)
    with pytest.raises(PatchforgeError, match="cannot use"):
        Cache(caches.folder("results"), FILES)
    assert state(tmp_path) == before


def test_a_damaged_database_is_made_anew(place: Path) -> None:
    database(place).write_bytes(b"no database" * 1000)
    cache = Cache(caches.folder("results"), FILES)
    cache.put({KEY: FileRecord()})
    assert cache.get([KEY]) == {KEY: FileRecord()}


def test_a_database_that_another_process_holds_is_not_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cache(caches.folder("results"), FILES).put({KEY: FileRecord()})
    before = database(place).read_bytes()

    def locked(*_: object, **__: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(sqlite3, "connect", locked)
    assert Cache(caches.folder("results"), FILES).get([KEY]) == {}
    assert database(place).read_bytes() == before


@pytest.mark.parametrize("record", [b"no zlib", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_damaged_record_means_that_the_work_is_done_again(record: bytes, place: Path) -> None:
    cache = Cache(caches.folder("results"), FILES)
    cache.put({KEY: FileRecord()})
    assert cache.connection
    cache.connection.execute("UPDATE records SET record = ?", (record,))
    assert cache.get([KEY]) == {}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text(NODE)
    return tmp_path / "pack"


def test_a_kept_pack_that_is_a_link_is_not_read(place: Path, pack: Path, tmp_path: Path) -> None:
    first = cached().convert(read_pack(pack), Options())
    (kept,) = (place / "results").glob("*.sqlite")
    kept.rename(tmp_path / "planted")
    kept.symlink_to(tmp_path / "planted")
    with pytest.raises(PatchforgeError, match="cannot use"):
        cached().convert(read_pack(pack), Options())
    kept.unlink()
    assert cached().convert(read_pack(pack), Options()) == first


def test_a_kept_pack_that_is_damaged_is_converted_again(place: Path, pack: Path) -> None:
    first = cached().convert(read_pack(pack), Options())
    (kept,) = (place / "results").glob("*.sqlite")
    for data in (b"", b"x", kept.read_bytes()[:-4], kept.read_bytes() + b"x" * 0):
        kept.write_bytes(data)
        assert cached().convert(read_pack(pack), Options()) == first


def test_where_nothing_can_be_written_nothing_is_kept(place: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    store = cached()
    monkeypatch.undo()
    assert store.cache.connection is None
    assert PackStore(None).convert(read_pack(pack), Options()).changes


def test_a_kept_folder_that_was_changed_is_made_anew(place: Path, tmp_path: Path) -> None:
    folder = caches.folder("references") / "x"
    files = {"index.json": b"{}", "a/0": b"picture"}
    assert caches.read_tree(folder) is None
    caches.write_tree(folder, files)
    assert caches.read_tree(folder) == files
    (folder / "a" / "0").write_bytes(b"planted")
    assert caches.read_tree(folder) is None
    caches.write_tree(folder, files)
    assert caches.read_tree(folder) == files
    shutil.move(folder, tmp_path / "users")
    folder.symlink_to(tmp_path / "users")
    for act in (caches.read_tree, lambda path: caches.write_tree(path, files)):
        with pytest.raises(PatchforgeError, match="a link"):
            act(folder)


@posix
def test_the_emulator_loads_nothing_that_others_could_have_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emulator import build

    monkeypatch.setattr(build, "CACHE", tmp_path / "cache" / "emulator")
    assert build.own_cache() == tmp_path / "cache" / "emulator"
    build.CACHE.chmod(0o777)
    with pytest.raises(build.BuildError, match="yours alone"):
        build.own_cache()
    build.CACHE.rename(tmp_path / "planted")
    build.CACHE.symlink_to(tmp_path / "planted")
    with pytest.raises(build.BuildError, match="yours alone"):
        build.own_cache()


def test_status_makes_no_cache(place: Path, capsys: pytest.CaptureFixture[str]) -> None:

    assert main(["status"]) == 0
    assert str(place) in capsys.readouterr().out
    assert not place.exists()


def test_the_cache_is_shown_and_cleaned(place: Path, origin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clone = CachedClone.of(origin.as_uri())
    clone.ensure()
    (caches.folder("results") / "a").write_bytes(b"0" * 2_000_000)
    assert main(["cache"]) == 0
    said = capsys.readouterr().out
    assert f"{place}: 2." in said
    assert "results  2.0 MB" in said
    assert main(["cache", "--clean"]) == 0
    assert [entry.name for entry in place.iterdir()] == [caches.MARK]
    assert clone.ensure()


def test_what_another_run_uses_is_not_cleaned_away(
    place: Path, origin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = CachedClone.of(origin.as_uri())
    clone.ensure()
    other = caches.folder("clones") / "other.git"
    other.mkdir()
    with caches.locked(clone.path.with_suffix(".lock")):
        assert main(["cache", "--clean"]) == 0
    assert "what another run of patchforge uses stays" in capsys.readouterr().out
    assert (clone.path / "HEAD").is_file()
    assert not other.exists()


def test_a_folder_of_others_is_not_cleaned(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.mkdir()
    (place / "photo.jpg").touch()
    assert main(["cache", "--clean"]) == 2
    assert "the cache cannot use" in capsys.readouterr().err
    assert (place / "photo.jpg").exists()
    assert main(["status"]) == 0
