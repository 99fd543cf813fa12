"""Whatever goes wrong is one sentence with what to do and a status of its own; never a traceback or a leftover."""

from __future__ import annotations

import ast
import binascii
import concurrent.futures.process
import configparser
import csv
import errno
import gzip
import http.client
import importlib
import io
import itertools
import json
import lzma
import math
import os
import pickle
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import tarfile
import tomllib
import urllib.error
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchforge import atomic, documents, manifest, outputs
from patchforge.cli import _EPILOG, main
from patchforge.commands import status as status_command
from patchforge.engine.sites import load_decisions
from patchforge.errors import (
    CheckFailed,
    Damaged,
    Drifted,
    Exit,
    NotChecked,
    PatchforgeError,
    SystemFault,
    TryAgain,
    worst,
)
from patchforge.faults import told
from patchforge.pins import pin_files
from patchforge.pins.tracked import load_nodes, load_torch
from patchforge.project import load_project, release_index
from patchforge.sources import MissingBlobError
from tests.support import MINIATURES, ROOT

ERRNOS = [
    *("ENOENT", "EACCES", "EPERM", "EEXIST", "EISDIR", "ENOTDIR", "ENOTEMPTY", "ENOSPC", "EDQUOT", "EFBIG"),
    *("ENAMETOOLONG", "EROFS", "EMFILE", "ENFILE", "ELOOP", "EIO", "EAGAIN", "EBUSY", "ETXTBSY", "EXDEV"),
    *("ENOMEM", "ESTALE", "EINVAL", "EPIPE", "ENODEV", "ENXIO", "EDEADLK", "EILSEQ"),
]
NETWORK = ["ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ETIMEDOUT"]


def recursion() -> BaseException:
    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as error:
        return error
    raise AssertionError


