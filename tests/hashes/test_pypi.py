"""Hashes from a package index on this machine: JSON, HTML, spellings, what the index lacks (pitfalls 2 and 12)."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from patchforge.errors import CheckFailed, PatchforgeError, TryAgain
from patchforge.hashes import trusted
from patchforge.hashes.pypi import DEFAULT_INDEX, configured_indexes, package_files, store_name

WHEEL = "Some_Pack-1.2.0+xpu-cp311-cp311-linux_x86_64.whl"
SOURCE = "some_pack-1.2+xpu.tar.gz"
DIGEST = hashlib.sha256(b"wheel").hexdigest()
OTHER = hashlib.sha256(b"source").hexdigest()
JSON = "application/vnd.pypi.simple.v1+json"


@dataclass
class Index:
    """Pages by path: content type and bytes."""

    address: str = ""
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0

    def json(self, name: str, *files: dict[str, object]) -> None:
        self.pages[f"/simple/{name}/"] = (JSON, json.dumps({"meta": {}, "files": files}).encode())


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    state = Index()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            state.headers = dict(self.headers)
            if self.path not in state.pages:
                self.send_error(404)
                return
            kind, data = state.pages[self.path]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) - state.cut * self.path.startswith("/files/")])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}/simple"
    monkeypatch.setenv("PIP_INDEX_URL", state.address)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield state
    server.shutdown()
    server.server_close()


def entry(file: str, digest: str = DIGEST, **more: object) -> dict[str, object]:
    return {"filename": file, "url": f"../../files/{file}", "hashes": {"sha256": digest} if digest else {}, **more}


def test_files_of_a_version_from_json_and_nothing_is_downloaded(index: Index) -> None:
    others = [entry("some_pack-1.2-py3-none-any.whl"), entry("some_pack-11.2+xpu.tar.gz"), entry("some_pack-1.2.exe")]
    index.json("some-pack", entry(SOURCE, OTHER), entry(WHEEL, yanked="broken"), *others)
    wheel, source = package_files("Some.Pack", "1.2+xpu")
    assert (wheel.file, wheel.hash, wheel.provenance, wheel.yanked) == (WHEEL, trusted(DIGEST), "published", True)
    assert (source.file, source.hash, source.provenance, source.yanked) == (SOURCE, trusted(OTHER), "published", False)
    assert wheel.url.endswith("/files/Some_Pack-1.2.0%2Bxpu-cp311-cp311-linux_x86_64.whl")
    assert "%" not in wheel.name
    assert index.asked == ["/simple/some-pack/"]


def test_files_of_a_version_from_html(index: Index) -> None:
    anchors = (
        f'<a href="../../files/{WHEEL.replace("+", "%2B")}#sha256={DIGEST}">{WHEEL}</a>'
        f'<a href="{index.address}/{SOURCE}#md5=0" data-yanked="">x</a><a>nothing</a>'
    )
    index.pages["/simple/some-pack/"] = ("text/html; charset=utf-8", f"<!DOCTYPE html>{anchors}".encode())
    index.pages[f"/simple/{SOURCE}".replace("+", "%2B")] = index.pages[f"/simple/{SOURCE}"] = ("x", b"source")
    wheel, source = package_files("some_pack", "v1.2.0+XPU")
    assert (wheel.file, wheel.hash, wheel.provenance) == (WHEEL, trusted(DIGEST), "published")
    assert wheel.url.endswith("%2Bxpu-cp311-cp311-linux_x86_64.whl")
    assert (source.file, source.hash, source.provenance, source.yanked) == (SOURCE, trusted(OTHER), "computed", True)


def test_a_file_that_breaks_off_has_no_hash(index: Index) -> None:
    index.json("pack", entry("pack-1.0.zip", ""))
    index.pages["/files/pack-1.0.zip"] = ("x", b"source")
    assert package_files("pack", "1")[0].hash == trusted(OTHER)
    index.cut = 2
    with pytest.raises(TryAgain, match="4 of 6 bytes"):
        package_files("pack", "1")


@pytest.mark.parametrize("digest", [hashlib.sha256(b"").hexdigest(), "0" * 64])
def test_nonsense_in_an_index_is_refused(index: Index, digest: str) -> None:
    index.json("pack", entry("pack-1.0.zip", digest))
    with pytest.raises(CheckFailed, match="cannot be the hash"):
        package_files("pack", "1.0")


def test_a_malformed_hash_in_an_index_is_refused(index: Index) -> None:
    index.json("pack", entry("pack-1.0.zip", "abc"))
    with pytest.raises(PatchforgeError, match="not a SHA-256 hash"):
        package_files("pack", "1.0")


def test_an_unknown_version_names_the_known_ones(index: Index) -> None:
    index.json("pack", entry("pack-1.0.zip"), entry("pack-2.0.zip"))
    with pytest.raises(PatchforgeError, match=r"(?s)no file of pack 3 is in the index.*1\.0, 2\.0.*pip config"):
        package_files("pack", "3")
    with pytest.raises(PatchforgeError, match="no version at all"):
        package_files("unknown", "3")


@pytest.mark.parametrize("page", [(JSON, b"{"), (JSON, b"[]"), (JSON, b'{"files": [{}]}')])
def test_a_page_of_something_else_is_refused(index: Index, page: tuple[str, bytes]) -> None:
    index.pages["/simple/pack/"] = page
    with pytest.raises(PatchforgeError, match="not a page of a package index"):
        package_files("pack", "1")


def test_extra_indexes_come_after_the_first(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "simple" / "pack"
    folder.mkdir(parents=True)
    page = f'<a href="pack-1.0.zip#sha256={DIGEST}">x</a><a href="pack-2.0.zip#sha256={DIGEST}">x</a>'
    (folder / "index.html").write_text(page)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{tmp_path.as_uri()}/nothing  {tmp_path.as_uri()}/simple")
    index.json("pack", entry("pack-2.0.zip", OTHER))
    assert package_files("pack", "1.0")[0].hash == trusted(DIGEST)
    assert package_files("pack", "2.0")[0].hash == trusted(OTHER)


def test_settings_are_those_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    assert configured_indexes() == [DEFAULT_INDEX]
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = http://a/simple\nextra-index-url =\n    http://b/simple\n    http://c/simple\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    file.rename(tmp_path / ".config" / "pip" / "pip.conf")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.delenv("PIP_CONFIG_FILE")
    assert configured_indexes() == ["http://a/simple", "http://b/simple", "http://c/simple"]
    monkeypatch.setenv("PIP_INDEX_URL", "http://d/simple")
    assert configured_indexes()[0] == "http://d/simple"


def test_a_password_is_used_and_not_shown(index: Index) -> None:
    secret = index.address.replace("//", "//me:s%40crt@")
    index.json("pack", entry("pack-1.0.zip"))
    (file,) = package_files("pack", "1.0", [secret])
    assert index.headers["Authorization"] == "Basic " + base64.b64encode(b"me:s@crt").decode()
    assert "crt" not in file.url
    with pytest.raises(PatchforgeError) as caught:
        package_files("pack", "9", [secret])
    assert "crt" not in str(caught.value)


def test_an_index_out_of_reach_is_an_error() -> None:
    with pytest.raises(PatchforgeError, match="cannot be read"):
        package_files("pack", "1", ["http://127.0.0.1:9/simple"])
    with pytest.raises(PatchforgeError, match="is not asked"):
        package_files("pack", "1", ["ftp://127.0.0.1/simple"])


@pytest.mark.parametrize(
    ("file", "name"), [("a%2Bb-1.whl", "a+b-1.whl"), ("a b~1.zip", "a-b-1.zip"), (".x", "x"), ("..", "source")]
)
def test_names_for_the_store(file: str, name: str) -> None:
    assert store_name(file) == name
