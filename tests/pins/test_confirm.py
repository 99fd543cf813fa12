"""Published hashes are confirmed by reading the sources, over real HTTP."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from patchforge.commands import verify
from patchforge.errors import Exit
from patchforge.hashes import of_clone, trusted
from patchforge.pins import pin_files
from patchforge.pins.confirm import Confirmation, confirm
from patchforge.pins.pin_files import LockedWheel, RepositoryPin, TorchLock
from tests.pins.conftest import Server, repository

WRONG = "sha256-bJPj7L6w5Uj9LfRaYFRys0wWFCh8VrUbszze965SNbU="


@pytest.fixture
def commit(server: Server, tmp_path: Path) -> str:
    """A commit whose tarball the server has, as GitHub would make it."""
    revision = repository(tmp_path / "clone", {"a.txt": "a", "b/c.txt": "c"})
    command = [
        "git",
        "-C",
        str(tmp_path / "clone"),
        "archive",
        "--format=tar.gz",
        f"--prefix=pack-{revision}/",
        revision,
    ]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    server.pages[f"/Someone/Pack/archive/{revision}.tar.gz"] = ("application/gzip", data)
    return revision


def pin_of(commit: str, text: str, source: str = "published") -> RepositoryPin:
    pin = RepositoryPin(owner="Someone", repo="Pack", rev=commit, date="2026-03-04", license="MIT", submodules=False)
    if text:
        return replace(pin, hash=text, hash_source=source, published_by="someone")
    return replace(pin, missing={"a.txt": "1"})


def test_a_right_claim_is_confirmed_and_written(server: Server, tmp_path: Path, commit: str) -> None:
    right = of_clone(tmp_path / "clone", commit).hash
    other = pin_of("0" * 40, WRONG, source="computed")
    pin_files.save("nodes", {"pack": pin_of(commit, right), "other": other}, tmp_path / "pins")
    assert list(confirm(tmp_path / "pins", server.address)) == [Confirmation("nodes: pack", "confirmed")]
    written = pin_files.load("nodes", tmp_path / "pins")
    pin = written["pack"]
    assert (pin.hash, pin.hash_source, pin.published_by) == (right, "computed", "")
    assert written["other"] == other
    assert list(confirm(tmp_path / "pins", server.address)) == []


def test_a_missing_hash_is_found(server: Server, tmp_path: Path, commit: str) -> None:
    pin_files.save("ollama", {"": pin_of(commit, "")}, tmp_path / "pins")
    assert list(confirm(tmp_path / "pins", server.address)) == [Confirmation("ollama", "confirmed")]
    written = pin_files.load_one("ollama", tmp_path / "pins")
    assert written
    assert (written.hash, written.missing) == (of_clone(tmp_path / "clone", commit).hash, {})


def test_a_wrong_claim_is_contradicted_and_stays(server: Server, tmp_path: Path, commit: str) -> None:
    pin_files.save("nodes", {"pack": pin_of(commit, WRONG)}, tmp_path / "pins")
    before = (tmp_path / "pins/nodes.json").read_bytes()
    (confirmation,) = confirm(tmp_path / "pins", server.address)
    assert confirmation.outcome == "contradicted"
    assert WRONG in confirmation.problem
    assert "someone" in confirmation.problem
    assert (tmp_path / "pins/nodes.json").read_bytes() == before


def test_a_tarball_of_another_commit_confirms_nothing(server: Server, tmp_path: Path, commit: str) -> None:
    server.pages[f"/Someone/Pack/archive/{'1' * 40}.tar.gz"] = server.pages[f"/Someone/Pack/archive/{commit}.tar.gz"]
    pin_files.save("nodes", {"pack": pin_of("1" * 40, of_clone(tmp_path / "clone", commit).hash)}, tmp_path / "pins")
    (confirmation,) = confirm(tmp_path / "pins", server.address)
    assert confirmation.outcome == "unreachable"
    assert "tarball of another commit" in confirmation.problem


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:1"])
def test_what_cannot_be_reached(server: Server, tmp_path: Path, address: str) -> None:
    pin_files.save("nodes", {"pack": pin_of("2" * 40, WRONG)}, tmp_path / "pins")
    (confirmation,) = confirm(tmp_path / "pins", address or server.address)
    assert confirmation.outcome == "unreachable"
    assert "cannot be read" in confirmation.problem


def test_submodules_need_clones(server: Server, tmp_path: Path) -> None:
    pin_files.save("nodes", {"pack": replace(pin_of("3" * 40, WRONG), submodules=True)}, tmp_path / "pins")
    (confirmation,) = confirm(tmp_path / "pins", server.address)
    assert "no submodules" in confirmation.problem


def test_a_published_wheel(server: Server, tmp_path: Path) -> None:
    path = server.add("xpu", "kit-1.0-py3-none-any.whl", b"a wheel")
    text = trusted(hashlib.sha256(b"a wheel").hexdigest())
    wheel = LockedWheel(
        name="kit",
        version="1.0",
        file="kit.whl",
        requires=(),
        url=server.address + path,
        hash=text,
        hash_source="published",
        published_by="x",
    )
    done = replace(wheel, name="umf", url="http://127.0.0.1:1/", hash=WRONG, hash_source="index", published_by="")
    lock = TorchLock("2.14.0", "cp312", complete=True, missing=(), unread=(), wheels=(wheel, done))
    pin_files.save("torch/2.14.0-cp312", {"": lock}, tmp_path / "pins")
    assert list(confirm(tmp_path / "pins")) == [Confirmation("torch/2.14.0-cp312: kit", "confirmed")]
    written = pin_files.load_lock("2.14.0-cp312", tmp_path / "pins")
    assert written
    assert written.wheels == (wheel.confirmed(text), done)


def test_the_command(
    server: Server, tmp_path: Path, commit: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchforge.pins.confirm.HOST", server.address)
    right = of_clone(tmp_path / "clone", commit).hash
    pin_files.save("nodes", {"pack": pin_of(commit, right), "wrong": pin_of("4" * 40, WRONG)}, tmp_path / "pins")
    options = argparse.Namespace(online=True, json=True, pins=str(tmp_path / "pins"))
    assert verify.run(options) == Exit.UNCHECKED
    assert [(result["pin"], result["outcome"]) for result in json.loads(capsys.readouterr().out)["results"]] == [
        ("nodes: pack", "confirmed"),
        ("nodes: wrong", "unreachable"),
    ]
    pin_files.save("nodes", {"pack": pin_of(commit, right)}, tmp_path / "pins")
    options.json = False
    assert verify.run(options) == Exit.OK
    assert capsys.readouterr().out == "nodes: pack: confirmed\n"