FAULTS: dict[str, tuple[BaseException, Exit]] = {
    **{
        name: (OSError(getattr(errno, name), os.strerror(getattr(errno, name)), "/some/file"), Exit.SYSTEM)
        for name in ERRNOS
    },
    **{name: (OSError(getattr(errno, name), os.strerror(getattr(errno, name))), Exit.AGAIN) for name in NETWORK},
    "OSError without a number": (OSError("something"), Exit.SYSTEM),
    "OSError without anything": (OSError(), Exit.SYSTEM),
    "two names": (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), Exit.SYSTEM),
    "a name of bytes": (OSError(errno.EACCES, "Permission denied", b"\xff\n::error::x"), Exit.SYSTEM),
    "name resolution": (socket.gaierror(-2, "Name or service not known"), Exit.AGAIN),
    "TLS": (ssl.SSLError("bad record"), Exit.AGAIN),
    "URLError": (urllib.error.URLError("no route"), Exit.AGAIN),
    "a line of HTTP": (http.client.BadStatusLine("\x1b[2J"), Exit.AGAIN),
    "IncompleteRead": (http.client.IncompleteRead(b"x"), Exit.AGAIN),
    "decoding": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), Exit.DATA),
    "encoding": (UnicodeEncodeError("ascii", "\udcff", 0, 1, "ordinal not in range(128)"), Exit.DATA),
    "IDNA": (UnicodeError("label too long"), Exit.DATA),
    "gzip": (gzip.BadGzipFile("Not a gzipped file"), Exit.DATA),
    "zlib": (zlib.error("Error -3"), Exit.DATA),
    "lzma": (lzma.LZMAError("Corrupt input data"), Exit.DATA),
    "tarfile": (tarfile.ReadError("truncated header"), Exit.DATA),
    "zipfile": (zipfile.BadZipFile("File is not a zip file"), Exit.DATA),
    "EOF": (EOFError("Compressed file ended"), Exit.DATA),
    "JSON": (json.JSONDecodeError("Expecting value", "", 0), Exit.DATA),
    "TOML": (tomllib.TOMLDecodeError("Invalid statement"), Exit.DATA),
    "CSV": (csv.Error("line contains NUL"), Exit.DATA),
    "INI": (configparser.ParsingError("x.ini"), Exit.DATA),
    "pickle": (pickle.UnpicklingError("truncated"), Exit.DATA),
    "recursion": (recursion(), Exit.DATA),
    "memory": (MemoryError(), Exit.SYSTEM),
    "SQLite, damaged": (sqlite3.DatabaseError("file is not a database"), Exit.DATA),
    "SQLite, full": (sqlite3.OperationalError("database or disk is full"), Exit.SYSTEM),
    "a child failed": (subprocess.CalledProcessError(3, ["git"]), Exit.SYSTEM),
    "a child is late": (subprocess.TimeoutExpired(["git"], 3), Exit.SYSTEM),
    "a worker was killed": (concurrent.futures.process.BrokenProcessPool("terminated abruptly"), Exit.SYSTEM),
    "a package": (ModuleNotFoundError("No module named 'libcst'", name="libcst"), Exit.UNCHECKED),
    "a library": (ImportError("libz.so.1: cannot open", name="numpy.core"), Exit.UNCHECKED),
    "our own module": (ModuleNotFoundError("No module named 'patchforge.x'", name="patchforge.x"), Exit.BUG),
    "a group": (ExceptionGroup("several", [OSError(errno.ENOSPC, "No space left"), ValueError("x")]), Exit.SYSTEM),
    "KeyError": (KeyError("x\n::error::y"), Exit.BUG),
    "TypeError": (TypeError("unsupported"), Exit.BUG),
    "ValueError": (ValueError("embedded null byte"), Exit.BUG),
    "binascii": (binascii.Error("Incorrect padding"), Exit.BUG),
    "AssertionError": (AssertionError(), Exit.BUG),
    "StopIteration": (StopIteration(), Exit.BUG),
    "ZeroDivisionError": (ZeroDivisionError("division by zero"), Exit.BUG),
    "a bare BaseException": (BaseException("of a library in Rust"), Exit.BUG),
    "ours": (PatchforgeError("x"), Exit.USAGE),
    "ours, failed": (CheckFailed("x"), Exit.FAILED),
    "ours, drifted": (Drifted("x"), Exit.DRIFTED),
    "ours, damaged": (Damaged("x"), Exit.DATA),
    "ours, not checked": (NotChecked("x"), Exit.UNCHECKED),
    "ours, system": (SystemFault("x"), Exit.SYSTEM),
    "ours, later": (TryAgain("x"), Exit.AGAIN),
    "a missing blob": (MissingBlobError("a.py", "0" * 40), Exit.UNCHECKED),
}
each_fault = pytest.mark.parametrize("name", FAULTS)


def raising(error: BaseException) -> Callable[..., Any]:
    def run(*_: object, **__: object) -> int:
        raise error

    return run


