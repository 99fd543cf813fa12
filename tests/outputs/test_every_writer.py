"""Whatever stands at an output's place: all that is not ours stays, to the byte, and a way on is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge.errors import PatchforgeError
from patchforge.outputs import LIST
from tests.outputs.world import WRITERS, Refused, Sandbox, Writer, command, sandbox, state

FOLDERS = [writer for writer in WRITERS if writer.folder]
FILES = [writer for writer in WRITERS if not writer.folder]
MINE = b"mine, and nowhere else\n"

Fault = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each writer's output, as it writes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATCHFORGE_CACHE", str(tmp_path_factory.mktemp("made") / "cache"))
        places = {}
        for writer in WRITERS:
            box = sandbox(tmp_path_factory.mktemp("made") / "box")
            writer.run(box)
            places[writer.name] = writer.at(box)
        return places


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    return sandbox(tmp_path / "box")


def put(made: dict[str, Path], writer: Writer, box: Sandbox) -> Path:
    """What the writer wrote before, at its place."""
    at, before = writer.at(box), made[writer.name]
    at.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if writer.folder else shutil.copy)(before, at)
    if writer.name == "reports":
        shutil.copy(before.with_suffix(".md"), at.with_suffix(".md"))
    if writer.name == "flake":
        shutil.copytree(before.parent / "generated" / "nix", box.generated / "nix")
    return at


def refused(writer: Writer, box: Sandbox) -> None:
    before = state(box.top)
    with pytest.raises((Refused, PatchforgeError)):
        writer.run(box)
    assert state(box.top) == before


def _notes(at: Path) -> None:
    (at / "notes.txt").write_bytes(MINE)


def _like_ours(at: Path) -> None:
    (at / "9999-mine.patch").write_bytes(MINE)


def _deep(at: Path) -> None:
    (at / "a" / "b").mkdir(parents=True)
    (at / "a" / "b" / "c").write_bytes(MINE)


def _hidden(at: Path) -> None:
    (at / ".git").mkdir()
    (at / ".git" / "HEAD").write_bytes(MINE)


def _empty_folder(at: Path) -> None:
    (at / "kept").mkdir()


def _first(at: Path) -> Path:
    return min(path for path in at.rglob("*") if path.is_file() and path.name != LIST)


def _edited(at: Path) -> None:
    with _first(at).open("ab") as stream:
        stream.write(MINE)


def _edited_list(at: Path) -> None:
    with (at / LIST).open("ab") as stream:
        stream.write(MINE)


def _link_in(at: Path) -> None:
    first = _first(at)
    first.rename(at.parent / "elsewhere")
    first.symlink_to(at.parent / "elsewhere")


def _link_to_folder(at: Path) -> None:
    (at.parent / "other").mkdir()
    (at.parent / "other" / "file").write_bytes(MINE)
    (at / "linked").symlink_to(at.parent / "other")


def _dangling_in(at: Path) -> None:
    (at / "dangling").symlink_to("nowhere")


def _fifo(at: Path) -> None:
    os.mkfifo(at / "pipe")


def _folder_for_file(at: Path) -> None:
    first = _first(at)
    first.unlink()
    first.mkdir()
    (first / "mine").write_bytes(MINE)


@pytest.mark.parametrize(
    "fault",
    [
        _notes,
        _like_ours,
        _deep,
        _hidden,
        _empty_folder,
        _edited,
        _edited_list,
        _link_in,
        _link_to_folder,
        _dangling_in,
        _fifo,
        _folder_for_file,
    ],
)
@pytest.mark.parametrize("writer", FOLDERS, ids=str)
def test_a_folder_that_is_not_all_ours(writer: Writer, fault: Fault, made: dict[str, Path], box: Sandbox) -> None:
    fault(put(made, writer, box))
    refused(writer, box)


def _users_patches(at: Path) -> None:
    at.mkdir()
    (at / "series").write_bytes(MINE)
    (at / "x.patch").write_bytes(MINE)


def _users_manifest(at: Path) -> None:
    at.mkdir()
    (at / "manifest.json").write_text('{"format": 1, "name": "a web application"}')


def _users_list(at: Path) -> None:
    at.mkdir()
    (at / LIST).write_text("0" * 64 + "  release.tar.gz\n")


def _file(at: Path) -> None:
    at.write_bytes(MINE)


def _empty_file(at: Path) -> None:
    at.write_bytes(b"")


def _link_out(at: Path) -> None:
    _notes_at(at.with_name("users"))
    at.symlink_to("users")


def _notes_at(folder: Path) -> None:
    folder.mkdir()
    _notes(folder)


def _link_to_nothing(at: Path) -> None:
    at.symlink_to("nowhere")


def _circle(at: Path) -> None:
    at.symlink_to(at.name)


def _link_to_file(at: Path) -> None:
    at.with_name("users").write_bytes(MINE)
    at.symlink_to("users")


@pytest.mark.parametrize(
    "fault",
    [
        _notes_at,
        _users_patches,
        _users_manifest,
        _users_list,
        _file,
        _empty_file,
        _link_out,
        _link_to_nothing,
        _circle,
        _link_to_file,
    ],
)
@pytest.mark.parametrize("writer", FOLDERS, ids=str)
def test_what_is_not_a_folder_of_ours(writer: Writer, fault: Fault, box: Sandbox) -> None:
    fault(writer.at(box))
    refused(writer, box)


def _users_json(at: Path) -> None:
    at.write_text('{"mine": [1, 2]}\n')


def _binary(at: Path) -> None:
    at.write_bytes(b"\xff\xfe\x00mine")


def _pipe(at: Path) -> None:
    os.mkfifo(at)


@pytest.mark.parametrize(
    "fault", [_file, _users_json, _binary, _notes_at, _link_out, _link_to_file, _link_to_nothing, _circle, _pipe]
)
@pytest.mark.parametrize("writer", [writer for writer in FILES if writer.name != "index"], ids=str)
def test_what_is_not_a_file_of_ours(writer: Writer, fault: Fault, box: Sandbox) -> None:
    writer.at(box).parent.mkdir(exist_ok=True)
    fault(writer.at(box))
    refused(writer, box)


@pytest.mark.parametrize(
    "writer", [writer for writer in FILES if writer.name in {"sarif", "flake", "reports", "against"}], ids=str
)
def test_a_file_of_ours_that_was_edited(writer: Writer, made: dict[str, Path], box: Sandbox) -> None:
    at = put(made, writer, box)
    at.write_bytes(at.read_bytes() + MINE)
    refused(writer, box)


@pytest.mark.parametrize(
    "writer", [writer for writer in WRITERS if writer.name not in {"nix", "flake", "index"}], ids=str
)
def test_a_file_in_the_way_above(writer: Writer, box: Sandbox) -> None:
    above = writer.at(box).parent
    shutil.rmtree(above, ignore_errors=True)
    above.write_bytes(MINE)
    refused(writer, box)


@pytest.mark.parametrize("writer", WRITERS, ids=str)
def test_what_is_ours_is_written_again(writer: Writer, made: dict[str, Path], box: Sandbox) -> None:
    at = put(made, writer, box)
    writer.run(box)
    assert list(at.parent.glob(".*.patchforge-*")) == []


@pytest.mark.parametrize("writer", WRITERS, ids=str)
def test_a_link_that_the_user_made_to_what_is_ours(writer: Writer, made: dict[str, Path], box: Sandbox) -> None:
    at = put(made, writer, box)
    at.rename(at.with_name("kept"))
    at.symlink_to("kept")
    writer.run(box)
    assert at.is_symlink()
    assert (at.with_name("kept")).is_dir() == writer.folder


@pytest.mark.parametrize(
    "how", ["is", "contains", "lies in", "is, by a link", "lies in, by a link", "is, by another name"]
)
@pytest.mark.parametrize("name", ["apply --out", "apply --to", "packs apply", "sarif"])
def test_an_output_in_its_input(name: str, how: str, box: Sandbox) -> None:
    read = box.pack if "apply -" not in name else box.source
    (box.top / "link").symlink_to(read)
    out = {
        "is": read,
        "contains": read.parent,
        "lies in": read / "new",
        "is, by a link": box.top / "link",
        "lies in, by a link": box.top / "link" / "new" / "er",
        "is, by another name": read.parent / "x" / ".." / read.name,
    }[how]
    commands = {
        "apply --out": ("apply", "--from", str(read), "--out"),
        "apply --to": ("apply", "--from", str(read), "--to"),
        "packs apply": ("packs", "apply", str(read), "--out"),
        "sarif": ("packs", "check", str(read), "--sarif"),
    }
    before = state(box.top)
    with pytest.raises(Refused):
        command(*commands[name], str(out))
    assert state(box.top) == before


def test_an_output_in_the_cache_or_our_sources(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    for out in (tmp_path / "cache" / "x", tmp_path / "cache", tmp_path):
        with pytest.raises(Refused):
            command("apply", "--from", str(box.source), "--out", str(out))
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("to", [".", "..", "{}"])
def test_where_the_user_is(to: str, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    (box.place / "inner").mkdir(parents=True)
    monkeypatch.chdir(box.place / "inner")
    before = state(box.top)
    for option in ("--out", "--to"):
        with pytest.raises(Refused):
            command("apply", "--from", str(box.source), option, to.format(box.place))
    assert state(box.top) == before


def test_defaults_are_asked_about_too(box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("comfyui/v0.33.0", "nodes/some-pack"):
        folder = tmp_path / "generated" / name
        folder.mkdir(parents=True)
        _users_patches(folder / "x")
    before = state(tmp_path / "generated")
    for arguments in (("apply", "--from", str(box.source)), ("packs", "apply", str(box.pack))):
        with pytest.raises(Refused):
            command(*arguments)
    assert state(tmp_path / "generated") == before


def test_a_refusal_names_the_files_and_what_to_do(box: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    _notes_at(box.place)
    with pytest.raises(Refused):
        command("packs", "apply", str(box.pack), "--out", str(box.place))
    said = capsys.readouterr().err
    assert "notes.txt" in said
    assert "to do: choose another output, or move these away" in said
