"""Journals that a stranger wrote: none leads a command to write, remove or show anything outside, or is obeyed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchforge.checkout import journal
from patchforge.checkout.examine import Examined, FolderState
from patchforge.checkout.journal import FoundJournal
from patchforge.checkout.subject import NodePack
from patchforge.errors import PatchforgeError
from patchforge.inside import Inside
from tests.checkout import places
from tests.checkout.places import PACK, content, fill, look
from tests.support import ROOT

Plain = dict[str, Any]
EVIL = b"import os\nos.system('evil')\n"
VICTIM = b"a user's own\n"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A pack beside a user's other files."""
    fill(tmp_path / "nodes" / "victim", {"main.py": VICTIM})
    fill(tmp_path / "nodes" / "pack", PACK)
    return tmp_path / "nodes"


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def forged(path: str = "nodes.py", before: bytes | None = EVIL, **more: Any) -> Plain:
    """A journal that would put EVIL into a file, if it were obeyed."""
    file = {"path": path, "found": blob(PACK["nodes.py"]), "before": before and blob(before), "after": None}
    file["after"] = file["found"]
    plain = {"format": 1, "name": "0" * 32, "kind": "pack", "subject": "pack", "commit": "", "rules": "", "options": []}
    return {**plain, "patches": [], "files": [file], **more}


def ship(folder: Path, plain: object, originals: dict[str, bytes] | None = None) -> None:
    data = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
    kept = {f".patchforge/original/{path}": copy for path, copy in (originals or {}).items()}
    fill(folder, {".patchforge/journal.json": data, **kept})


def of_files(*changes: Plain) -> Plain:
    return forged(
        files=[{"path": "nodes.py", "found": None, "before": None, "after": "0" * 40, **changed} for changed in changes]
    )


OUTSIDE = (
    "../victim/main.py",
    "a/../../victim/main.py",
    "/etc/passwd.py",
    "C:/x.py",
    "C:x.py",
    "a\\..\\..\\victim\\main.py",
    "./nodes.py",
    "a//b.py",
    "",
    "..",
    ".git/hooks/post-checkout.py",
    ".GIT/x.py",
    ".git./x.py",
    "sub/.git/hooks/x.py",
    "GIT~1/x.py",
    "nodes.py\x00.py",
    "no\ndes.py",
    "\x1b[2Jx.py",
    "a/" * 600 + "x.py",
    ".patchforge/x.py",
    ".patchforge-old-" + "0" * 32 + "/x.py",
    ".PATCHFORGE/x.py",
    "requirements.txt",
    "../" * 30 + "tmp/x.py",
)
SHAPES: dict[str, object] = {
    "nothing": b"",
    "not json": b"{",
    "not utf-8": b"\xff\xfe",
    "a list": [],
    "a number": 7,
    "a text": "x",
    "null": None,
    "too deep": b"[" * 100_000,
    "a huge number": b'{"format": 1e999}',
    "too large": b" " * (17 << 20),
    "another format": forged(format=2),
    "a format of text": forged(format="1"),
    "a format of truth": forged(format=True),
    "files that are a text": forged(files="nodes.py"),
    "files that are a number": forged(files=3),
    "a file that is a text": forged(files=["nodes.py"]),
    "a path that is a list": of_files({"path": ["nodes.py"]}),
    "a path that is a number": of_files({"path": 3}),
    "a file twice": of_files({}, {}),
    "a file twice but for case": of_files({}, {"path": "NODES.py"}),
    "a file twice but for what is not seen": of_files({}, {"path": "no\u200cdes.py"}),
    "a blob id that is none": of_files({"after": "x" * 40}),
    "a blob id that is a path": of_files({"after": "../../x"}),
    "neither before nor after": of_files({"after": None}),
    "more than there is": forged(more=1),
    "a file with more": of_files({"mode": 0o4755}),
    "too little": {"format": 1},
    "a name that is a path": forged(name="../../../x"),
    "a kind that there is not": forged(kind="program"),
    "a patch that is a path": forged(patches=[{"file": "../../x.patch", "sha256": "0" * 64}]),
    "a patch twice": forged(patches=[{"file": "0001-x.patch", "sha256": "0" * 64}] * 2),
    "a digest that is none": forged(patches=[{"file": "0001-x.patch", "sha256": "0"}]),
    "an original that is missing": forged(),
    **{f"path {path[:40]!r}": forged(path) for path in OUTSIDE},
}