@each_fault
def test_every_fault_has_a_sentence_and_a_status(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, status = FAULTS[name]
    monkeypatch.setattr(status_command, "run", raising(error))
    assert main(["status"]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("patchforge: ")
    assert "Traceback" not in said.err
    assert "\n::" not in said.err
    assert "to do: " in said.err or isinstance(error, PatchforgeError)
    assert ("mistake in patchforge" in said.err) == (status is Exit.BUG)


@each_fault
def test_with_json_it_is_a_document_too(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, status = FAULTS[name]
    monkeypatch.setattr(status_command, "run", raising(error))
    assert main(["status", "--json"]) == status
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["status"] == status
    assert document["error"]["problem"]


@pytest.mark.parametrize("asked", ["--traceback", "variable"])
def test_the_traceback_is_shown_when_asked_for(
    asked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_command, "run", raising(KeyError("x")))
    if asked == "variable":
        monkeypatch.setenv("PATCHFORGE_TRACEBACK", "1")
    assert main(["status", *([asked] if asked != "variable" else [])]) == Exit.BUG
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(status_command, "run", raising(KeyboardInterrupt()))
    assert main(["status"]) == Exit.INTERRUPTED
    assert capsys.readouterr().err == "patchforge: interrupted\n"


@pytest.mark.parametrize("command", ["exporter --once", "health", "bench v9.0.0", "check", "models list"])
def test_who_writes_nothing_says_nothing_of_what_is_written(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = {"bench v9.0.0": "bench.run", "models list": "models.list"}.get(command, command.split(maxsplit=1)[0])
    module = importlib.import_module(f"patchforge.commands.{name}")
    monkeypatch.setattr(module, "run", raising(KeyboardInterrupt()))
    assert main(command.split()) == Exit.INTERRUPTED
    assert capsys.readouterr().err == "patchforge: interrupted\n"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("done", [True, False])
def test_who_interrupts_writing_is_told_how_it_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    there: bool,
    done: bool,
) -> None:
    out, file, step = tmp_path / "out", tmp_path / "file.json", atomic.silent if done else raising(KeyboardInterrupt())
    kind = outputs.OutputKind("tests", re.compile("a"))
    if there:
        outputs.write_folder(out, {"a": b"1"}, kind)

    def write(_: object) -> int:
        with suppress(KeyboardInterrupt):
            outputs.write_document(file, outputs.marked(f"{outputs.mark()}\n"), step=step)
        outputs.write_folder(out, {"a": b"2"}, kind, step=step)
        raise KeyboardInterrupt

    monkeypatch.setattr(status_command, "run", write)
    assert main(["status"]) == Exit.INTERRUPTED
    left = [place for place in (file, out) if done or (there and place == out)]
    said = [f"{place} is whole: as it was before, or as it was to be" for place in left]
    assert capsys.readouterr().err == "; ".join(["patchforge: interrupted", *said]) + "\n"
    if done or there:
        assert (out / "a").read_bytes() == (b"2" if done else b"1")
    monkeypatch.setattr(status_command, "run", raising(KeyboardInterrupt()))
    assert main(["status"]) == Exit.INTERRUPTED
    assert capsys.readouterr().err == "patchforge: interrupted\n"


def test_a_mistake_names_its_place(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(status_command, "load_project", raising(KeyError("x")))
    assert main(["status"]) == Exit.BUG
    assert "patchforge/commands/status.py:" in capsys.readouterr().err


# --- Faults of the system, below the commands -------------------------------------------------------------------------

COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "status": lambda top: ["status", "--generated", str(top)],
    "check": lambda top: ["check", "--generated", str(top), "--upstream", str(top)],
    "apply": lambda top: ["apply", "--from", str(MINIATURES / "v0.33.0"), "--out", str(top / "out"), "--no-cache"],
    "apply --to": lambda top: ["apply", "--from", str(MINIATURES / "v0.33.0"), "--to", str(top / "to"), "--no-cache"],
    "explain": lambda _: ["explain", "--markdown"],
    "track": lambda top: ["track", "--upstream", str(top)],
}


@pytest.mark.parametrize("name", ["EACCES", "EIO", "EMFILE", "ELOOP", "ENAMETOOLONG", "ESTALE"])
@pytest.mark.parametrize("command", ["status", "check", "apply", "track"])
def test_reading_fails(
    tmp_path: Path, name: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = getattr(errno, name)

    def failing(path: Path, **_: object) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(documents, "read_bytes", failing)
    assert main(COMMANDS[command](tmp_path)) == Exit.SYSTEM
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert os.strerror(number) in said
    assert "upstream" in said  # which file
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


@pytest.mark.parametrize("name", ["ENOSPC", "EROFS", "EACCES", "EIO", "EDQUOT", "EMFILE"])
@pytest.mark.parametrize("case", [*itertools.product(["apply", "apply --to"], ["folder", "bytes", "rename"])])
def test_writing_fails_and_leaves_nothing(
    tmp_path: Path,
    name: str,
    case: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, place = case
    number = getattr(errno, name)
    error = OSError(number, os.strerror(number), str(tmp_path / "x"))
    arguments = COMMANDS[command](tmp_path)
    with monkeypatch.context() as patched:
        for target in _WRITERS[place]:
            patched.setattr(*target, raising(error))
        status = main(arguments)
    said = capsys.readouterr().err
    assert status == Exit.SYSTEM, said
    assert "Traceback" not in said
    assert "to do: " in said
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".") and path.name != "cache"]


_WRITERS: dict[str, list[tuple[Any, str]]] = {
    "folder": [(Path, "mkdir"), (os, "mkdir")],
    "bytes": [(Path, "write_bytes"), (os, "fsync")],
    "rename": [(os, "rename"), (os, "replace"), (Path, "rename"), (Path, "replace")],
}


def test_a_command_whose_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.import_module

    def lacking(name: str) -> Any:
        if name.endswith("commands.check"):
            raise ModuleNotFoundError("No module named 'libcst'", name="libcst")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", lacking)
    assert main(["check"]) == Exit.UNCHECKED
    assert "libcst is not installed" in capsys.readouterr().err


# --- The process itself: pipes, closed streams, encodings -------------------------------------------------------------


def patchforge(*arguments: str, script: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    line = f'"{sys.executable}" -m patchforge {" ".join(arguments)} {script}'
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(["bash", "-c", line], cwd=ROOT, env=env, capture_output=True, check=False)


@pytest.mark.parametrize("script", ["| head -1", "| true", "2>&-", "2>/dev/full", "| head -c 1"])
def test_whoever_stops_reading_sees_no_complaint(script: str) -> None:
    done = patchforge("packs", "explain", "--markdown", script=script)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", ["--version", "apply --help", "packs explain --json"])
@pytest.mark.parametrize(
    ("script", "said"), [("> /dev/full", b"the disk is full"), (">&-", b"standard output is closed")]
)
def test_an_output_that_is_lost_is_an_error(words: str, script: str, said: bytes) -> None:
    done = patchforge(words, script=script, PYTHONUNBUFFERED="1" if "e" in words else "")
    assert done.returncode == Exit.SYSTEM
    assert done.stderr.startswith(b"patchforge: standard output ")
    assert said in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "--version",
        "apply --help",
        "status",
        "explain",
        "packs explain --markdown",
        "bench costs",
        "cache",
        "models list --json",
        "completion bash",
    ],
)
def test_a_reader_that_is_gone_is_a_status_of_its_own(words: str) -> None:
    done = patchforge(words, script="| true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (Exit.CUT_SHORT, b"")


def test_every_status_is_in_the_help() -> None:
    assert [status for status in Exit if not re.search(rf"\b{status} ", _EPILOG)] == []


def test_an_output_that_is_lost_leaves_its_status_when_nobody_can_be_told() -> None:
    assert patchforge("--version", script=">&- 2>&-").returncode == Exit.SYSTEM


@pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be removed")
@pytest.mark.parametrize("words", ["status", "apply v0.33.0 --out /nowhere", "packs check .", "models list"])
def test_a_current_folder_that_was_removed_is_told(words: str, tmp_path: Path) -> None:
    (here := tmp_path / "here").mkdir()
    script = "from patchforge.cli import main; raise SystemExit(main())"
    line = f'rmdir "{here}"; PYTHONPATH="{ROOT}" "{sys.executable}" -c "{script}" {words}'
    done = subprocess.run(line, shell=True, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.SYSTEM, done.stderr
    assert "the folder that this was started in is not there any more" in done.stderr
    assert "to do: change to another folder" in done.stderr


def test_a_file_never_gets_the_number_of_a_closed_stream() -> None:
    code = "import os; from patchforge.terminal import guarded\nwith guarded(): os._exit(os.open('/', 0))"
    line = f'"{sys.executable}" -c "{code}" <&- >&- 2>&-'
    done = subprocess.run(["bash", "-c", line], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 3


def test_explanations_do_not_need_docstrings() -> None:
    """Python -OO keeps none."""
    code = "import sys; from patchforge.cli import main; sys.exit(main(['packs', 'explain', '--markdown']))"
    done = subprocess.run([sys.executable, "-OO", "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == (ROOT / "docs" / "nodes-rules.md").read_bytes()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16"])
def test_any_encoding_of_the_output(encoding: str) -> None:
    done = patchforge("explain", "--markdown", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "free-memory" in done.stdout.decode(encoding)


def test_an_ascii_locale() -> None:
    names = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = patchforge("apply", "--from", "$'/nowhere/\\xff\\xc3\\xa9'", **names)
    assert done.returncode == Exit.USAGE
    assert b"Traceback" not in done.stderr
    assert done.stderr.isascii()


# --- Documents of ours that somebody damaged --------------------------------------------------------------------------

DAMAGE: dict[str, bytes] = {
    "nothing": b"",
    "half": b'{"a": ',
    "text": b"hello",
    "noise": bytes(range(256)),
    "UTF-16": "x = 1".encode("utf-16"),
    "a list": b"[]",
    "null": b"null",
    "a number": b"3",
    "a text": b'"x"',
    "NaN": b'{"a": NaN}',
    "another shape": b'{"a": [1, 2]}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a number of 10⁵ digits": b'{"a": ' + b"9" * 100_000 + b"}",
    "a surrogate": b'{"\\ud800": "\\udfff"}',
}
each_damage = pytest.mark.parametrize("name", DAMAGE)


@each_damage
def test_a_damaged_manifest(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "v9.0.0"
    folder.mkdir()
    (folder / manifest.NAME).write_bytes(DAMAGE[name])
    assert main(["status", "--generated", str(tmp_path)]) == Exit.DATA
    said = capsys.readouterr().err
    assert str(folder / manifest.NAME) in said
    assert "found: " in said
    assert "Traceback" not in said


@each_damage
def test_damaged_pins(tmp_path: Path, name: str) -> None:
    (tmp_path / "nodes.json").write_bytes(DAMAGE[name])
    with pytest.raises(Damaged, match=r"nodes\.json"):
        pin_files.load("nodes", tmp_path)


@each_damage
@pytest.mark.parametrize(
    "file", ["comfyui.toml", "torch.toml", "nodes/x.toml", "comfyui.sites.toml", "comfyui.releases.tsv"]
)
def test_damaged_declarations(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / "nodes").mkdir()
    (tmp_path / "comfyui.toml").write_bytes((ROOT / "upstream/comfyui.toml").read_bytes())
    (tmp_path / file).write_bytes(b"head\n" * file.endswith("tsv") + DAMAGE[name] + b"\nx\n" * file.endswith("tsv"))
    readers: dict[str, Callable[[], object]] = {
        "comfyui.toml": lambda: load_project(folder=tmp_path),
        "torch.toml": lambda: load_torch(tmp_path),
        "nodes/x.toml": lambda: load_nodes(tmp_path),
        "comfyui.sites.toml": lambda: load_decisions(tmp_path / file),
        "comfyui.releases.tsv": lambda: release_index(load_project(folder=tmp_path)),
    }
    with pytest.raises(Damaged, match=file.rpartition("/")[2].replace(".", r"\.")):
        readers[file]()


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    folder = min((ROOT / "generated/comfyui").glob("v*"))
    document: dict[str, Any] = json.loads((folder / manifest.NAME).read_bytes())
    return document


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no commit": lambda document: document.pop("commit"),
    "a short commit": lambda document: document.update(commit="abc"),
    "a commit with a line end": lambda document: document.update(commit="0" * 40 + "\n"),
    "a commit that is a number": lambda document: document.update(commit=5),
    "a version that is none": lambda document: document.update(release="../../x"),
    "a version of 5000 digits": lambda document: document.update(release="v1." + "9" * 5000),
    "patches that are an object": lambda document: document.update(patches={}),
    "patches that are a text": lambda document: document.update(patches="abc"),
    "a patch that is a number": lambda document: document["patches"].append(5),
    "a patch elsewhere": lambda document: document["patches"][0].update(file="../../etc/passwd"),
    "a patch below": lambda document: document["patches"][0].update(file="original/x.patch"),
    "an absolute patch": lambda document: document["patches"][0].update(file="/etc/passwd"),
    "a patch without a name": lambda document: document["patches"][0].update(file=""),
    "a patch with a line end": lambda document: document["patches"][0].update(file="a\n::error::"),
    "a digest too short": lambda document: document["patches"][0].update(sha256="00"),
    "a file elsewhere": lambda document: document["patches"][0]["files"][0].update(path="../x"),
    "a file in .git": lambda document: document["patches"][0]["files"][0].update(path=".GIT/config"),
    "an absolute file": lambda document: document["patches"][0]["files"][0].update(path="/x"),
    "a blob that is true": lambda document: document["patches"][0]["files"][0].update(before=True),
    "a blob that is not there after": lambda document: document["patches"][0]["files"][0].update(after=None),
    "sites that are a list": lambda document: document.update(sites=[]),
    "a count that is a text": lambda document: document["sites"].update(unclaimed="3"),
    "a count that is true": lambda document: document["sites"].update(unclaimed=True),
    "a count that is a fraction": lambda document: document["sites"].update(unclaimed=1.5),
    "transforms of nothing": lambda document: document.update(transforms=[[]]),
    "edits that are a list": lambda document: document["transforms"][0].update(edits=[]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_manifest_with_one_fault(tmp_path: Path, whole: dict[str, Any], name: str) -> None:
    changed = json.loads(json.dumps(whole))
    CHANGES[name](changed)
    (tmp_path / manifest.NAME).write_text(json.dumps(changed))
    with pytest.raises(Damaged) as caught:
        manifest.load(tmp_path)
    assert "$" in caught.value.found  # the place


def test_a_whole_manifest_is_taken(tmp_path: Path, whole: dict[str, Any]) -> None:
    (tmp_path / manifest.NAME).write_text(json.dumps(whole))
    assert manifest.FORMAT.data(manifest.load(tmp_path)) == whole


def test_a_document_is_bounded_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(Damaged, match="too large"):
        documents.read_bytes(tmp_path / "large", most=10)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Damaged, match="not a file"):
        documents.read_json(tmp_path / "pipe", dict)
    with pytest.raises(IsADirectoryError):
        documents.read_bytes(tmp_path)
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(Damaged, match="not a file"):
        documents.read_text(tmp_path / "zero")


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_damaged(data: bytes) -> None:
    try:
        expected = json.loads(data, parse_constant=int)
    except (ValueError, RecursionError):
        expected = None
    if isinstance(expected, dict):
        assert documents.parse_json(data, dict[str, Any], "it") == expected
    else:
        with pytest.raises(Damaged):
            documents.parse_json(data, dict[str, Any], "it")


# --- Small things that all of this stands on --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [CheckFailed("a", expected="b", found="c", do="d"), MissingBlobError("p", "b", origin="o"), Damaged("x")],
)
def test_our_errors_travel_between_processes(error: PatchforgeError) -> None:
    travelled = pickle.loads(pickle.dumps(error))
    assert type(travelled) is type(error)
    assert (str(travelled), travelled.as_data(), vars(travelled)) == (str(error), error.as_data(), vars(error))


def test_the_worst_status() -> None:
    assert worst([]) is Exit.OK
    assert worst([0, 69, 1]) is Exit.FAILED
    assert worst([0, 69]) is Exit.UNCHECKED
    assert worst([1, 3, 74]) is Exit.DRIFTED
    for status in Exit:
        assert worst([status, Exit.OK]) is status


def test_telling_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.__import__", raising(OSError(errno.EMFILE, "Too many open files")))
    statuses = {name: told(error).status for name, (error, _) in FAULTS.items()}
    monkeypatch.undo()
    assert statuses == {name: status for name, (_, status) in FAULTS.items()}


def test_a_real_isal_error_is_known() -> None:
    isal_zlib = pytest.importorskip("isal.isal_zlib")
    with pytest.raises(isal_zlib.error) as caught:
        isal_zlib.decompress(b"not packed")
    assert told(caught.value).status is Exit.DATA


def test_streams_are_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr, sys.stdout.errors
    with pytest.raises(SystemExit):
        main(["--version"])
    assert (sys.stdout, sys.stderr, sys.stdout.errors) == before
    assert capsys.readouterr().out.startswith("patchforge ")


def test_an_argument_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["\x1b[31m\n::error::evil"]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "\n::" not in said


WRONG_LINES = {
    "an unknown option": ["apply", "--bad"],
    "no command": [],
    "an unknown command": ["aply"],
    "no folder": ["repair"],
    "two places": ["apply", "v0.32.0", "--to", "a", "--out", "b"],
    "no processes": ["apply", "v0.32.0", "--jobs", "0"],
    "fewer than none": ["check", "--jobs", "-2"],
    "half a process": ["replay", "--jobs", "1.5"],
    "too many digits": ["check", "--jobs", "9" * 5000],
    "another script's digit": ["check", "--jobs", "\u0663"],
    "lines that are fewer than none": ["apply", "v0.32.0", "--context", "-1"],
    "no pairs": ["test", "--pairs", "-1"],
    "no time": ["test", "--timeout", "0"],
    "time that never ends": ["test", "--timeout", "inf"],
    "time that is not a number": ["test", "--timeout", "nan"],
    "open pull requests": ["bot", "--most-open", "-1"],
    "no version": ["replay", "--since", "v9"],
    "no last version": ["replay", "--until", "newest"],
    "nothing between": ["replay", "--since", "v0.33.0", "--until", "v0.32.0"],
    "no version for the bot": ["bot", "v9", "--dry-run", "--upstream", "."],
    "no version for jobs": ["matrix", "v9"],
    "no version for files": ["apply", "v9", "--from", str(MINIATURES / "v0.33.0"), "--dry-run"],
}


@pytest.mark.parametrize("wish", ["--json", "--js"])
@pytest.mark.parametrize("case", WRONG_LINES)
def test_a_wrong_command_line_is_an_error_like_any_other(
    case: str, wish: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "clone")], check=True)
    monkeypatch.setenv("PATCHFORGE_UPSTREAM", str(tmp_path / "clone"))
    line = WRONG_LINES[case]
    assert main([*line, wish]) == Exit.USAGE
    said = capsys.readouterr()
    document = json.loads(said.out)["error"]
    assert document["status"] == Exit.USAGE
    assert document["problem"]
    assert f"patchforge: {document['problem']}" in said.err
    assert main(line) == Exit.USAGE
    assert capsys.readouterr().out == ""


def test_a_stream_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert out.getvalue().startswith("patchforge ")


@pytest.mark.parametrize(
    "words",
    [
        ["apply", "--in-place", ""],
        ["apply", "v0.33.0", "--to", ""],
        ["apply", "--revert", ""],
        ["repair", ""],
        ["update", ""],
        ["status", ""],
        ["nodes", "apply", "", "--in-place"],
        ["nodes", "apply", "pack", "--out", ""],
        ["nodes", "revert", ""],
        ["pin", "--pins", ""],
    ],
)
def test_an_empty_argument_is_not_the_current_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nodes.py").write_text("import torch\ntorch.cuda.empty_cache()\n")
    monkeypatch.chdir(tmp_path)
    assert main(words) == Exit.USAGE
    assert "is empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["nodes.py"]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (r"C:\python_embeded\Lib\site-packages\libcst\native.cp311-win_amd64.pyd", "libcst.native"),
        (r"C:\python_embeded\Lib\site-packages\native.pyd", "native"),
        ("/usr/lib/python3/native/__init__.py", "native"),
    ],
)
def test_a_library_that_windows_cannot_load_is_named_with_its_package(path: str, named: str) -> None:
    said = told(ImportError("DLL load failed while importing native", name="native", path=path))
    assert said.problem == f"the Python package {named} is not installed or does not load"


def test_every_error_names_a_way_on() -> None:
    """But for checks, which say what they saw, and for what is wrong with a journal, which is told in a sentence."""
    paths = [
        path for path in sorted((ROOT / "patchforge").rglob("*.py")) if path.name not in {"errors.py", "journal.py"}
    ]
    nodes = [(path, node) for path in paths for node in ast.walk(ast.parse(path.read_bytes()))]
    classes = {node.name: node for _, node in nodes if isinstance(node, ast.ClassDef)}
    errors = {"PatchforgeError", "Damaged", "NotChecked", "SystemFault", "TryAgain"}
    for name, own in classes.items():  # one that has more to say than its kind says it in ``__init__``
        if not errors.isdisjoint(map(ast.unparse, own.bases)) and "__init__" not in ast.unparse(own):
            errors.add(name)
    wordless = []
    for path, node in nodes:
        if isinstance(node, ast.Call):
            name, told = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
            given = name == "kind" and told & {"expected", "found"}  # a class that the caller chooses
            if (name in errors or given) and not told & {"do", None}:
                wordless.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert not wordless, "\n".join(wordless)


_OF_THE_SYSTEM = {
    "OSError",
    "UnicodeDecodeError",
    "UnicodeError",
    "JSONDecodeError",
    "PermissionError",
    "TimeoutExpired",
}
#: Where what is caught is said by more than the system, and goes to a log or through ``line``.
_SAID_OTHERWISE = {
    "engine/blocks.py",
    "proof/reading.py",
    "trial/verdicts/checks.py",
    "trial/workflows/library.py",
}


def of_python(source: str) -> list[int]:
    """Lines of handlers of the system's errors that show Python's words for them: ``str(error)``, its type's name."""
    lines = []
    handlers = (
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ExceptHandler) and node.name and node.type
    )
    for handler in handlers:
        names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(handler.type or ast.Pass())}
        if not names & _OF_THE_SYSTEM:
            continue
        for node in ast.walk(ast.Module(handler.body, [])):
            called = (
                isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"str", "type", "repr"} and node.args
            )
            shown = node.args[0] if called else node.value if isinstance(node, ast.FormattedValue) else None  # type: ignore[attr-defined]
            if getattr(shown, "id", "") == handler.name:
                lines.append(node.lineno)  # type: ignore[attr-defined]
    return lines


