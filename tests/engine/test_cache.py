"""Records are kept, and a cache that cannot be read only costs time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from patchforge.engine import convert
from patchforge.engine.cache import FILES, Cache, rule_set_digest
from patchforge.engine.records import FileRecord, FoundPlace, RawSite
from patchforge.errors import PatchforgeError
from patchforge.rules import transforms
from patchforge.vocabulary import Outcome, Purpose, Segment
from tests.support import ROOT, MemoryTree, engine_of, miniature, release

KEY = ("a.py", "0" * 40)
FULL = FileRecord(
    (FoundPlace("X1", Outcome.APPLIED, 1, 2, "f", "note", "fragment", (("insert", 1),), (("a", "b"),)),),
    ((Purpose.MODEL, (Segment(1, 2, (b"\xff\r\n", b"x")),)),),
    (RawSite(1, "f", "cuda-api", "torch.cuda.x", "vendor"),),
    "line 1: why",
)


def file_of(folder: Path) -> Path:
    [path] = folder.glob("*.sqlite")
    return path


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    Cache(tmp_path, FILES).put({KEY: FULL, ("b.py", KEY[1]): FileRecord()})
    again = Cache(tmp_path, FILES)
    assert again.get([KEY, ("b.py", KEY[1]), ("c.py", KEY[1])]) == {KEY: FULL, ("b.py", KEY[1]): FileRecord()}


def test_the_path_is_part_of_the_key(tmp_path: Path) -> None:
    cache = Cache(tmp_path, FILES)
    cache.put({KEY: FULL})
    assert cache.get([("other.py", KEY[1])]) == {}


def test_without_a_folder_nothing_is_kept() -> None:
    cache = Cache(None, FILES)
    cache.put({KEY: FULL})
    assert cache.get([KEY]) == {}


def test_the_file_is_named_after_the_rules(tmp_path: Path) -> None:
    Cache(tmp_path, FILES)
    assert rule_set_digest()[:16] in file_of(tmp_path).name


@pytest.mark.parametrize("damage", [b"", b"not a database at all, but long enough to look like one" * 40])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(tmp_path, FILES)
    path = file_of(tmp_path)
    assert cache.connection is not None
    cache.connection.close()
    path.write_bytes(damage)
    again = Cache(tmp_path, FILES)
    again.put({KEY: FULL})
    assert Cache(tmp_path, FILES).get([KEY]) == {KEY: FULL}


@pytest.mark.parametrize("damage", [b"", b"x"])
def test_a_damaged_file_that_somebody_has_open_is_replaced_at_once(tmp_path: Path, damage: bytes) -> None:
    holding = Cache(tmp_path, FILES)
    holding.put({KEY: FULL})
    file_of(tmp_path).write_bytes(damage)
    again = Cache(tmp_path, FILES)
    again.put({KEY: FULL})
    assert again.get([KEY]) == {KEY: FULL}


def test_a_cache_that_nobody_needs_any_more_is_closed(tmp_path: Path) -> None:
    Cache(tmp_path, FILES).put({KEY: FULL})
    assert list(tmp_path.iterdir()) == [file_of(tmp_path)]


@pytest.mark.parametrize("value", [b"no zlib", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_damaged_record_is_made_again(tmp_path: Path, value: bytes) -> None:
    files = {"main.py": miniature("v0.33.0")["main.py"]}
    clean = engine_of(transforms()).convert(release("v0.33.0"), MemoryTree(files)).records
    engine_of(transforms(), cache=tmp_path).convert(release("v0.33.0"), MemoryTree(files))
    with sqlite3.connect(file_of(tmp_path)) as connection:
        connection.execute("UPDATE records SET record = ?", (value,))
    assert engine_of(transforms(), cache=tmp_path).convert(release("v0.33.0"), MemoryTree(files)).records == clean


def test_a_record_of_another_shape_is_made_again(tmp_path: Path) -> None:
    import zlib

    cache = Cache(tmp_path, FILES)
    cache.put({KEY: FULL})
    with sqlite3.connect(file_of(tmp_path)) as connection:
        connection.execute("UPDATE records SET record = ?", (zlib.compress(b'{"not": "ours"}'),))
    assert Cache(tmp_path, FILES).get([KEY]) == {}


def test_the_second_conversion_looks_at_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = MemoryTree(miniature("v0.33.0"))
    first = engine_of(transforms(), cache=tmp_path).convert(release("v0.33.0"), tree)

    def refuse(_: object) -> object:
        raise AssertionError("a file was looked at")

    monkeypatch.setattr(convert, "_look", refuse)
    second = engine_of(transforms(), cache=tmp_path).convert(release("v0.33.0"), tree)
    assert (second.reports, second.records, second.sites) == (first.reports, first.records, first.sites)


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_prepared_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    trees = [MemoryTree(miniature(era)) for era in ("v0.21.0", "v0.33.0")]
    engine = engine_of(transforms(), cache=tmp_path if kept else None)
    engine.prepare(trees)
    monkeypatch.setattr(convert, "_look", lambda _: pytest.fail("a file was looked at"))
    for tree in trees:
        assert engine.convert(release("v0.33.0"), tree).records


def test_a_folder_in_the_database_s_place_is_left_alone(tmp_path: Path) -> None:
    Cache(tmp_path, FILES)
    path = file_of(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    path.mkdir()
    with pytest.raises(PatchforgeError, match="cannot use"):
        Cache(tmp_path, FILES)
    assert path.is_dir()


WRITER = """
import sys
from pathlib import Path
from patchforge.engine.cache import FILES, Cache
from patchforge.engine.records import FileRecord
cache = Cache(Path(sys.argv[1]), FILES)
for number in range(200):
    cache.put({(f"{sys.argv[2]}{number}.py", "0" * 40): FileRecord(unreadable=sys.argv[2])})
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", WRITER, str(tmp_path), name] for name in ("a", "b")]
    running = [subprocess.Popen(command, cwd=ROOT) for command in commands]
    assert [process.wait() for process in running] == [0, 0]
    keys = [(f"{name}{number}.py", "0" * 40) for name in "ab" for number in range(200)]
    assert len(Cache(tmp_path, FILES).get(keys)) == len(keys)