def refused(folder: Path, subject: places.Remembered) -> list[PatchforgeError]:
    """Every command that would write; each says one thing and does nothing."""
    errors = []
    for command in places.COMMANDS.values():
        with pytest.raises(PatchforgeError) as caught:
            command(folder, subject)
        errors.append(caught.value)
    return errors


def check(world: Path) -> None:
    before = {path: (path.lstat().st_mode, path.read_bytes()) for path in sorted(world.rglob("*")) if path.is_file()}
    pack, subject = world / "pack", places.pack()
    errors = refused(pack, subject)
    after = {path: (path.lstat().st_mode, path.read_bytes()) for path in sorted(world.rglob("*")) if path.is_file()}
    assert after == before
    for error in errors:
        assert "revert" not in error.do
        assert error.do
        assert "\x1b" not in str(error)
        assert len(str(error)) < 2000
    assert not look(pack, subject).in_order


@pytest.mark.parametrize("name", SHAPES)
def test_a_strangers_journal_is_not_obeyed(world: Path, name: str) -> None:
    ship(world / "pack", SHAPES[name], {"main.py": EVIL})
    check(world)


def test_a_whole_journal_of_a_stranger_is_not_obeyed(world: Path) -> None:
    ship(world / "pack", forged(), {"nodes.py": EVIL})
    check(world)


def test_a_journal_of_before_there_were_records_is_not_obeyed(world: Path) -> None:
    entry = {"path": "../victim/main.py", "before": blob(EVIL), "after": blob(VICTIM)}
    patch = {"file": "0001-xpu.patch", "sha256": "0" * 64, "files": [entry]}
    manifest = {"pack": "pack", "commit": "", "rules": "", "patches": [patch]}
    fill(
        world / "pack",
        {".patchforge/manifest.json": json.dumps(manifest).encode(), ".patchforge/original/main.py": EVIL},
    )
    check(world)


@pytest.mark.parametrize(
    "manifest", [b"", b"[]", b"{}", b'{"patches": [{}]}', b'{"patches": 3}', b"\xff", b"[" * 50_000]
)
def test_a_manifest_that_is_none(world: Path, manifest: bytes) -> None:
    fill(world / "pack", {".patchforge/manifest.json": manifest})
    check(world)


def link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def _folder_link(place: Path, world: Path) -> None:
    link(place, world / "victim")


def _nowhere(place: Path, world: Path) -> None:
    link(place, world / "nowhere")


def _file(place: Path, _world: Path) -> None:
    place.write_bytes(b"x")


def _empty(place: Path, _world: Path) -> None:
    place.mkdir()


def _journal_link(place: Path, world: Path) -> None:
    link(place / "journal.json", world / "victim/main.py")


def _journal_folder(place: Path, _world: Path) -> None:
    (place / "journal.json").mkdir(parents=True)


def _originals_link(place: Path, world: Path) -> None:
    ship(place.parent, forged())
    link(place / "original", world / "victim")


def _pipe(place: Path, _world: Path) -> None:
    place.mkdir()
    os.mkfifo(place / "journal.json")


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "a link to another folder": _folder_link,
    "a link to nothing": _nowhere,
    "a file": _file,
    "an empty folder": _empty,
    "a journal that is a link": _journal_link,
    "a journal that is a folder": _journal_folder,
    "originals that are a link": _originals_link,
    "a pipe": _pipe,
}