def test_no_error_of_the_system_is_said_in_pythons_words() -> None:
    assert of_python("try:\n    x()\nexcept OSError as e:\n    raise A(f'{e}')") == [4]
    assert of_python("try:\n    x()\nexcept (A, OSError) as e:\n    raise A(type(e).__name__)") == [4]
    assert of_python("try:\n    x()\nexcept OSError as e:\n    raise A(reason(e))") == []
    top = ROOT / "patchforge"
    found = {path.relative_to(top).as_posix(): of_python(path.read_text()) for path in sorted(top.rglob("*.py"))}
    assert {path: lines for path, lines in found.items() if lines and path not in _SAID_OTHERWISE} == {}


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "nothing: it is empty"),
        (b" \n", "nothing: it is empty"),
        (b'{"a": \xff}', "the byte 0xff at 6, which is not UTF-8"),
        (b'{"a": }', "line 1, column 7: expecting value"),
        (b'{"a": 1}\n x', "line 2, column 2: extra data"),
        (b'{"a": NaN}', "NaN is not a number of JSON"),
        (b'["\\ud800"]', "half a character"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_said_in_plain_words(data: bytes, found: str) -> None:
    with pytest.raises(Damaged) as caught:
        documents.parse_json(data, dict[str, int], "a.json")
    assert caught.value.expected == "a JSON document in UTF-8"
    assert found in caught.value.found


@dataclass(frozen=True)
class Plain:
    on: bool
    count: int
    ratio: float
    name: str


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"count": True}, "expected a whole number, found true @ $.count"),
        ({"count": math.nan}, "expected a whole number, found nan @ $.count"),
        ({"ratio": math.inf}, "expected a finite number, found inf @ $.ratio"),
        ({"on": 1}, "expected true or false, found 1 @ $.on"),
        ({"name": None}, "expected a text, found nothing (null) @ $.name"),
        ({"unknown": 1}, "expected no fields but on, count, ratio, name, found unknown @ $"),
    ],
)
def test_a_wrong_value_is_said_as_the_document_writes_it(change: dict[str, object], found: str) -> None:
    with pytest.raises(Damaged) as caught:
        documents.structured({"on": True, "count": 1, "ratio": 1.0, "name": "a", **change}, Plain, "a.toml")
    assert found in caught.value.found