@pytest.mark.parametrize("name", WAYS)
def test_what_is_not_a_folder_with_a_file(world: Path, name: str) -> None:
    WAYS[name](world / "pack" / ".patchforge", world)
    check(world)
    assert (world / "victim" / "main.py").read_bytes() == VICTIM


def test_a_true_journal_is_not_obeyed_once_a_byte_is_other(world: Path) -> None:
    pack, subject = world / "pack", places.pack()
    places.apply(pack, subject)
    place = pack / ".patchforge" / "journal.json"
    place.write_bytes(place.read_bytes().replace(b'"rules"', b'"rules" '))
    patched = content(pack)
    with pytest.raises(PatchforgeError, match="not written by your"):
        places.revert(pack, subject)
    assert content(pack) == patched


def test_a_journal_without_its_record_is_obeyed_once_it_is_shown_to_be_ours(world: Path) -> None:
    pack, subject = world / "pack", places.pack()
    places.apply(pack, subject)
    shutil.rmtree(places.state_folder())
    with pytest.raises(PatchforgeError, match="repair"):
        places.revert(pack, subject)
    places.repair(pack, subject)
    places.revert(pack, subject)
    assert content(pack) == PACK


def test_a_moved_or_copied_folder_takes_its_journal_along(world: Path) -> None:
    pack, subject = world / "pack", places.pack()
    places.apply(pack, subject)
    shutil.copytree(pack, world / "copy")
    pack.rename(world / "moved")
    for name in ("copy", "moved"):
        places.revert(world / name, subject)
        assert content(world / name) == PACK


def test_a_missing_original_is_had_back_and_no_file_is_removed(world: Path) -> None:
    pack, subject = world / "pack", places.pack()
    places.apply(pack, subject)
    (pack / ".patchforge" / "original" / "nodes.py").unlink()
    places.revert(pack, subject)
    assert content(pack) == PACK


def test_a_missing_original_of_an_edited_file_stops_the_way_back(world: Path) -> None:
    pack, subject = world / "pack", places.pack()
    places.apply(pack, subject)
    (pack / ".patchforge" / "original" / "nodes.py").unlink()
    (pack / "nodes.py").write_bytes((pack / "nodes.py").read_bytes() + b"# mine\n")
    edited = content(pack)
    with pytest.raises(PatchforgeError, match=r"nodes\.py"):
        places.revert(pack, subject)
    assert content(pack) == edited


def test_a_users_file_in_the_journals_folder_is_kept(world: Path) -> None:
    pack, subject = world / "pack", places.pack()
    places.apply(pack, subject)
    (pack / ".patchforge" / "notes.txt").write_bytes(b"mine\n")
    places.revert(pack, subject)
    assert content(pack) == {**PACK, ".patchforge/notes.txt": b"mine\n"}


def test_folders_with_the_names_of_killed_runs_are_left_alone_without_a_record(world: Path) -> None:
    pack, subject = world / "pack", places.pack()
    fill(pack, {f".patchforge-old-{'a' * 32}/mine.txt": b"x", f".patchforge-new-{'b' * 32}/journal.json": b"{}"})
    before = content(pack)
    places.apply(pack, subject)
    places.revert(pack, subject)
    assert content(pack) == before


def test_there_are_enough_hostile_journals() -> None:
    assert len(SHAPES) + len(WAYS) >= 30
    assert journal.FORMAT == 1


def test_every_state_is_called_by_its_name(tmp_path: Path) -> None:
    """The guide's table, ``status``, ``repair`` and ``--json`` have one word for each."""
    guide = (ROOT / "docs" / "user-guide.md").read_text("utf-8")
    for state in FolderState:
        examined = Examined(Inside(tmp_path), NodePack(), state, FoundJournal())
        assert state is FolderState.UNKNOWN or examined.says.startswith(state), state
        assert state is FolderState.UNKNOWN or f"\n| {state} |" in guide
